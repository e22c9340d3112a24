"""`nacre db`: the database's schema, apart from `up`, which does the same by itself."""

from pathlib import Path

import click

from nacre.config import load


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
    done = migrations.upgrade(settings.database)
    click.echo(f"{'upgraded to' if done else 'already at'} {migrations.newest()}")


@db.command()
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder")
def version(data: Path | None) -> None:
    """Show the schema's revision, and the newest that this release knows."""
    from nacre import migrations

    click.echo(f"{migrations.current(load(data).database) or 'empty'} of {migrations.newest()}")


@db.command(hidden=True)
@click.argument("message")
def draft(message: str) -> None:
    """For developers: write the migration from the newest revision to the tables as they are declared now."""
    from nacre import migrations

    click.echo(migrations.draft(message))
