"""What clients send, held to a measure before anything looks at it closely."""

from typing import Any

import jsonschema_rs

from nacre.base.errors import BadRequest

#: What one list or object of a body holds at most.
MAX_PARTS = 1000
#: Of a body with so many parts in all each fault may be described; of a larger one only the first that is found.
FEW_PARTS = 2000
#: What a larger number counts as: one that no column holds.
MOST = 1 << 63


def refuse_long(value: Any, most: int = MAX_PARTS) -> None:
    """Level by level, the outermost first. Raises BadRequest naming the list or object that holds more than `most`."""
    level: list[tuple[str, Any]] = [("body", value)]
    while level:
        inner: list[tuple[str, Any]] = []
        for name, part in level:
            if isinstance(part, dict | list):
                if len(part) > most:
                    raise BadRequest(f"Invalid input for field/attribute {name}. It has {len(part)} parts, and {most} "
                                     "are allowed.", field=name)
                inner += ((str(key)[:64], each) for key, each in part.items()) if isinstance(part, dict) else (
                    (name, each) for each in part)
        level = inner


def first_error(validator: Any, value: Any) -> Any:
    """What keeps `value` from its schema, None where nothing does: of a small one what is wrong nearest its top. The
    validator describes each error when it is asked for them all, which takes seconds where there are thousands."""
    if validator.is_valid(value):
        return None
    if _few(value):
        return min(validator.iter_errors(value), key=lambda found: len(found.instance_path))
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return error
    return None


def _few(value: Any) -> bool:
    level, seen = [value], 0
    while level:
        inner: list[Any] = []
        for part in level:
            if isinstance(part, dict | list):
                seen += len(part)
                if seen > FEW_PARTS:
                    return False
                inner += part.values() if isinstance(part, dict) else part
        level = inner
    return True


def whole_number(text: str) -> int | None:
    """The number that a text of ASCII digits says, MOST if it is larger; None: it says none. Never int() of a client's
    text alone: that takes digits of other scripts, and fails beyond 4,300 digits."""
    if not text.isascii() or not text.isdigit():
        return None
    digits = text.lstrip("0")
    return min(int(digits or "0"), MOST) if len(digits) < 20 else MOST
