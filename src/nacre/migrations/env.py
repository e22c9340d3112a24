"""Alembic's entry: one transaction for the whole upgrade, so that a failed one leaves what was there."""

import importlib
from typing import Any

import sqlalchemy as sa
from alembic import context

from nacre.base.db import make_engine, metadata
from nacre.migrations import controls
from nacre.migrations.tables import MODULES

#: Who holds it upgrades; any number that no other program takes.
LOCK = 0x6E616372

for module in MODULES:
    importlib.import_module(module)


def run() -> None:
    """Run what Alembic was asked for, on its own connection."""
    engine = make_engine(context.config.attributes["url"], poolclass=sa.NullPool)

    @sa.event.listens_for(engine, "connect")
    def connected(raw: Any, _: Any) -> None:
        if engine.dialect.name == "sqlite":
            raw.isolation_level = None
            raw.execute("PRAGMA journal_mode=WAL")

    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:  # of several control processes that start together, one does it
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        context.configure(connection=connection, target_metadata=metadata, compare_type=True,
                          render_as_batch=engine.dialect.name == "sqlite", transactional_ddl=True)
        before, newest = context.get_context().get_current_revision(), context.script.get_current_head()
        if before not in (None, newest):  # under the lock: of several that start together the first has done it
            controls.refuse(connection, before, newest)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
    engine.dispose()


run()
