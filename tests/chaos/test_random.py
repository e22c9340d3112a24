"""Random kills, freezes and cuts of a whole cloud of real processes on PostgreSQL, under load: nothing that was
accepted is lost, stuck, doubled or leaked.

CHAOS="SEED" or "SEED:SECONDS" repeats a run, or makes it longer; the default seed is another each day.
"""

import os
import random
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from tests.chaos import check
from tests.chaos.faults import Faults
from tests.chaos.fleet import Fleet
from tests.chaos.load import Load

pytestmark = [pytest.mark.processes, pytest.mark.postgres]

#: Seconds until what was broken must be whole again.
MEND = 90.0


@pytest.fixture
def fleet(cloud_database: str, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, cloud_database, 3, 4, NACRE_FAKE_SPAWN_DELAY="0.2")
    yield made
    made.close()


def chosen(seconds: float) -> tuple[int, float]:
    seed, _, given = os.environ.get("CHAOS", "").partition(":")
    found = int(seed or date.today().toordinal()), float(given or seconds)
    print(f"CHAOS={found[0]}:{found[1]:.0f}")
    return found


@pytest.mark.timeout(400)
def test_half_a_minute_of_faults(fleet: Fleet) -> None:
    seed, seconds = chosen(25.0)
    load, faults = Load(fleet, seed, users=6), Faults(fleet, random.Random(seed), longest=6.0, pause=0.7)
    faults_under_load(fleet, load, faults, seconds)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ten_minutes_of_faults(fleet: Fleet) -> None:
    seed, seconds = chosen(600.0)
    load, faults = Load(fleet, seed, users=12), Faults(fleet, random.Random(seed), longest=120.0, pause=2.5)
    faults_under_load(fleet, load, faults, seconds)


def faults_under_load(fleet: Fleet, load: Load, faults: Faults, seconds: float) -> None:
    with load.running():
        faults.run(seconds)
    fleet.heal()
    begin = time.monotonic()
    stuck = check.until_quiet(fleet, MEND)
    mended = time.monotonic() - begin
    time.sleep(3.0)  # hosts beat, and the sweep looks
    wrong = {"stuck": stuck, "answers": load.wrong, "promises": check.promises(fleet, load.known),
             "agreement": check.agreement(fleet)}
    servers = fleet.call("GET", "compute", "/servers/detail")["servers"]
    states = sorted({s["status"] for s in servers})
    print(dict(faults.counts), dict(load.counts), f"slowest answer {load.slowest:.1f} s; whole after {mended:.1f} s;",
          {state: sum(s["status"] == state for s in servers) for state in states},
          {s["fault"]["message"] for s in servers if s["status"] == "ERROR"})
    for server in servers:
        fleet.call("DELETE", "compute", f"/servers/{server['id']}")
    wrong["stuck at the end"] = check.until_quiet(fleet, MEND)
    time.sleep(1.0)
    wrong |= {"left": check.agreement(fleet), "logs": check.complaints(fleet)}
    wrong = {what: found for what, found in wrong.items() if found}
    assert not wrong, report(wrong, faults)


def report(wrong: dict[str, list[str]], faults: Faults) -> str:
    return "\n".join([f"{what}: {len(found)}\n  " + "\n  ".join(found[:10]) for what, found in wrong.items()]
                     + ["faults:", *faults.log[-60:]])
