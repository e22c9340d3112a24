"""What the migrations make is what the tables say, on each engine; upgrading again changes nothing."""

import importlib

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from nacre import migrations
from nacre.base.db import make_engine, metadata
from nacre.base.errors import NacreError
from nacre.migrations.tables import MODULES


def test_migrations_and_tables_agree(database_url: str) -> None:
    for module in MODULES:
        importlib.import_module(module)
    assert migrations.upgrade(database_url)
    engine = make_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        different = compare_metadata(context, metadata)
    engine.dispose()
    assert different == []
    assert not migrations.upgrade(database_url)
    assert migrations.current(database_url) == migrations.newest()


def test_a_database_of_a_newer_release_is_left_alone(database_url: str) -> None:
    migrations.upgrade(database_url)
    engine = make_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = '9999'")
    engine.dispose()
    with pytest.raises(NacreError, match="9999"):
        migrations.upgrade(database_url)
