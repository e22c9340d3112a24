"""Which database a data folder's cloud lives in: kept there, so that no later `up` starts an empty one by mistake.

And `nacre db`: the database's schema, apart from `up`, which does the same by itself.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from nacre.base.errors import NacreError
from nacre.cli.processes.accounts import Account, acting, runs_as, whose
from nacre.cli.processes.folder import DATABASES, both, prepared
from nacre.config import DATABASE_FILE, Settings, load

T = TypeVar("T")

#: Written by control when the cloud's first rows are there; holds the engine's name.
MARK = Path("control") / "first-rows"
#: The project that may be tried at once, and its network.
DEMO, DEMO_CIDR = "demo", "10.20.0.0/24"
#: The first users' passwords.
PASSWORDS = Path("control") / "passwords.json"


class OtherDatabase(NacreError):
    """The folder's cloud lives elsewhere."""


def engine_name(url: str) -> str:
    """sqlite or postgresql."""
    name = url.partition(":")[0].partition("+")[0]
    return "postgresql" if name == "postgres" else name


def check(settings: Settings) -> None:
    """Raises OtherDatabase if the folder's cloud lives in an engine that these settings do not name."""
    from nacre.base.db import normal_url, shown_url

    normal_url(settings.database)
    try:
        there = (settings.data / MARK).read_text().strip() or "sqlite"
    except OSError:
        return
    if there != engine_name(settings.database):
        how = ("start without --database, and without database_url in nacre.toml or NACRE_DATABASE_URL"
               if there == "sqlite" else "name it with --database, NACRE_DATABASE_URL or database_url in nacre.toml")
        raise OtherDatabase(
            f"The cloud in {settings.data} lives in {there}, not in {shown_url(settings.database)}: {how}; "
            "for a new cloud choose another folder with --data.")


def refuse_strangers(settings: Settings, sealed: bool) -> None:
    """sealed: whether the database holds a cloud's keys. Raises OtherDatabase if nobody here can open them."""
    file = settings.control / "seal-key"
    if sealed and not file.exists() and not settings.identity.seal_key:
        raise OtherDatabase(
            "The database holds a cloud whose data folder this is not: nobody here knows its keys. For another control "
            f"of it copy the seal key of one that works (its control/seal-key) to {file}, mode 600, or set "
            "NACRE_IDENTITY_SEAL_KEY to what it holds; for a cloud of its own use an empty database.")


def keep(settings: Settings, given: str | None, user: Account | None) -> None:
    """Remember what the command line said. The file is control's only, who runs as the user: the URL may hold a
    password."""
    if not given:
        return
    file = settings.data / DATABASE_FILE
    part = file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as out:
        out.write(given + "\n")
        out.flush()
        os.fsync(out.fileno())
        if user is not None:
            os.fchown(out.fileno(), user.pw_uid, user.pw_gid)
    part.rename(file)


def revision(url: str) -> str | None:
    """The schema's that the database is at; None: it has none yet."""
    import sqlalchemy as sa

    from nacre.base.db import make_engine

    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            found: str | None = connection.scalar(sa.text("select version_num from alembic_version"))
            return found
    finally:
        engine.dispose()


def reached(url: str, step: Callable[[str], T]) -> T:
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


def present(settings: Settings) -> None:
    """For commands that only look: SQLite would make an empty database where there is none, and would throw away what
    waits beside it for one. Raises NacreError."""
    if not settings.database.startswith("sqlite:///"):
        return
    file = Path(settings.database.removeprefix("sqlite:///"))
    if file == settings.control / "nacre.db":
        moved(settings)
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        from nacre.cli.client import start_with

        raise NacreError(f"There is no cloud in {settings.data}: `{start_with(settings.data)}` makes one.") from None
    except OSError:  # whoever opens it is told why
        return


def moved(settings: Settings) -> None:
    """Raises NacreError where the database has yet to come to where this release has it."""
    if any(os.path.lexists(settings.data / name) for name in DATABASES):
        raise NacreError(both(settings.data) or "The database is where an earlier release kept it, in "
                         f"{settings.data}: `nacre up` moves it.")


@click.group()
def db() -> None:
    """The database's schema."""


@db.command()
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder")
def upgrade(data: Path | None) -> None:
    """Bring the database to this release's schema; servers and data stay."""
    from nacre import migrations

    settings = load(data)
    if settings.database.startswith("sqlite"):
        moved(settings)
    user = runs_as(settings.data)
    with prepared(settings.data, user), acting(user):
        done = reached(settings.database, migrations.upgrade)
    click.echo(f"{'upgraded to' if done else 'already at'} {migrations.newest()}")


@db.command(hidden=True)
@click.option("--data", type=click.Path(path_type=Path), required=True)
def prepare(data: Path) -> None:
    """`upgrade` for `up`, which also asks whether the database is this folder's, and for the cloud's id."""
    import asyncio

    from nacre import migrations

    settings = load(data)
    reached(settings.database, migrations.upgrade)
    sealed, cloud = reached(settings.database, lambda url: asyncio.run(_whose(url)))
    if not settings.database.startswith("sqlite"):
        refuse_strangers(settings, sealed)
    click.echo(cloud)


async def _whose(url: str) -> tuple[bool, str]:
    """Whether the database holds keys, and the cloud's id."""
    from nacre.base.clock import RealClock
    from nacre.base.db import Database
    from nacre.base.durable.processes import cloud_id
    from nacre.identity.keys import rows

    db = Database(url, inline=True)
    try:
        now = RealClock().now().replace(tzinfo=None)
        return bool(await db.read(rows.held)), await db.run(lambda connection: cloud_id(connection, now))
    finally:
        await db.close()


@db.command()
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder")
def version(data: Path | None) -> None:
    """Show the schema's revision, and the newest that this release knows."""
    from nacre import migrations

    settings = load(data)
    with acting(whose(settings.data)):
        present(settings)
        found = reached(settings.database, migrations.current)
    click.echo(f"{found or 'empty'} of {migrations.newest()}")


@db.command(hidden=True)
@click.argument("message")
def draft(message: str) -> None:
    """For developers: write the migration from the newest revision to the tables as they are declared now."""
    from nacre import migrations

    click.echo(migrations.draft(message))
