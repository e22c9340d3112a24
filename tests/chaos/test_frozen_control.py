"""SIGSTOP of a control while it holds the lane: writes at the others stand still for 2 s at most and its stories go on
there. On waking it finds that its transaction is gone and its leases have passed, and goes on as one of several."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from nacre.base.durable.processes import LEASE
from tests.chaos import check
from tests.chaos.fleet import Fleet, Member
from tests.chaos.others import Others

pytestmark = [pytest.mark.processes, pytest.mark.postgres, pytest.mark.timeout(180)]

#: Seconds that writes of others may stand still, and that hosts take to start a guest.
STALL, SPAWN = 2.0, 1.0


@pytest.fixture
def fleet(cloud_database: str, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, cloud_database, 3, 2, NACRE_FAKE_SPAWN_DELAY=str(SPAWN))
    yield made
    made.close()


def freeze_in_the_lane(fleet: Fleet, member: Member) -> None:
    """Stop the process at a moment at which it has the lane."""
    assert member.wire is not None
    end = time.monotonic() + 30
    with fleet.rows() as rows:
        while True:
            member.freeze()
            time.sleep(0.01)  # the statement that the server may be at ends
            if rows.execute(sa.text(
                    "select count(*) from pg_stat_activity join pg_locks using (pid) where locktype = 'advisory' and "
                    "granted and state = 'idle in transaction' and client_port = any(:ports)"),
                    {"ports": list(member.wire.doors())}).scalar_one():
                return
            rows.rollback()
            member.thaw()
            assert time.monotonic() < end
            time.sleep(0.003)


def create(fleet: Fleet, control: int, name: str, count: int) -> None:
    fleet.call("POST", "compute", "/servers", {"server": {
        **fleet.server, "name": name, "min_count": count, "max_count": count}}, control=control)


def active(fleet: Fleet, name: str, count: int, seconds: float) -> float:
    """Wait until they are; how long it took."""
    begin = time.monotonic()
    while True:
        servers = fleet.call("GET", "compute", f"/servers/detail?name=^{name}", control=1)["servers"]
        if [s["status"] for s in servers] == ["ACTIVE"] * count:
            return time.monotonic() - begin
        assert time.monotonic() - begin < seconds, [(s["status"], s.get("fault")) for s in servers]
        time.sleep(0.1)


def test_a_control_is_frozen_with_the_lane_in_its_hands(fleet: Fleet) -> None:
    victim, others, busy = fleet.controls[0], Others(fleet, (1, 2)), Others(fleet, (0,))
    with others.asked():
        working = threading.Thread(target=lambda: create(fleet, 0, "its", 4))
        with busy.asked():
            working.start()
            freeze_in_the_lane(fleet, victim)
            frozen = time.monotonic()
            time.sleep(STALL)
            stall = max(others.slowest.values())
            create(fleet, 1, "theirs", 4)
            others_took = active(fleet, "theirs", 4, 60)
            time.sleep(max(0.0, frozen + LEASE + 2.0 - time.monotonic()))
            victim.thaw()
        working.join()
        time.sleep(2.0)
    its_took = active(fleet, "its", 4, 60)
    print(f"others' answers {others.slowest}; their builds {others_took:.1f} s; its own {its_took:.1f} s more")
    assert others.failures == [] and busy.failures == []
    assert stall < STALL and max(others.slowest.values()) < STALL
    assert others_took < 10
    assert check.until_quiet(fleet, 30) == []
    assert check.agreement(fleet) == []
    create(fleet, 0, "later", 2)
    active(fleet, "later", 2, 20)
    assert "the lane was lost" in victim.log.read_text()
    assert check.complaints(fleet) == []
