"""Statements of common shapes, built once for each shape and run with parameters.

SQLAlchemy spends four times as long on building and keying a statement of a wide table as SQLite on running it
(bench/RESULTS.md), so the hot paths name tables and columns here and the statement is made at the first call.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.dml import ReturningDelete

Row = dict[str, Any]
_MANY = (list, tuple, set, frozenset)


def find(conn: sa.Connection, table: sa.FromClause, order: tuple[str, ...] = (), **conditions: Any) -> list[Row]:
    """Whole rows for which every condition holds. A condition is a column's value, None (IS NULL) or a collection of
    values (IN). order: names of columns, ascending."""
    return rows(select(conn, table, (), order, conditions))


def one(conn: sa.Connection, table: sa.FromClause, **conditions: Any) -> Row | None:
    """As `find`, the first row."""
    return next(iter(rows(first(conn, table, (), conditions))), None)


def select(conn: sa.Connection, table: sa.FromClause, columns: tuple[str, ...], order: tuple[str, ...],
           conditions: Mapping[str, Any]) -> sa.CursorResult[Any]:
    """As `find`, the rows as tuples of these columns, in their order; none named: of all."""
    names, values = _conditions(conditions)
    return conn.execute(_select(table, columns, names, order), values)


def first(conn: sa.Connection, table: sa.FromClause, columns: tuple[str, ...],
          conditions: Mapping[str, Any]) -> sa.CursorResult[Any]:
    """As `select`, one row at most."""
    names, values = _conditions(conditions)
    return conn.execute(_first(table, columns, names), values)


def rows(result: sa.CursorResult[Any]) -> list[Row]:
    """A result's rows by column. (SQLAlchemy's own mappings take five times as long to become dictionaries.)"""
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result]


def update(conn: sa.Connection, table: sa.Table, values: Mapping[str, Any], count: str = "", **conditions: Any) -> int:
    """Sets columns of the rows for which the conditions hold; how many they were. count: a column to add one to."""
    names, wanted = _conditions(conditions)
    statement = _update(table, names, tuple(values), count)
    return int(conn.execute(statement, {**wanted, **{"new_" + n: v for n, v in values.items()}}).rowcount)


def insert(conn: sa.Connection, table: sa.FromClause, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """Inserts one row, or several of the same columns."""
    conn.execute(_insert(table), rows)


def delete(conn: sa.Connection, table: sa.Table, **conditions: Any) -> int:
    """Deletes the rows for which the conditions hold; how many they were."""
    names, values = _conditions(conditions)
    return int(conn.execute(_delete(table, names), values).rowcount)


def take(conn: sa.Connection, table: sa.Table, column: str, **conditions: Any) -> list[Any]:
    """As `delete`; what the column held in each row that is gone now."""
    names, values = _conditions(conditions)
    return list(conn.execute(_take(table, names, column), values).scalars())


def _conditions(conditions: Mapping[str, Any]) -> tuple[tuple[tuple[str, str], ...], Row]:
    """The conditions' shape (what statements are kept by), and their values."""
    shape, values = [], {}
    for name, value in conditions.items():
        if value is None:
            shape.append((name, "null"))
            continue
        many = isinstance(value, _MANY)
        shape.append((name, "many" if many else "one"))
        values["is_" + name] = list(value) if many else value
    return tuple(shape), values


def _where(table: sa.FromClause, shape: Collection[tuple[str, str]]) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    for name, kind in shape:
        column = table.c[name]
        if kind == "null":
            found.append(column.is_(None))
        elif kind == "many":
            found.append(column.in_(sa.bindparam("is_" + name, expanding=True, type_=column.type)))
        else:
            found.append(column == sa.bindparam("is_" + name, type_=column.type))
    return found


@lru_cache(maxsize=1024)
def _select(table: sa.FromClause, columns: tuple[str, ...], shape: tuple[tuple[str, str], ...],
            order: tuple[str, ...]) -> sa.Select[Any]:
    wanted = sa.select(*(table.c[n] for n in columns)) if columns else sa.select(table)
    return wanted.where(*_where(table, shape)).order_by(*(table.c[n] for n in order))


@lru_cache(maxsize=1024)
def _first(table: sa.FromClause, columns: tuple[str, ...], shape: tuple[tuple[str, str], ...]) -> sa.Select[Any]:
    return _select(table, columns, shape, ()).limit(1)


@lru_cache(maxsize=1024)
def _update(table: sa.Table, shape: tuple[tuple[str, str], ...], names: tuple[str, ...], count: str) -> sa.Update:
    values: dict[str, Any] = {n: sa.bindparam("new_" + n, type_=table.c[n].type) for n in names}
    if count:
        values[count] = table.c[count] + 1
    return sa.update(table).where(*_where(table, shape)).values(values)


@lru_cache(maxsize=256)
def _insert(table: sa.FromClause) -> sa.Insert:
    assert isinstance(table, sa.Table)
    return sa.insert(table)


@lru_cache(maxsize=256)
def _delete(table: sa.Table, shape: tuple[tuple[str, str], ...]) -> sa.Delete:
    return sa.delete(table).where(*_where(table, shape))


@lru_cache(maxsize=256)
def _take(table: sa.Table, shape: tuple[tuple[str, str], ...], column: str) -> ReturningDelete[Any]:
    return sa.delete(table).where(*_where(table, shape)).returning(table.c[column])
