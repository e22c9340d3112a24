"""No policy is declared that nobody asks: an operator who overrides it would be deceived."""

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from nacre.compute.policies import POLICIES as COMPUTE
from nacre.image.policies import POLICIES as IMAGE

ROOT = Path(__file__).parents[2] / "src" / "nacre"


def texts(folder: str) -> set[str]:
    """Every text in a service's code, policies aside. Of an f-string: its parts, each a text with what stands for the
    rest, as in `os-keypairs:{}`."""
    found = set[str]()
    for file in (ROOT / folder).rglob("*.py"):
        if file.name != "policies.py":
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
                elif isinstance(node, ast.JoinedStr):
                    found.add("".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values))
    return found


def asked(name: str, said: set[str]) -> bool:
    """Whether some text is the name, or some two are its parts: `"os-hypervisors:"` and `"list"`, `"servers:{}:x"`."""
    if name in said:
        return True
    for at in (i + 1 for i, sign in enumerate(name) if sign == ":"):
        start, word, rest = name[:at], *name[at:].partition(":")[::2]
        if name[at:] in said and start in said:
            return True
        if word in said and start + "{}" + (":" + rest if rest else "") in said:
            return True
    return False


@pytest.mark.parametrize(("folder", "policies"), [("compute", COMPUTE), ("image", IMAGE)])
def test_every_policy_is_asked(folder: str, policies: Mapping[str, str]) -> None:
    said, checks = texts(folder), " ".join(policies.values())
    idle = [name for name in policies if name not in said and f"rule:{name}" not in checks
            and not asked(re.sub("^(os_compute_api|placement):", "", name), said)]
    assert not idle, f"declared, and asked by nobody: {idle}"


@pytest.mark.parametrize(("name", "said", "found"), [
    ("a:b", {"a:b"}, True), ("a:b", {"a:", "b"}, True), ("a:b", {"a:{}", "b"}, True), ("a:b:c", {"a:{}:c", "b"}, True),
    ("a:b", {"a:", "c"}, False), ("a:b:c", {"a:{}", "b"}, False)])
def test_names_in_parts_are_found(name: str, said: set[str], found: bool) -> None:
    assert asked(name, said) is found
