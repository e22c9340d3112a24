"""Docs that cannot rot: every file, class and function that they name is there."""

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
SOURCE = TOP / "src" / "nacre"
PAGES = sorted([*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md"), TOP / "tests" / "README.md"])
#: Pages whose tables claim things: each row names the tests that would fail without what it says.
CLAIMS = ("flow.md", "badinputs.md", "faults.md")
#: `folder/file.py` or `folder/file.py:Name.func`, relative to the source, the tests or the top.
MENTION = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|txt|sh|toml))(?::([\w.]+))?`")


def places(path: str) -> list[Path]:
    return [base / path for base in (TOP, SOURCE, TOP / "tests", TOP / "src") if (base / path).exists()]


def names(file: Path) -> set[str]:
    """Every `name` and `Class.name` that a module defines."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            for part in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add(f"{node.name}.{part.name}")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {t.id for t in targets if isinstance(t, ast.Name)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(TOP).as_posix())
def test_what_a_page_names_is_there(page: Path) -> None:
    wrong = []
    for path, name in MENTION.findall(page.read_text()):
        found = places(path)
        if not found:
            wrong.append(path)
        elif name and not any(name in names(f) for f in found):
            wrong.append(f"{path}:{name}")
    assert not wrong, f"{page.name} names what is not there: {wrong}"
    links = re.findall(r"\]\(([\w./-]+)\)", page.read_text())
    gone = [link for link in links if not (page.parent / link).exists()]
    assert not gone, f"{page.name} links to what is not there: {gone}"


def claims(page: Path) -> list[str]:
    """The rows of a page's tables, without their heads."""
    lines = page.read_text().splitlines()
    return [line for line in lines if line.startswith("|") and not line.startswith("|--")
            and not lines[min(lines.index(line) + 1, len(lines) - 1)].startswith("|--")]


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_names_the_test_that_would_fail_without_it(name: str) -> None:
    rows = claims(TOP / "docs" / name)
    assert rows
    for row in rows:
        shown = MENTION.findall(row.rstrip(" |").rpartition(" | ")[2])
        tests = [(path, test) for path, test in shown if test.startswith("test_")]
        assert tests and len(tests) == len(shown), f"no test by its name: {row[:100]}"
        for path, test in tests:
            file = TOP / "tests" / path
            assert file.exists() and test in names(file), f"{path} has no {test}"
