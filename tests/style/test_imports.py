"""Who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "nacre"
SERVICES = ("identity", "image", "compute", "conductor", "scheduler", "network")
MODULES = sorted(p for p in ROOT.rglob("*.py") if "migrations" not in p.parts)
#: Modules that may import anything: the one wiring file and the commands around it.
FREE = {"cloud", "cli"}


def imports(path: Path) -> set[str]:
    """Every module of ours that a file imports, at the top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    modules = {str(p.relative_to(ROOT.parent).with_suffix("")).replace("/", ".") for p in ROOT.rglob("*.py")}
    return {name for name in found if name in modules}


def allowed(own: str, target: str) -> bool:
    part = target.split(".")[1]
    return part in ("base", own) or target == f"nacre.{part}.contract"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_follow_the_rules(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    targets = imports(path)
    assert own in FREE or "nacre.cloud" not in targets, "only the commands may import cloud.py"
    if own in FREE or own in ("__init__", "config", "guest"):
        return
    wrong = sorted(t for t in targets if not allowed(own, t))
    assert not wrong, f"{own} may not import {wrong}"


def test_base_stands_alone() -> None:
    wrong = {p.name: t for p in (ROOT / "base").rglob("*.py") for t in imports(p) if not t.startswith("nacre.base")}
    assert not wrong


def test_nodes_never_see_the_database() -> None:
    wrong = {p.as_posix() for p in (ROOT / "node").rglob("*.py")
             if "sqlalchemy" in p.read_text() or any(t.endswith(".tables") for t in imports(p))}
    assert not wrong
