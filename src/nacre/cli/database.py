"""Which database a data folder's cloud lives in: kept there, so that no later `up` starts an empty one by mistake."""

import os
from collections.abc import Collection
from pathlib import Path

from nacre.base.errors import NacreError
from nacre.cli.supervisor import account
from nacre.config import DATABASE_FILE, Settings

#: Written by control when the cloud's first rows are there; holds the engine's name.
MARK = Path("control") / "first-rows"
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


def refuse_strangers(settings: Settings, there: Collection[str]) -> None:
    """there: users of the database. Raises OtherDatabase if they cannot be those of this folder's cloud."""
    if "admin" in there and not (settings.data / PASSWORDS).exists() and not settings.identity.admin_password:
        raise OtherDatabase(
            "The database holds a cloud whose data folder this is not: nobody here knows its passwords and keys. Copy "
            f"that folder's control/ (keys, passwords, images) into {settings.data}, or use an empty database.")


def keep(settings: Settings, given: str | None) -> None:
    """Remember what the command line said. The file is its owner's only: the URL may hold a password."""
    if not given:
        return
    file, user = settings.data / DATABASE_FILE, account()
    part = file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as out:
        out.write(given + "\n")
        if user is not None:
            os.fchown(out.fileno(), user.pw_uid, user.pw_gid)
    part.rename(file)
