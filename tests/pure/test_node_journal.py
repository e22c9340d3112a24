"""The journal: what was acknowledged is there after a kill, whatever the kill left at the end of the file."""

import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nacre.base.errors import Refused
from nacre.node.journal import Entry, Journal
from tests.stories.node.orders import build_order

WRITER = """
import asyncio, sys
from pathlib import Path
from nacre.node.journal import Entry, Journal
async def main():
    journal = Journal(Path(sys.argv[1]))
    number = 0
    while True:
        await asyncio.gather(*(journal.write(Entry(server_id=f"s{number + i}", epoch=1, stage="claimed"))
                               for i in range(5)))
        number += 5
        print(number, flush=True)
asyncio.run(main())
"""


def entry(server: str = "s1", epoch: int = 1, stage: str = "claimed") -> Entry:
    return Entry(server_id=server, epoch=epoch, stage=stage, order=build_order(server))


async def test_entries_outlive_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j" / "journal")
    await asyncio.gather(*(journal.write(entry(f"s{i}")) for i in range(50)))
    await journal.write(entry("s7", 2, "running"))
    await journal.close()
    again = Journal(tmp_path / "j" / "journal")
    assert len(again.all()) == 50
    found = again.get("s7")
    assert found is not None and (found.epoch, found.stage) == (2, "running") and found.order is not None
    assert (tmp_path / "j" / "journal").stat().st_mode & 0o077 == 0
    await again.close()


async def test_lower_epochs_are_refused_after_a_restart_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    await journal.write(entry("s1", 5))
    await journal.write(entry("s2", 3, "gone"))
    await journal.close()
    again = Journal(tmp_path / "journal")
    with pytest.raises(Refused):
        await again.write(entry("s1", 4))
    with pytest.raises(Refused):
        again.check("s2", 3)
    assert again.check("s2", 4) is not None and again.check("s3", 1) is None
    await again.close()


def test_a_killed_writer_loses_nothing_it_was_told_is_safe(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(20)]
    writer.kill()
    rest = [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    found = {e.server_id for e in Journal(file).all()}
    assert {f"s{i}" for i in range((rest or said)[-1])} <= found


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 400), noise=st.binary(max_size=40))
def test_a_torn_end_is_cut_off_and_writing_goes_on(tmp_path: Path, cut: int, noise: bytes) -> None:
    async def story() -> None:
        file = tmp_path / "journal"
        file.unlink(missing_ok=True)
        journal = Journal(file)
        for i in range(4):
            await journal.write(Entry(server_id=f"s{i}", epoch=1, stage="claimed"))
        await journal.close()
        data = file.read_bytes()
        file.write_bytes(data[:max(0, len(data) - cut)] + noise)
        torn = Journal(file)
        survivors = [e.server_id for e in torn.all()]
        assert survivors == [f"s{i}" for i in range(len(survivors))]
        await torn.write(entry("new"))
        await torn.close()
        assert [e.server_id for e in Journal(file).all()] == [*survivors, "new"]

    asyncio.run(story())


async def test_a_long_log_is_rewritten_while_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    journal = Journal(file)
    await journal.write(entry("other"))
    for i in range(600):
        await journal.write(Entry(server_id="s1", epoch=i, stage="claimed"))
    assert file.stat().st_size < 300 * 80
    await journal.close()
    again = Journal(file)
    assert {e.server_id: e.epoch for e in again.all()} == {"other": 1, "s1": 599}
    await again.close()


async def test_a_secret_is_on_disk_only_while_its_build_runs(tmp_path: Path) -> None:
    """Every former record of the server had it; a build that still runs keeps its own."""
    file = tmp_path / "journal"
    journal = Journal(file)
    plain = msgspec.structs.replace(entry("done").order, guest=msgspec.structs.replace(
        build_order("done").guest, admin_password=None, user_data=None))
    busy = msgspec.structs.replace(build_order("busy"), guest=msgspec.structs.replace(
        build_order("busy").guest, admin_password="sesame-of-busy"))
    await journal.write(entry("done"))
    await journal.write(entry("done", stage="prepared"))
    await journal.write(Entry(server_id="busy", epoch=1, stage="claimed", order=busy))
    await journal.tidy()
    assert file.read_bytes().count(b"sesame-7731") == 2  # nothing has ended
    await journal.write(msgspec.structs.replace(entry("done", stage="running"), order=plain))
    assert file.read_bytes().count(b"sesame-7731") == 2
    await asyncio.gather(journal.tidy(), journal.write(entry("new")))
    data = file.read_bytes()
    assert data.count(b"sesame-7731") == 1 and b"sesame-of-busy" in data  # only the new one's
    await journal.write(Entry(server_id="new", epoch=1, stage="gone"))
    await journal.close()
    assert b"sesame-7731" not in file.read_bytes() and b"sesame-of-busy" in file.read_bytes()
    again = Journal(file)
    assert {e.server_id: e.stage for e in again.all()} == {"done": "running", "busy": "claimed", "new": "gone"}
    assert again.get("busy") == msgspec.structs.replace(
        Entry(server_id="busy", epoch=1, stage="claimed", order=busy), at=again.get("busy").at)  # type: ignore[union-attr]
    await again.close()


async def test_a_secret_that_a_crash_left_goes_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    journal = Journal(file)
    await journal.write(entry("s1"))
    await journal.write(Entry(server_id="s1", epoch=1, stage="gone"))
    assert b"sesame-7731" in file.read_bytes()  # killed here: never closed
    again = Journal(file)
    assert b"sesame-7731" not in file.read_bytes() and again.get("s1") is not None
    await again.close()
