"""Where the tables are declared: every `tables.py` and `*_tables.py` of the package."""

import importlib
from pathlib import Path

import sqlalchemy as sa

from nacre.base.db import metadata

_ROOT = Path(__file__).parents[1]

MODULES = tuple(sorted(
    "nacre." + ".".join(path.relative_to(_ROOT).with_suffix("").parts)
    for path in _ROOT.rglob("*tables.py") if path.parent.name != "migrations"))


def create_all(engine: sa.Engine) -> None:
    """Every table as it is declared, without the migrations' history: for a database that is thrown away."""
    for module in MODULES:
        importlib.import_module(module)
    metadata.create_all(engine)
