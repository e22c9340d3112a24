"""What several folders of tests need: a throw-away PostgreSQL."""

import glob
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A cluster of its own, gone afterwards; yields a URL without a database's name."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    if not found:
        pytest.skip("PostgreSQL's server programs are not installed")
    programs, folder = Path(found[-1]), Path(tempfile.mkdtemp(prefix="nacre-pg-"))
    user = "postgres" if os.getuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    data, port = folder / "data", _free_port()

    def pg(*args: str) -> None:
        subprocess.run([str(programs / args[0]), *args[1:]], check=True, user=user, cwd=folder,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    pg("initdb", "-D", str(data), "-U", "nacre", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
    pg("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o",
       f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off", "start")
    try:
        yield f"postgresql://nacre@127.0.0.1:{port}"
    finally:
        pg("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database."""
    import psycopg
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"create database {name}")
    yield f"{postgres_server}/{name}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of each engine in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/nacre.db"
    return str(request.getfixturevalue("postgres_url"))
