"""The small language of requirements in extra specs: "s== x", ">= 4", "<in> avx", "<or> a <or> b", or just a value.

It is oslo.utils', as Nova's filters have it; a requirement is read once, as that takes milliseconds.
"""

from functools import lru_cache

from oslo_utils.specs_matcher import make_grammar, op_methods
from pyparsing import ParseException

_GRAMMAR = make_grammar()


def matches(value: str | None, wanted: str) -> bool:
    """Whether a host's value meets a requirement. "=" means "at least", for numbers; None meets none."""
    if value is None:
        return False
    operator, *words = _read(wanted)
    try:
        return bool(op_methods[operator](value, *words)) if words else value == wanted
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # it is no number, list or range
        return False


@lru_cache(maxsize=1024)
def _read(wanted: str) -> tuple[str, ...]:
    """An operator and its operands, or one word: a plain value."""
    try:
        return tuple(_GRAMMAR.parse_string(wanted))
    except ParseException:
        return (wanted,)
