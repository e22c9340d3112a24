"""PostgreSQL's lane: whoever holds it and is frozen, cut off or killed stops the others for 2 s at most; what it was
about is done once."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import sqlalchemy as sa

from nacre.base.db import Database, DatabaseUnavailable
from tests.chaos.wire import Wire

pytestmark = [pytest.mark.postgres, pytest.mark.processes, pytest.mark.timeout(60)]

#: Seconds that writes of others may stand still.
STALL = 2.0

#: Another process: it writes a row in the lane, says so, and goes on when its input says so.
OTHER = """
import asyncio, sys
import sqlalchemy as sa
from nacre.base.db import Database

def unit(connection):
    connection.execute(sa.text("insert into things (who) values (:who)"), {"who": sys.argv[2]})
    print("inside", flush=True)
    sys.stdin.readline()
    connection.execute(sa.text(sys.argv[3])).all()

async def main():
    db = Database(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        await db.run(unit)
        print("done", flush=True)
    finally:
        await db.close()

asyncio.run(main())
"""
#: More than sockets hold.
LARGE = "select repeat('x', 1000000) from generate_series(1, 60)"


class Other:
    def __init__(self, url: str, who: str, then: str = "select 1"):
        self._process = subprocess.Popen(
            [sys.executable, "-c", OTHER, url, who, then], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")})
        self.says("ready")

    def says(self, word: str) -> None:
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline().strip()) != word:
            assert line, f"it ended instead of saying {word!r}"
            if word == "done" and line == "inside":
                self.go()  # its unit is run again

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def send(self, what: signal.Signals) -> None:
        self._process.send_signal(what)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def url(postgres_url: str) -> str:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create table things (n serial primary key, who text)")
    return postgres_url


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    db = Database(url)
    await db.run(insert("warm"))
    yield db
    await db.close()


@pytest.fixture
def wire(url: str) -> Iterator[tuple[Wire, str]]:
    """A way to the database that breaks, and the URL that takes it."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    made = Wire(parts.hostname, parts.port)
    yield made, url.replace(f":{parts.port}/", f":{made.port}/")
    made.close()


def insert(who: str):
    return lambda c: c.execute(sa.text("insert into things (who) values (:who)"), {"who": who}).rowcount


async def count(db: Database, who: str) -> int:
    return await db.read(lambda c: c.execute(
        sa.text("select count(*) from things where who = :who"), {"who": who}).scalar_one())


async def writes(db: Database, who: str) -> float:
    """How long a write takes."""
    begin = time.monotonic()
    await db.run(insert(who))
    return time.monotonic() - begin


@pytest.mark.parametrize("then", ["select 1", LARGE], ids=["between two statements", "under a large answer"])
async def test_a_frozen_holder_stops_others_for_two_seconds_at_most(db: Database, url: str, then: str) -> None:
    other = Other(url, "other", then)
    try:
        other.go()
        other.says("inside")
        if then is LARGE:
            other.go()
            await asyncio.sleep(0.05)
        other.send(signal.SIGSTOP)
        assert await writes(db, "one") < STALL
        assert await writes(db, "one") < 0.5
        other.send(signal.SIGCONT)
        if then is not LARGE:
            other.go()
        other.says("done")
    finally:
        other.end()
    assert (await count(db, "other"), await count(db, "one")) == (1, 2)


async def test_one_that_is_frozen_while_it_waits_for_the_lane_does_likewise(db: Database, url: str) -> None:
    holder, waiting = Other(url, "holder"), Other(url, "waiting")
    try:
        holder.go()
        holder.says("inside")
        waiting.go()
        await asyncio.sleep(0.3)
        waiting.send(signal.SIGSTOP)
        holder.go()
        holder.says("done")
        assert await writes(db, "one") < STALL
        waiting.send(signal.SIGCONT)
        waiting.says("done")
    finally:
        holder.end()
        waiting.end()
    assert (await count(db, "waiting"), await count(db, "one")) == (1, 1)


async def test_a_killed_holder_stops_nobody(db: Database, url: str) -> None:
    other = Other(url, "other")
    other.go()
    other.says("inside")
    other.end()
    assert await writes(db, "one") < 0.5
    assert await count(db, "other") == 0


@pytest.mark.parametrize("reached", [True, False])
async def test_a_commit_whose_answer_is_lost_is_done_once(db: Database, wire: tuple[Wire, str], reached: bool) -> None:
    """Whether the server got it or not."""
    way, url = wire
    cut = asyncio.Event()
    loop = asyncio.get_running_loop()

    def heard(data: bytes) -> bool:
        if b"COMMIT" not in data or cut.is_set():
            return True
        loop.call_soon_threadsafe(cut.set)
        if not reached:
            return False
        way.hold()  # the answer finds nobody
        return True

    async def cutting() -> None:
        await cut.wait()
        await asyncio.sleep(0.2)
        way.cut()
        way.release()

    far = Database(url)
    try:
        await far.run(insert("warm"))
        way.heard = heard
        cutter = asyncio.create_task(cutting())
        assert await asyncio.gather(*(far.run(insert("far")) for _ in range(3))) == [1, 1, 1]
        await cutter
        assert await count(db, "far") == 3
    finally:
        await far.close()


async def test_a_way_that_is_cut_again_and_again_gives_up_and_says_so(wire: tuple[Wire, str]) -> None:
    way, url = wire
    far = Database(url)
    try:
        await far.run(insert("warm"))
        way.heard = lambda data: b"insert" not in data
        with pytest.raises(DatabaseUnavailable):
            await far.run(insert("far"))
        way.heard = lambda _: True
        await far.run(insert("far"))
        assert await count(far, "far") == 1
    finally:
        await far.close()
