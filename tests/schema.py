"""Databases with this release's tables in them: made once in each test process, then copied."""

import sqlite3
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from nacre.base.db import Database
from nacre.base.db.sqlite import engine as sqlite_engine
from nacre.migrations.tables import create_all


def _raw(connection: sa.Connection) -> sqlite3.Connection:
    connection.rollback()
    raw = connection.connection.dbapi_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw


def contents(engine: sa.Engine) -> bytes:
    """What a SQLite database in memory holds."""
    with engine.connect() as connection:
        return _raw(connection).serialize()


@cache
def empty() -> bytes:
    """A SQLite database with all tables and no rows."""
    engine = sqlite_engine("sqlite://")
    create_all(engine)
    found = contents(engine)
    engine.dispose()
    return found


def in_memory(holds: bytes | None = None) -> Database:
    """A database in memory, inline. holds: what `contents` gave; None: all tables and no rows."""
    db = Database("sqlite://", inline=True)
    with db.engine.connect() as connection:
        _raw(connection).deserialize(empty() if holds is None else holds)
    return db


def in_file(path: Path) -> str:
    """The URL of a new SQLite file with all tables and no rows."""
    path.write_bytes(empty())
    return f"sqlite:///{path}"
