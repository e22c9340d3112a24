"""The small language of requirements in extra specs: "s== x", ">= 4", "<in> avx", "<or> a <or> b", or just a value.

As Nova documents it for its capability and aggregate filters.
"""

import operator
from collections.abc import Callable

_NUMBERS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.ge, "==": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le}
_TEXTS: dict[str, Callable[[str, str], bool]] = {
    "s==": operator.eq, "s!=": operator.ne, "s<": operator.lt, "s<=": operator.le, "s>": operator.gt,
    "s>=": operator.ge}


def matches(value: str | None, wanted: str) -> bool:
    """Whether a host's value meets a requirement. "=" means "at least", for numbers; None meets none."""
    first, *words = wanted.split() or [""]
    if value is None:
        return False
    if first == "<or>":
        return value in words[::2]
    if first == "<all-in>":
        return bool(words) and all(word in value for word in words)
    if first == "<in>":
        return bool(words) and words[0] in value
    if first in _TEXTS:
        return bool(words) and _TEXTS[first](value, words[0])
    if first in _NUMBERS:
        try:
            return bool(words) and _NUMBERS[first](float(value), float(words[0]))
        except ValueError:
            return False
    return value == wanted
