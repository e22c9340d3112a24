"""No circle between files: what a module needs is below it.

Imports inside functions count too; those for type checking alone (`if TYPE_CHECKING`) do not.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "nacre"


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below a node but what is for type checking only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from _statements(other)
            continue
        yield child
        yield from _statements(child)


def graph(root: Path) -> dict[str, set[str]]:
    """module -> the modules of ours that it imports. root: the package's folder."""
    files = {".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p
             for p in root.rglob("*.py")}
    package, found = root.name + ".", dict[str, set[str]]()
    for module, path in files.items():
        names = set[str]()
        for node in _statements(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                each = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= {name if name.removeprefix(package) in files else node.module for name in each}
        found[module] = {n for name in names if (n := name.removeprefix(package)) in files and name != n}
    return found


def circles(edges: dict[str, set[str]]) -> set[frozenset[str]]:
    """The sets of more than one module that all reach one another."""
    reached = dict[str, set[str]]()
    for module in edges:
        seen, todo = set[str](), [module]
        while todo:
            for other in edges[todo.pop()] - seen:
                seen.add(other)
                todo.append(other)
        reached[module] = seen
    return {frozenset({m, *(o for o in reached[m] if m in reached[o])}) for m in edges
            if any(m in reached[o] for o in reached[m] if o != m)}


def test_there_is_no_circle() -> None:
    assert not [sorted(circle) for circle in circles(graph(ROOT))]


def test_the_networks_nouns_do_not_need_its_api() -> None:
    wrong = {module for module, others in graph(ROOT).items() if module.startswith("network.")
             and not module.startswith("network.api") and any(o.startswith("network.api") for o in others)}
    assert not wrong


@pytest.mark.parametrize(("files", "expected"), [
    ({"a": "from pkg import b", "b": "import pkg.c", "c": ""}, set()),
    ({"a": "from pkg.b import x", "b": "def f():\n    from pkg import a", "c": ""}, {frozenset({"a", "b"})}),
    ({"a": "from pkg.b import x", "b": "if TYPE_CHECKING:\n    from pkg import a", "c": ""}, set()),
    ({"a": "import pkg.b", "b": "import pkg.c", "c": "import pkg.a"}, {frozenset({"a", "b", "c"})}),
])
def test_circles_are_found(tmp_path: Path, files: dict[str, str], expected: set[frozenset[str]]) -> None:
    (tmp_path / "pkg").mkdir()
    for name, text in files.items():
        (tmp_path / "pkg" / f"{name}.py").write_text(text)
    assert circles(graph(tmp_path / "pkg")) == expected
