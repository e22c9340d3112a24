"""The `query` hint, Nova's JSON filter: ["and", [">=", "$free_ram_mb", 1024], ["in", "$host", "a", "b"]].

Compiled once a request, and then answered for one host or, with columns instead of numbers, for all at once.
"""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import msgspec
import numpy as np

from nacre.base.errors import BadRequest

MAX_LENGTH, MAX_DEPTH = 4096, 16

#: What may be asked for as $NAME.
VARIABLES = ("host", "hypervisor_hostname", "free_ram_mb", "total_usable_ram_mb", "free_disk_mb",
             "total_usable_disk_gb", "vcpus_total", "vcpus_used", "num_instances", "hypervisor_type",
             "hypervisor_version", "architecture")

#: Name -> the value of a host, or the column of all.
Facts = Callable[[str], Any]
Test = Callable[[Facts], Any]

_COMPARE = {"=": operator.eq, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}


def compile_query(text: str) -> Test:
    """The query as a function of a host's facts. Raises BadRequest: what is wrong with it."""
    if len(text) > MAX_LENGTH:
        raise _bad(f"is longer than {MAX_LENGTH} characters")
    try:
        tree = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _bad(f"is not JSON: {error}") from None
    return _compile(tree, 1)


def _compile(tree: object, depth: int) -> Test:
    if depth > MAX_DEPTH:
        raise _bad(f"is nested deeper than {MAX_DEPTH}")
    if not isinstance(tree, list) or not tree or not isinstance(tree[0], str):
        raise _bad('must be lists that begin with an operator, as [">=", "$free_ram_mb", 1024]')
    name, parts = tree[0], tree[1:]
    if name in ("and", "or", "not"):
        tests = [_compile(part, depth + 1) for part in parts]
        if not tests:
            raise _bad(f"has nothing after {name!r}")
        if name == "not":  # of each; as a whole, any
            tests = [_negated(test) for test in tests]
        combine = np.logical_and if name == "and" else np.logical_or
        return lambda facts: reduce(combine, [test(facts) for test in tests])
    if name != "in" and name not in _COMPARE:
        raise _bad(f"has the operator {name[:20]!r}; one of {', '.join(_COMPARE)}, in, and, or, not is wanted")
    terms = [_term(part) for part in parts]
    if len(terms) < 2:
        raise _bad(f"needs two values after {name!r}")
    if name == "in":
        return lambda facts: reduce(np.logical_or, [_safely(operator.eq, terms[0](facts), t(facts)) for t in terms[1:]])
    compare = _COMPARE[name]
    return lambda facts: reduce(np.logical_and, [_safely(compare, terms[0](facts), t(facts)) for t in terms[1:]])


def _negated(test: Test) -> Test:
    return lambda facts: np.logical_not(test(facts))


def _term(part: object) -> Callable[[Facts], Any]:
    if isinstance(part, str) and part.startswith("$"):
        name = part[1:]
        if name not in VARIABLES:
            raise _bad(f"asks for {part[:40]!r}; known are ${', $'.join(VARIABLES)}")
        return lambda facts: facts(name)
    if isinstance(part, bool) or not isinstance(part, str | int | float):
        raise _bad("compares with numbers, strings and $names only")
    return lambda facts: part


def _safely(compare: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """A number is neither less nor more than a text."""
    try:
        return compare(left, right)
    except TypeError:
        return False


def _bad(what: str) -> BadRequest:
    return BadRequest(f"scheduler hint query {what}.", field="query")
