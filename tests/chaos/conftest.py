"""Databases for clouds of real processes."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.postgres_lab import new_database


@pytest.fixture
def cloud_database(postgres_server: str) -> Iterator[str]:
    """An empty database, which processes that outlive the test do not keep."""
    url = new_database(postgres_server)
    yield url
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"drop database {url.rpartition('/')[2]} with (force)")
