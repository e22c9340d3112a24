"""PostgreSQL is started anew under load: what was accepted survives, a request in the gap waits or hears when to try
again, and nothing fails for another reason."""

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.chaos import check
from tests.chaos.fleet import NO_ANSWER, ROOTS, Fleet, command, environment
from tests.chaos.load import Load
from tests.postgres_lab import PostgresServer, new_database

pytestmark = [pytest.mark.processes, pytest.mark.postgres, pytest.mark.timeout(240)]


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    made = PostgresServer()
    made.start()
    yield made
    made.stop()
    made.remove()


@pytest.fixture
def fleet(server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, new_database(server.url), 2, 2, NACRE_FAKE_SPAWN_DELAY="0.2")
    yield made
    made.close()


class Asker:
    """Reads all the time: (status, retry-after) of every answer."""

    def __init__(self, fleet: Fleet, path: str):
        self._fleet, self._path, self._stop = fleet, path, threading.Event()
        self.heard: Counter[tuple[int | str, str | None]] = Counter()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                status, headers, _ = self._fleet.send(0, "GET", self._path, None, self._fleet.token, 30.0)
                self.heard[status, headers.get("retry-after")] += 1
            except NO_ANSWER as error:
                self.heard[repr(error), None] += 1
            time.sleep(0.02)


def backend_killed(server: PostgresServer) -> None:
    """kill -9 of one: PostgreSQL throws all of them out and goes through its recovery."""
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
        pid, = connection.execute(
            "select pid from pg_stat_activity where application_name = 'nacre' limit 1").fetchone() or (0,)
    assert pid
    os.kill(pid, signal.SIGKILL)


def test_a_control_that_starts_while_it_is_away_says_so_in_a_line(tmp_path: Path) -> None:
    done = subprocess.run(command("control", tmp_path), capture_output=True, text=True, timeout=60, check=False,
                          env=environment(NACRE_DATABASE_URL="postgresql://nacre@127.0.0.1:1/nowhere"))
    assert done.returncode == 1
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("nacre: ")]
    assert "cannot be used" in line and "Connection refused" in line and "Next: " in line
    assert "Traceback" not in done.stderr + done.stdout


def test_postgresql_is_started_anew_under_load(server: PostgresServer, fleet: Fleet) -> None:
    load = Load(fleet, 1, users=4)
    askers = [Asker(fleet, ROOTS[service] + path) for service, path in (
        ("compute", "/servers/detail"), ("network", "/ports"), ("image", "/images"), ("identity", "/auth/projects"))]
    with load.running():
        for mode, away in (("fast", 1.5), ("immediate", 0.5), ("fast", 0.0), ("immediate", 3.0)):
            time.sleep(2.0)
            server.stop(mode)
            time.sleep(away)
            server.start()
        time.sleep(2.0)
        backend_killed(server)
        time.sleep(3.0)
    for asker in askers:
        asker.end()
    heard = sum((asker.heard for asker in askers), Counter())
    print(dict(heard), dict(load.counts))
    assert heard.keys() <= {(200, None), (503, "1")} and len(heard) == 2
    assert load.wrong == [] and load.counts["created"] > 10
    assert not load.counts["no answer"]
    assert check.until_quiet(fleet, 30.0) == []
    assert check.promises(fleet, load.known) == []
    assert check.agreement(fleet) == []
    assert check.complaints(fleet) == []
