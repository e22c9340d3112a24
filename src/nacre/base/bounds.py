"""What a message of another process may hold at most: types that are checked where it is read, so that all code behind
may rely on them. A number that is infinite, or none at all, fits none of them. And many things in as many pieces as a
message or a statement takes."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")

#: Texts hold no control characters: some databases do not store a NUL, and terminals obey the others.
_PLAIN = r"^[^\x00-\x1f\x7f-\x9f]*\Z"

Count = Annotated[int, Meta(ge=0, le=1 << 53)]
#: Amounts of a resource; a thousand hosts of the most are still counted exactly.
Amount = Annotated[int, Meta(ge=0, le=1 << 40)]
Size = Annotated[float, Meta(ge=0, le=1 << 40)]
Ratio = Annotated[float, Meta(ge=0.001, le=1_000_000)]
#: So that many more fit into a column.
Epoch = Annotated[int, Meta(ge=0, le=1 << 30)]
Word = Annotated[str, Meta(max_length=16, pattern=_PLAIN)]
Id = Annotated[str, Meta(max_length=36, pattern=_PLAIN)]
Version = Annotated[str, Meta(max_length=32, pattern=_PLAIN)]
Short = Annotated[str, Meta(max_length=64, pattern=_PLAIN)]
Name = Annotated[str, Meta(max_length=255, pattern=_PLAIN)]
Facts = Annotated[str, Meta(max_length=64 << 10)]

_Scalar = str | int | float | bool | None
_Flat = _Scalar | list[_Scalar] | dict[str, _Scalar | list[_Scalar]]
_facts = msgspec.json.Decoder(dict[str, _Flat])


@lru_cache(64)
def facts(text: str) -> dict[str, Any]:
    """The JSON object in a text of facts, two levels deep at most. Nobody changes it. Raises ValueError."""
    try:
        found: dict[str, Any] = _facts.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"these facts cannot be read: {error}") from None
    return found


def pieces(values: Iterable[T], most: int) -> Iterator[tuple[T, ...]]:
    """The values in their order, no more than `most` at once. What they were at the call: they may change meanwhile."""
    ordered = tuple(values)
    return (ordered[start:start + most] for start in range(0, len(ordered), most))
