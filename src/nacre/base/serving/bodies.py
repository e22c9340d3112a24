"""A request's body before any schema looks at it: not too long, there in time, JSON that is not nested without end, and
no NUL."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import msgspec

from nacre.base.errors import BadRequest, NotFound, TooLarge
from nacre.base.serving.inputs import whole_number

#: Seconds in which it must have come.
BODY_SECONDS = 30

#: A text, also one without an end: each byte is looked at once (possessive), however often a quote is escaped.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_STEP = bytes(set(range(256)) - _STEP.keys())


def announced(headers: Mapping[str, str], limit: int) -> int:
    """The body's length in bytes; the most that it can be, where that is not known. Raises TooLarge."""
    given = whole_number(headers.get("content-length", ""))
    if given is None:
        return limit if "transfer-encoding" in headers else 0
    if given > limit:
        raise TooLarge(f"The request body is larger than {limit} bytes.")
    return given


async def read(headers: Mapping[str, str], stream: AsyncIterator[bytes], limit: int) -> bytes:
    """The whole body. Raises TooLarge past the limit, before reading on; BadRequest when it does not come."""
    announced(headers, limit)
    parts, size = list[bytes](), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in stream:
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"The request body is larger than {limit} bytes.")
                parts.append(chunk)
    except TimeoutError:
        raise BadRequest(f"The request body did not arrive within {BODY_SECONDS} s.") from None
    return b"".join(parts)


def parse_json(raw: bytes, nesting: int) -> Any:
    """A body's JSON; None for an empty one. Raises BadRequest for none, and for one that is nested deeper: what looks
    at it calls itself for each level."""
    if raw.count(b"[") + raw.count(b"{") > nesting:  # else it cannot be
        steps = map(_STEP.__getitem__, _TEXT.sub(b"", raw).translate(None, _NO_STEP))
        if any(map(nesting.__lt__, accumulate(steps))):  # to the first that is too deep
            raise BadRequest(f"The request body has lists or objects nested deeper than {nesting} levels, the limit.",
                               field="body")
    try:
        return msgspec.json.decode(raw) if raw else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("Malformed request body") from None


def nul_in(value: Any, where: str = "") -> str | None:
    """The path of a text with a NUL in a parsed body; None: there is none."""
    if isinstance(value, str):
        return where if "\x00" in value else None
    if isinstance(value, Mapping):
        parts: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, Sequence):
        parts = enumerate(value)
    else:
        return None
    for key, part in parts:
        inner = f"{where}.{key}" if where else str(key)
        if "\x00" in str(key):
            return inner.replace("\x00", "")
        if (found := nul_in(part, inner)) is not None:
            return found
    return None


def refuse_nul(params: Iterable[str], query: Iterable[tuple[str, str]]) -> None:
    """No id and no name holds a NUL: a database may not even be able to look for it. Raises NotFound, BadRequest."""
    if any("\x00" in value for value in params):
        raise NotFound
    for name, value in query:
        if "\x00" in name or "\x00" in value:
            name = name.replace("\x00", "")
            raise BadRequest(f"The query parameter {name!r} holds a NUL character.", field=name)
