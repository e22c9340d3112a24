"""`nacre keys`: the cloud's keys, on a machine that has the seal key. The cloud may run or not."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click

from nacre.base.clock import RealClock
from nacre.base.errors import NacreError
from nacre.cli.database import present, reached
from nacre.cli.processes.accounts import acting, whose
from nacre.config import Settings, load
from nacre.identity.keys import rows, seal
from nacre.identity.keys.store import Keys

T = TypeVar("T")
DATA = click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder [~/.nacre]")


def _seal(settings: Settings) -> seal.Seal:
    return seal.Seal(settings.control / "seal-key", settings.identity.seal_key)


def with_keys(settings: Settings, step: Callable[[Keys], Awaitable[T]]) -> T:
    """What the step gives. Raises NacreError where there is no cloud, or its database cannot be reached."""
    from nacre.base.db import Database

    async def run(url: str) -> T:
        db = Database(url, inline=True)
        try:
            return await step(Keys(db, RealClock(), _seal(settings), settings.identity.token_lifetime))
        finally:
            await db.close()
    with acting(whose(settings.data)):
        present(settings)
        return reached(settings.database, lambda url: asyncio.run(run(url)))


@click.group()
def keys() -> None:
    """The keys of tokens, credentials and joins. They lie in the database, sealed by control/seal-key."""


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@DATA
def listed(as_json: bool, data: Path | None) -> None:
    """Show numbers, states and ages; never a key."""
    found = [rows.shown(row) for row in with_keys(load(data), lambda keys: keys.held())]
    if as_json:
        click.echo(json.dumps({"keys": found}))
        return
    now = time.time()
    for key in found:
        since, made = _age(now - key["changed_at"]), _age(now - key["created_at"])
        click.echo(f"{key['purpose']:<11}{key['number']:>4}  {key['state']:<10}for {since}, made {made} ago")


@keys.command()
@click.option("--purpose", type=click.Choice(rows.PURPOSES), default=None, help="only these keys [all]")
@DATA
def rotate(purpose: str | None, data: Path | None) -> None:
    """Seal with new keys from now on. Nobody is logged out; running controls learn of it by themselves."""
    async def step(keys: Keys) -> None:
        for each in (purpose,) if purpose else rows.PURPOSES:
            await keys.rotate(each)
            number = rows.primary(await keys.held(each), each)["number"]
            click.echo(f"{each}: key {number} is the primary now")
    with_keys(load(data), step)


@keys.command()
@click.argument("new_key_file", type=click.Path(path_type=Path, dir_okay=False))
@DATA
def reseal(new_key_file: Path, data: Path | None) -> None:
    """Change the seal key to that of NEW_KEY_FILE, which is made if it is not there. Other controls need it too."""
    settings = load(data)
    old, new_key_file = _seal(settings), new_key_file.absolute()
    if old.file is not None and new_key_file == old.file.absolute():
        raise NacreError(f"{new_key_file} is the seal key's own file: name another, which takes its place.")
    made = seal.write_new(new_key_file)
    new = seal.read(new_key_file)

    async def step(keys: Keys) -> int:
        return await keys.reseal(new)
    count = with_keys(settings, step)
    click.echo(f"{count} keys are sealed by {new_key_file} now{' (a new key)' if made else ''}")
    if old.replace(new_key_file):
        click.echo(f"it is in {old.file}; copy it there on every other control, which then need no restart")
    else:
        click.echo("set NACRE_IDENTITY_SEAL_KEY to it on every control, and restart them")


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"

