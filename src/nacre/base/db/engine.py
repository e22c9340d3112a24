"""What both engines stand on: where tables are declared, what a unit of work is, how an engine is made, and the one
error of a database that is away."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from nacre.base.errors import Interrupted, NacreError

T = TypeVar("T")
Unit = Callable[[sa.Connection], T]

#: Every service's tables are declared on this.
metadata = sa.MetaData(naming_convention={
    "ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s", "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s"})


class DatabaseUnavailable(Interrupted):
    """The database cannot be opened, is locked by another program, or is out of space."""


def normal_url(url: str) -> str:
    """The URL with the SQL driver that we use. Raises NacreError for an engine that we do not speak."""
    for plain, ours in (("sqlite:", "sqlite:"), ("postgresql+psycopg:", "postgresql+psycopg:"),
                        ("postgresql:", "postgresql+psycopg:"), ("postgres:", "postgresql+psycopg:")):
        if url.startswith(plain):
            return ours + url[len(plain):]
    raise NacreError(f"database_url: {url.partition(':')[0]!r} is not spoken here; use sqlite:///FILE or postgresql://...")


def shown_url(url: str) -> str:
    """The URL for people's eyes: without password and options."""
    try:
        parts = sa.make_url(normal_url(url))
    except (sa.exc.ArgumentError, ValueError):
        return url.partition(":")[0]
    return parts.set(drivername=parts.get_backend_name(), password=None, query={}).render_as_string()


def make_engine(url: str, **rest: Any) -> sa.Engine:
    """An engine whose JSON columns go through msgspec, and whose errors repeat no values. Raises NacreError."""
    try:
        return sa.create_engine(
            normal_url(url), json_serializer=lambda v: msgspec.json.encode(v).decode(),
            json_deserializer=msgspec.json.decode, hide_parameters=True, **rest)
    except (sa.exc.ArgumentError, ValueError):
        raise NacreError("database_url cannot be understood; it looks like "
                         "postgresql://USER:PASSWORD@HOST:5432/DATABASE, with %40 for an @ in the password.") from None
