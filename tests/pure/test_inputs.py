"""What clients send is held to a measure before anything looks at it closely."""

import jsonschema_rs
import pytest

from nacre.base.errors import BadRequest
from nacre.base.serving.inputs import (
    MAX_PARTS,
    MOST,
    Bounds,
    first_error,
    refuse_beyond,
    schema_validator,
    whole_number,
)

NUMBERS = {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}


class Watched:
    """A validator that counts how often all errors of a value are asked for."""

    def __init__(self, schema):
        self._validator, self.described = jsonschema_rs.validator_for(schema), 0
        self.is_valid, self.validate = self._validator.is_valid, self._validator.validate

    def iter_errors(self, value):
        self.described += 1
        return self._validator.iter_errors(value)


def test_not_every_error_of_a_large_body_is_described():
    validator = Watched(NUMBERS)
    wrong = first_error(validator, [[1] * 500] * 500)
    assert (list(wrong.path), wrong.part) == ([0, 0], 1) and validator.described == 0
    wrong = first_error(validator, [["a", 1], 2])
    assert (list(wrong.path), wrong.part) == ([1], 2) and validator.described == 1
    assert first_error(validator, [["a"]]) is None


@pytest.mark.parametrize("key", ["7", "007", "+7", "-1", "1e3", "٣", "99999999999999999999"])
def test_a_key_that_reads_as_a_number_is_found(key):
    """The validator's path has it as the number."""
    validator = schema_validator({"type": "object", "additionalProperties": {
        "type": "object", "additionalProperties": {"type": "string"}}})
    wrong = first_error(validator, {"a": {key: 5, "b": "x"}})
    assert (list(wrong.path), wrong.part) == (["a", key], 5)
    wrong = first_error(validator, {key: {"a": 5}, "b": {}})
    assert (list(wrong.path), wrong.part) == ([key, "a"], 5)


@pytest.mark.parametrize("body", [[1] * (MAX_PARTS + 1), {"tags": [1] * 500_000}, {"a": {"tags": {
    f"k{n}": 1 for n in range(2000)}}}, [[[1] * 5000] * 3]])
def test_lists_and_objects_have_an_end(body):
    with pytest.raises(BadRequest, match="1000 are allowed"):
        refuse_beyond(body)


def test_many_parts_in_many_places_are_none_too_many():
    refuse_beyond({"servers": [{"tags": ["a"] * 50}] * MAX_PARTS})


@pytest.mark.parametrize(("body", "field", "why"), [
    ({"a": "x" * 11}, "a", "11 characters, and 10 are allowed"),
    ({"a": {"b" * 7: 1}}, "bbbbbbb", "at most 6 characters"), ({"a": [[{}]]}, "a", "deeper in the body than 2 levels"),
    ({"a": [1, 2, 3, 4, 5]}, "a", "5 parts, and 4 are allowed")])
def test_a_narrower_measure(body, field, why):
    bounds = Bounds(parts=4, text=10, name=6, nesting=2)
    refuse_beyond({"a": [1, 2, 3, 4], "b": "x" * 10, "c" * 6: [[]]}, bounds)
    with pytest.raises(BadRequest, match=why) as caught:
        refuse_beyond(body, bounds)
    assert caught.value.field == field
    refuse_beyond(body)


@pytest.mark.parametrize(("text", "number"), [
    ("0", 0), ("12", 12), ("0" * 5000 + "7", 7), ("1" * 5000, MOST), ("", None), ("-1", None), ("²", None),
    ("\u0663", None), ("1_0", None), (" 1", None), (str(MOST), MOST)])
def test_numbers_of_clients(text, number):
    assert whole_number(text) == number
