"""The shape of the code, as rules that a machine can check. An exemption is listed by name with its reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "nacre"
MODULES = sorted(p for p in ROOT.rglob("*.py") if "migrations/versions" not in p.as_posix())

MAX_MODULE, MAX_FUNCTION, MAX_PARAMETERS, MAX_METHODS, MAX_FOLDER, MAX_CONTRACT = 400, 50, 5, 20, 15, 200

#: "path" or "path:name" -> why it may be larger.
EXEMPT: dict[str, str] = {
    "network/contract.py": "the nouns of all wiring: one place is easier to read than two",
    "compute/contract.py": "what a create asks for, what a server is, and how stories move it",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def parameters(f: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    a = f.args
    names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    return len([n for n in names if n not in ("self", "cls")])


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_short_and_so_are_its_parts(path: Path) -> None:
    text, name = path.read_text(), name_of(path)
    wrong = []
    limit = MAX_CONTRACT if path.name == "contract.py" else MAX_MODULE
    if (lines := text.count("\n")) > limit and name not in EXEMPT:
        wrong.append(f"{lines} lines, limit {limit}")
    tree = ast.parse(text)
    for f in functions(tree):
        if f"{name}:{f.name}" in EXEMPT:
            continue
        length = (f.end_lineno or f.lineno) - f.lineno + 1
        if length > MAX_FUNCTION:
            wrong.append(f"{f.name}: {length} lines, limit {MAX_FUNCTION}")
        if parameters(f) > MAX_PARAMETERS:
            wrong.append(f"{f.name}: {parameters(f)} parameters, limit {MAX_PARAMETERS}")
    for c in ast.walk(tree):
        if isinstance(c, ast.ClassDef) and f"{name}:{c.name}" not in EXEMPT:
            methods = [x for x in c.body if isinstance(x, ast.FunctionDef | ast.AsyncFunctionDef)]
            if len(methods) > MAX_METHODS:
                wrong.append(f"class {c.name}: {len(methods)} methods, limit {MAX_METHODS}")
    assert not wrong, f"{name}: " + "; ".join(wrong)


def test_folders_are_small() -> None:
    wrong = {}
    for folder in {p.parent for p in MODULES}:
        entries = [p for p in folder.iterdir() if p.name not in ("__init__.py", "__pycache__", "py.typed")]
        if len(entries) > MAX_FOLDER and name_of(folder) not in EXEMPT:
            wrong[name_of(folder)] = len(entries)
    assert not wrong, f"more than {MAX_FOLDER} entries: {wrong}"


def test_every_exemption_is_still_needed() -> None:
    gone = [e for e in EXEMPT if not (ROOT / e.split(":")[0]).exists()]
    assert not gone, f"exempt, but not there: {gone}"


def test_no_junk_drawers() -> None:
    assert [p for p in MODULES if p.stem in ("utils", "common", "helpers", "misc")] == []
