"""Databases for clouds of real processes."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest


@pytest.fixture
def cloud_database(postgres_server: str) -> Iterator[str]:
    """An empty database, which processes that outlive the test do not keep."""
    name = f"fleet{uuid.uuid4().hex}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"create database {name}")
    yield f"{postgres_server}/{name}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")
