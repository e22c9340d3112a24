"""What a body is looked at for before it is parsed."""

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import BadRequest
from nacre.base.serving.bodies import parse_json

VALUES = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text('"\\[]{}a/é', max_size=8), lambda inner:
                      st.lists(inner, max_size=3) | st.dictionaries(st.text('"\\[{', max_size=4), inner, max_size=3))


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(VALUES)
def test_lists_and_objects_are_counted_and_not_what_texts_hold(value: object) -> None:
    raw, deep = msgspec.json.encode(value), depth(value)
    assert parse_json(raw, deep) == value
    if deep:
        with pytest.raises(BadRequest, match="nested deeper than"):
            parse_json(raw, deep - 1)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("end", [b"", b"\\", b'"', b'"]'])
def test_a_text_without_an_end_is_looked_at_once(end: bytes) -> None:
    """Once for each of its escaped quotes it took an hour, before anybody was asked for a token."""
    raw = b"[" * 65 + b'"' + b'\\"' * 500_000 + end
    with pytest.raises(BadRequest):
        parse_json(raw, 64)


@pytest.mark.parametrize("bracket", [b"[", b"{"])
def test_what_is_too_deep_is_not_looked_at_to_its_end(bracket: bytes) -> None:
    """A mebibyte of brackets took a tenth of a second, for which nobody else is answered."""
    raw, took = bracket * (1 << 20), list[float]()
    for _ in range(5):
        begin = time.perf_counter()
        with pytest.raises(BadRequest, match="nested deeper than 64"):
            parse_json(raw, 64)
        took.append(time.perf_counter() - begin)
    assert min(took) < 0.05
