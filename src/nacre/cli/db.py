"""`nacre db`: the database's schema, apart from `up`, which does the same by itself."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from nacre.base.errors import NacreError
from nacre.cli.database import refuse_strangers
from nacre.config import load

T = TypeVar("T")


def _reached(url: str, step: Callable[[str], T]) -> T:
    """What the step gives. Raises NacreError with the engine's reason, and what to look at."""
    import sqlalchemy as sa

    from nacre.base.db import shown_url

    try:
        return step(url)
    except sa.exc.DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        cure = "check the folder's owner and free space" if url.startswith("sqlite") else (
            "check the URL, that the server runs and lets this account in, and that the account owns the database "
            "(CREATE DATABASE nacre OWNER nacre)")
        raise NacreError(f"The database {shown_url(url)} cannot be used: {reason}. Next: {cure}.") from None


@click.group()
def db() -> None:
    """The database's schema."""


@db.command()
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder")
def upgrade(data: Path | None) -> None:
    """Bring the database to this release's schema; servers and data stay."""
    from nacre import migrations

    settings = load(data)
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    done = _reached(settings.database, migrations.upgrade)
    click.echo(f"{'upgraded to' if done else 'already at'} {migrations.newest()}")


@db.command(hidden=True)
@click.option("--data", type=click.Path(path_type=Path), required=True)
def prepare(data: Path) -> None:
    """`upgrade` for `up`, which also asks whether the database is this folder's."""
    from nacre import migrations

    settings = load(data)
    _reached(settings.database, migrations.upgrade)
    if not settings.database.startswith("sqlite"):
        _reached(settings.database, lambda url: refuse_strangers(settings, asyncio.run(_users(url))))


async def _users(url: str) -> set[str]:
    from nacre.base.db import Database
    from nacre.identity.catalog import users

    db = Database(url, inline=True)
    try:
        return await users(db)
    finally:
        await db.close()


@db.command()
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder")
def version(data: Path | None) -> None:
    """Show the schema's revision, and the newest that this release knows."""
    from nacre import migrations

    click.echo(f"{_reached(load(data).database, migrations.current) or 'empty'} of {migrations.newest()}")


@db.command(hidden=True)
@click.argument("message")
def draft(message: str) -> None:
    """For developers: write the migration from the newest revision to the tables as they are declared now."""
    from nacre import migrations

    click.echo(migrations.draft(message))
