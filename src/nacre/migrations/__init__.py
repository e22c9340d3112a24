"""The database's schema, version by version: one linear chain. `upgrade` brings any database to the newest."""

import math
import time
from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from nacre.base.db import make_engine, normal_url
from nacre.base.durable.processes import BEAT, LEASE
from nacre.base.errors import NacreError
from nacre.migrations import controls


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["url"] = normal_url(url)
    return config


def newest() -> str | None:
    """The revision that this release works with."""
    return ScriptDirectory.from_config(_config("sqlite://")).get_current_head()


def current(url: str) -> str | None:
    """The revision a database is at; None if it is empty."""
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def upgrade(url: str, pause: Callable[[float], None] = time.sleep) -> bool:
    """Bring the database to the newest revision. False if it was there already. A control that ended without a word is
    waited for as long as it could hold a lease.

    Raises NacreError if the database is of a newer release than this one, or a control of an earlier one runs on it.
    """
    before = current(url)
    if before == newest():
        return False
    known = {s.revision for s in ScriptDirectory.from_config(_config(url)).walk_revisions()}
    if before is not None and before not in known:
        raise NacreError(f"The database is at revision {before}, which this release does not know: use a newer Nacre.")
    for _ in range(math.ceil(LEASE / BEAT) + 1):
        if not _controls(url):
            break
        pause(BEAT)
    command.upgrade(_config(url), "head")
    return True


def _controls(url: str) -> list[str]:
    """Those that may live. Looked at without the lock, which would keep them from saying so."""
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            return controls.living(connection)
    finally:
        engine.dispose()


def draft(message: str) -> str:
    """For developers: a new revision from what the tables say and an empty database's newest schema. Its file."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/draft.db"
        upgrade(url)
        number = f"{int(newest() or 0) + 1:04d}"
        made = command.revision(_config(url), message, autogenerate=True, rev_id=number)
    return str(getattr(made, "path", number))
