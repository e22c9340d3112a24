"""What clients send, held to a measure before anything looks at it closely."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jsonschema_rs

from nacre.base.errors import BadRequest

#: What one list or object of a body holds at most.
MAX_PARTS = 1000
#: Of a body with so many parts in all each fault may be described; of a larger one only the first that is found.
FEW_PARTS = 2000
#: What a larger number counts as: one that no column holds.
MOST = 1 << 63


@dataclass(frozen=True)
class Bounds:
    """parts: of one list or object; text, name: characters of a text and of an attribute's name; nesting: how deep they
    may lie in each other. None: without."""

    parts: int = MAX_PARTS
    text: int | None = None
    name: int | None = None
    nesting: int | None = None


def refuse_beyond(value: Any, bounds: Bounds = Bounds()) -> None:
    """The outermost first. Raises BadRequest naming the field that is beyond its bounds."""
    for depth, level in enumerate(_levels(value)):
        if bounds.nesting is not None and depth > bounds.nesting:
            field = level[0][0]
            raise BadRequest(f"Invalid input for field/attribute {field}. It lies deeper in the body than "
                             f"{bounds.nesting} levels.", field=field)
        for field, part in level:
            if isinstance(part, dict | list):
                _refuse_more(field, len(part), "parts", bounds.parts)
            elif isinstance(part, str):
                _refuse_more(field, len(part), "characters", bounds.text)
            for name in part if isinstance(part, dict) else ():
                if bounds.name is not None and len(name) > bounds.name:
                    raise BadRequest(f"Names of attributes are at most {bounds.name} characters long: {name[:40]}...",
                                     field=name[:40])


def _refuse_more(field: str, size: int, what: str, most: int | None) -> None:
    if most is not None and size > most:
        raise BadRequest(f"Invalid input for field/attribute {field}. It has {size} {what}, and {most} are allowed.",
                         field=field)


def _levels(value: Any) -> Iterator[list[tuple[str, Any]]]:
    """What lies equally deep in a body, with its fields' names: a recursion would itself need a limit. The next is
    looked for when the one before it was found good."""
    level = [("body", value)]
    while level:
        yield level
        level = [(str(name)[:64], inner) for field, part in level if isinstance(part, dict | list)
                 for name, inner in (part.items() if isinstance(part, dict) else ((field, each) for each in part))]


class Wrong(NamedTuple):
    """What keeps a body from its schema. part: what stands at the path, as it was sent (the validator's own copy has
    its keys sorted); error: as the validator describes it."""

    path: Sequence[str | int]
    part: Any
    error: Any


def schema_validator(rules: Mapping[str, Any], **options: Any) -> Any:
    """What a JSON schema is held against a body with, by `first_error`."""
    return jsonschema_rs.Draft202012Validator(dict(rules), **options)


def first_error(validator: Any, value: Any) -> Wrong | None:
    """What keeps `value` from its schema, None where nothing does: of a small one what is wrong nearest its top. The
    validator describes each error when it is asked for them all, which takes seconds where there are thousands."""
    return None if validator.is_valid(value) else _first_error(validator, value)


def _first_error(validator: Any, value: Any) -> Wrong | None:
    if _few(value):
        error = min(validator.iter_errors(value), key=lambda found: len(found.instance_path))
    else:
        try:
            validator.validate(value)
        except jsonschema_rs.ValidationError as found:
            error = found
        else:
            return None
    path, part = _found(value, error.instance_path)
    return Wrong(path, part, error)


def _found(value: Any, path: Iterable[str | int]) -> tuple[list[str | int], Any]:
    """What lies at the end of a validator's path, and the path as the value has it: the validator says "7" and "+07" of
    an object's keys as 7."""
    taken, part = list[str | int](), value
    for step in path:
        if isinstance(part, dict) and step not in part:
            step = next((key for key in part if whole_number(key.removeprefix("+")) == step), step)
        try:
            part = part[step]
        except (LookupError, TypeError):
            break
        taken.append(step)
    return taken, part


def _few(value: Any) -> bool:
    seen = 0
    for level in _levels(value):
        seen += sum(len(part) for _, part in level if isinstance(part, dict | list))
        if seen > FEW_PARTS:
            return False
    return True


def whole_number(text: str) -> int | None:
    """The number that a text of ASCII digits says, MOST if it is larger; None: it says none. Never int() of a client's
    text alone: that takes digits of other scripts, and fails beyond 4,300 digits."""
    if not text.isascii() or not text.isdigit():
        return None
    digits = text.lstrip("0")
    return min(int(digits or "0"), MOST) if len(digits) < 20 else MOST
