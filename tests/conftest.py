"""What several folders of tests need: a throw-away PostgreSQL, and databases of each engine."""

import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nacre.base.db import Database, make_engine
from tests import schema
from tests.postgres_lab import PostgresServer
from tests.s3_lab import bucket, s3_server

#: httpx asks for it at each request, and a module that is not there is looked for on the whole path each time.
sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]
ENGINES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A cluster of its own, gone afterwards; yields a URL without a database's name."""
    server = PostgresServer()
    server.start()
    try:
        yield server.url
    finally:
        server.stop()
        server.remove()


def _postgres_database(server: str, template: str = "template1") -> Iterator[str]:
    import psycopg
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}")
        yield f"{server}/{name}"
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database."""
    yield from _postgres_database(postgres_server)


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a database with all tables and no rows, for others to be made from."""
    for url in _postgres_database(postgres_server):
        engine = make_engine(url)
        schema.create_all(engine)
        engine.dispose()
        yield url.rpartition("/")[2]


@pytest.fixture
def postgres_tables(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """A database with all tables and no rows."""
    yield from _postgres_database(postgres_server, postgres_template)


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of each engine in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/nacre.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(params=ENGINES)
async def story_db(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """All tables and no rows, on each engine in turn: SQLite in memory, PostgreSQL as in a real cloud."""
    sqlite = request.param == "sqlite"
    db = schema.in_memory() if sqlite else Database(request.getfixturevalue("postgres_tables"))
    yield db
    await db.close()


@pytest.fixture(params=ENGINES)
def story_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The like for what opens its database itself: a SQLite file, a PostgreSQL database."""
    if request.param == "sqlite":
        return schema.in_file(tmp_path / "nacre.db")
    return str(request.getfixturevalue("postgres_tables"))


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """A real S3 server."""
    pytest.importorskip("botocore", reason="locks/s3.txt is not installed")
    with s3_server() as url:
        yield url


@pytest.fixture
def s3_bucket(s3_url: str) -> dict[str, str]:
    """A new bucket, as the option images.s3 names it."""
    return bucket(s3_url)
