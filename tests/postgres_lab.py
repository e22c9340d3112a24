"""A PostgreSQL server of the tests' own, which they may stop as they like."""

import glob
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import psycopg
import pytest

from nacre.cli.supervisor import free_port


class PostgresServer:
    """A new cluster, not started. Skips the test where the server's programs are not installed."""

    def __init__(self) -> None:
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        if not found:
            pytest.skip("PostgreSQL's server programs are not installed")
        self._programs, self._folder = Path(found[-1]), Path(tempfile.mkdtemp(prefix="nacre-pg-"))
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user:
            shutil.chown(self._folder, self._user)
        self._data, self._port = str(self._folder / "data"), free_port()
        self._run("initdb", "-D", self._data, "-U", "nacre", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")

    @property
    def url(self) -> str:
        """Without a database's name."""
        return f"postgresql://nacre@127.0.0.1:{self._port}"

    def start(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self._folder / "log"), "-o",
                  f"-p {self._port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off", "start")

    def stop(self, mode: str = "immediate") -> None:
        """mode: fast, as an operator does, or immediate, as by a crash."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", mode, "stop")

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, *args: str) -> None:
        subprocess.run([str(self._programs / args[0]), *args[1:]], check=True, user=self._user, cwd=self._folder,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def new_database(server: str) -> str:
    """The URL of an empty database of the server whose URL is given."""
    name = f"cloud{uuid.uuid4().hex}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return f"{server}/{name}"
