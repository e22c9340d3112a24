"""Where the tables are declared: every `tables.py` and `*_tables.py` of the package."""

from pathlib import Path

_ROOT = Path(__file__).parents[1]

MODULES = tuple(sorted(
    "nacre." + ".".join(path.relative_to(_ROOT).with_suffix("").parts)
    for path in _ROOT.rglob("*tables.py") if path.parent.name != "migrations"))
