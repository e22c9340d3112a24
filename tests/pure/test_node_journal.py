"""The journal: what was acknowledged is there after a kill, and nothing that was taken back comes again."""

import asyncio
import sqlite3
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import msgspec
import pytest

from nacre.base.errors import Refused
from nacre.cloud.node import joined_cloud
from nacre.node.contract import BuildOrder
from nacre.node.journal import Entry, Journal
from nacre.node.journal_v1 import allocation_of
from tests.stories.node.orders import build_order

WRITER = """
import asyncio, sys
from pathlib import Path
from nacre.node.journal import Entry, Journal
async def main():
    journal = Journal(Path(sys.argv[1]))
    number = 0
    while True:
        await asyncio.gather(*(journal.write(Entry(allocation=f"a{number + i}", server_id="s", epoch=1,
        stage="claimed")) for i in range(5)))
        number += 5
        print(number, flush=True)
asyncio.run(main())
"""


def entry(server: str = "s1", epoch: int = 1, stage: str = "claimed") -> Entry:
    order = build_order(server, epoch)
    return Entry(allocation=order.allocation, server_id=server, epoch=epoch, stage=stage, order=order)


async def test_entries_outlive_the_journal_and_starts_are_counted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j" / "journal.db")
    await asyncio.gather(*(journal.write(entry(f"s{i}")) for i in range(50)))
    await journal.write(entry("s7", stage="running"))
    await journal.learn(cloud="c", position=12)
    await journal.close()
    again = Journal(tmp_path / "j" / "journal.db")
    assert len(again.all()) == 50
    found = again.get("s7/1")
    assert found is not None and found.stage == "running" and found.order == build_order("s7")
    assert (tmp_path / "j" / "journal.db").stat().st_mode & 0o077 == 0
    assert (again.facts.cloud, again.facts.position) == ("c", 12)
    assert again.facts.incarnation == journal.facts.incarnation + 1 and again.facts.id == journal.facts.id
    await again.close()


async def test_what_is_over_is_refused_after_a_restart_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    await journal.write(entry("s1", 5))
    await journal.write(entry("s2", 3, "ending"))
    await journal.remove(entry("s2", 3))
    await journal.close_epoch("s3", 7)
    await journal.close()
    again = Journal(tmp_path / "journal.db")
    for server, epoch in (("s1", 4), ("s2", 3), ("s2", 2), ("s3", 7)):
        with pytest.raises(Refused):
            again.check(server, epoch)
    for server, epoch in (("s1", 5), ("s1", 6), ("s2", 4), ("s3", 8), ("s4", 1)):
        again.check(server, epoch)
    assert again.get("s2/3") is None and again.seen("s2") == 3
    await again.close()


def test_a_killed_writer_loses_nothing_it_was_told_is_safe(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(20)]
    writer.kill()
    rest = [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    found = {e.allocation for e in Journal(file).all()}
    assert {f"a{i}" for i in range((rest or said)[-1])} <= found


async def test_a_disk_that_takes_no_writes_leaves_everything_as_it_was(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal.db")
    await journal.write(entry("s1"))
    apply = journal._apply

    def full(writes: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(journal, "_apply", full)
    for wish in (entry("s1", stage="running"), entry("s2")):
        with pytest.raises(OSError, match="full"):
            await journal.write(wish)
    monkeypatch.setattr(journal, "_apply", apply)
    assert [e.stage for e in journal.all()] == ["claimed"]
    await journal.write(entry("s2"))
    await journal.close()
    assert {e.allocation: e.stage for e in Journal(tmp_path / "journal.db").all()} == {"s1/1": "claimed",
                                                                                      "s2/1": "claimed"}


async def test_an_entry_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    await asyncio.gather(journal.write(entry("s1")), journal.write(entry("s2")))
    await journal.close()
    with sqlite3.connect(tmp_path / "journal.db") as file:
        file.execute("update allocations set entry = ? where id = 's1/1'", (b"?",))
    again = Journal(tmp_path / "journal.db")
    assert [e.allocation for e in again.all()] == ["s2/1"]
    await again.close()
    with sqlite3.connect(tmp_path / "journal.db") as file:
        assert file.execute("select count(*) from allocations").fetchone() == (2,)  # kept, for a release that reads it


def old_record(**what: object) -> bytes:
    body = msgspec.msgpack.encode({"at": 1.0, "order": None, "spawn": None, "steps": [], **what})
    return struct.pack("<II", len(body), zlib.crc32(body)) + body


def old_order(server: str, epoch: int) -> dict[str, object]:
    """A build order as the release before wrote it."""
    plain = msgspec.to_builtins(build_order(server, epoch))
    guest = {**plain["guest"], "admin_password": "sesame-7731"}
    return {k: v for k, v in plain.items() if k not in ("cloud", "allocation")} | {"guest": guest}


async def test_the_journal_of_the_release_before_is_taken_over_once(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"".join((
        old_record(server_id="run", epoch=1, stage="claimed", order=old_order("run", 1)),
        old_record(server_id="run", epoch=2, stage="running", order=old_order("run", 2)),
        old_record(server_id="over", epoch=3, stage="closing", order=old_order("over", 3)),
        old_record(server_id="past", epoch=4, stage="gone"), b"torn")))
    journal = Journal(tmp_path / "journal.db")
    assert {e.allocation: (e.server_id, e.epoch, e.stage) for e in journal.all()} == {
        allocation_of("run", 2): ("run", 2, "running"), allocation_of("over", 3): ("over", 3, "ending")}
    (running,) = journal.of_server("run")
    assert isinstance(running.order, BuildOrder) and running.order.memory_mb == 512
    await journal.close()
    assert not (tmp_path / "journal").exists()
    assert all(b"sesame-7731" not in file.read_bytes() for file in tmp_path.glob("journal.db*"))  # noqa: ASYNC240
    again = Journal(tmp_path / "journal.db")
    assert len(again.all()) == 2
    await again.close()


async def test_a_take_over_that_is_interrupted_is_done_by_the_next_start(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "journal").write_bytes(old_record(
        server_id="run", epoch=1, stage="running", order=old_order("run", 1)))

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch, pytest.raises(sqlite3.OperationalError):
        patch.setattr(Journal, "_apply", full)
        Journal(tmp_path / "journal.db")
    journal = Journal(tmp_path / "journal.db")
    assert [e.server_id for e in journal.all()] == ["run"] and not (tmp_path / "journal").exists()
    await journal.close()


async def test_a_new_order_says_how_far_the_database_is_and_an_operators_word_outlives_it(tmp_path: Path) -> None:
    file, new = tmp_path / "j" / "journal.db", entry()
    new = msgspec.structs.replace(new, order=msgspec.structs.replace(new.order, position=70, era="a"))
    journal = Journal(file)
    await journal.learn(cloud="c", position=12)
    await journal.write(new)
    await journal.close()
    journal = Journal(file)
    assert (journal.facts.position, journal.facts.era) == (70, "a")
    await journal.learn(position=20, era="b")  # an older database was said to be right
    await journal.write(msgspec.structs.replace(new, stage="running"))
    await journal.close()
    journal = Journal(file)
    assert (journal.facts.position, journal.facts.era) == (20, "b")
    await journal.close()


async def test_what_a_host_holds_keeps_the_names_of_the_cloud_that_made_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j" / "journal.db")
    assert joined_cloud(journal, "one") == "one"
    await journal.learn(cloud="one", names="one")
    await journal.write(entry())
    await journal.learn(cloud="two")  # an operator gave the host to another cloud
    assert joined_cloud(journal, "two") == "one"
    await journal.remove(entry())
    assert joined_cloud(journal, "two") == "two"
    await journal.close()
