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
    """`upgrade` for `up`, which also asks whether the database is this folder's, and for the cloud's id."""
    from nacre import migrations

    settings = load(data)
    _reached(settings.database, migrations.upgrade)
    there, cloud = _reached(settings.database, lambda url: asyncio.run(_whose(url)))
    if not settings.database.startswith("sqlite"):
        refuse_strangers(settings, there)
    click.echo(cloud)


async def _whose(url: str) -> tuple[set[str], str]:
    """The database's users, and the cloud's id."""
    from nacre.base.clock import RealClock
    from nacre.base.db import Database
    from nacre.base.durable.processes import cloud_id
    from nacre.identity.catalog import users

    db = Database(url, inline=True)
    try:
        now = RealClock().now().replace(tzinfo=None)
        return await users(db), await db.run(lambda connection: cloud_id(connection, now))
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
