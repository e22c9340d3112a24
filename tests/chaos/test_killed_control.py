"""kill -9 of a control: the others answer all along, and its stories go on within a second of its lease's end."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from nacre.base.durable.processes import LEASE
from tests.chaos.fleet import NO_ANSWER, Fleet

pytestmark = [pytest.mark.processes, pytest.mark.postgres, pytest.mark.timeout(120)]

#: Seconds that hosts take to start a guest, so that stories are in their middle when their control dies.
SPAWN = 2.0


@pytest.fixture
def fleet(cloud_database: str, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, cloud_database, 3, 2, NACRE_FAKE_SPAWN_DELAY=str(SPAWN))
    yield made
    made.close()


class Others:
    """Asks the other controls all the time: what failed, and the longest that an answer took."""

    def __init__(self, fleet: Fleet):
        self._fleet, self._stop = fleet, threading.Event()
        self.failures: list[str] = []
        self.slowest, self.answers = 0.0, 0

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask, args=(control, kind))
                   for control in (1, 2) for kind in ("read", "write")]
        for thread in threads:
            thread.start()
        yield
        self._stop.set()
        for thread in threads:
            thread.join()

    def _ask(self, control: int, kind: str) -> None:
        keypair = f"{kind}-{control}"
        steps = [("GET", "/servers/detail", None, 200)] if kind == "read" else [
            ("POST", "/os-keypairs", {"keypair": {"name": keypair, "type": "ssh", "public_key": KEY}}, 201),
            ("DELETE", f"/os-keypairs/{keypair}", None, 204)]
        while not self._stop.is_set():
            for method, path, body, wanted in steps:
                begin = time.monotonic()
                try:
                    status, answer = self._fleet.ask(control, method, "compute", path, body)
                    if status != wanted:
                        self.failures.append(f"{method} {path}: {status} {answer}")
                except NO_ANSWER as error:
                    self.failures.append(f"{method} {path}: {error!r}")
                self.slowest = max(self.slowest, time.monotonic() - begin)
                self.answers += 1
                time.sleep(0.05)


KEY = ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDc2T1xYVrM3XlAo9bQv8u1o0n7qkqv1Jm5mT8o1mJ0P someone")


def test_the_others_answer_and_its_stories_go_on(fleet: Fleet) -> None:
    others, victim = Others(fleet), fleet.controls[0]
    with others.asked():
        time.sleep(1.0)
        made = [fleet.call("POST", "compute", "/servers", {"server": {**fleet.server, "name": f"s-{n}"}})["server"]
                for n in range(6)]
        time.sleep(0.5)
        me = fleet.owner(victim.name)
        victim.kill()
        killed = time.monotonic()
        with fleet.rows() as rows:
            lease, left = rows.execute(sa.text(
                "select extract(epoch from lease_until - timezone('utc', clock_timestamp()))::float, "
                "(select count(*) from stories where owner = :me) from processes where id = :me"), {"me": me}).one()
            rows.rollback()
            assert left == len(made), "they were to be in their middle"
            assert lease <= LEASE
            while rows.execute(sa.text("select count(*) from stories where owner = :me"), {"me": me}).scalar_one():
                rows.rollback()
                assert time.monotonic() - killed < lease + 5
                time.sleep(0.02)
            taken = time.monotonic() - killed
            rows.rollback()
        for server in made:
            path = f"/servers/{server['id']}"
            while (found := fleet.call("GET", "compute", path, control=1)["server"])["status"] == "BUILD":
                assert time.monotonic() - killed < 30
                time.sleep(0.1)
            assert found["status"] == "ACTIVE", found
    print(f"lease {lease:.2f} s; taken after {taken:.2f} s; slowest answer {others.slowest:.2f} s of {others.answers}")
    assert others.failures == [] and others.answers > 50
    assert others.slowest < 2.0
    assert taken < lease + 1.0 and taken < 5.0
    assert not [m.name for m in fleet.members if "Traceback" in m.log.read_text()]
