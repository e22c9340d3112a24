"""Virtual time, and the figures of a simulation."""

import asyncio
import time
import uuid

import pytest

from nacre.base.errors import NacreError
from nacre.scheduler.contract import HostReport
from nacre.simulation.measures import percentile, reason, sample, spread
from nacre.simulation.plan import Size, sizes
from nacre.simulation.seeds import seeded
from nacre.simulation.virtual_time import BEGIN, LoopClock, Stuck, VirtualLoop


def test_hours_pass_in_no_time_and_in_order() -> None:
    clock, seen = LoopClock(), list[tuple[str, float]]()

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append((name, clock.monotonic()))

    async def main() -> None:
        await asyncio.gather(sleeper("late", 7200.0), sleeper("soon", 0.5))
        assert await asyncio.to_thread(lambda: 5) == 5
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(100):
                await asyncio.Event().wait()
        assert (clock.now() - BEGIN).total_seconds() == pytest.approx(7300.0)

    begin = time.monotonic()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    assert time.monotonic() - begin < 5
    assert seen == [("soon", pytest.approx(0.5)), ("late", pytest.approx(7200.0))]


def test_what_waits_for_ever_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nacre.simulation.virtual_time.STUCK", 0.05)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.raises(Stuck):
        runner.run(asyncio.Event().wait())


def test_ids_come_from_the_seed_inside_the_block_only() -> None:
    def three() -> list[uuid.UUID]:
        return [uuid.uuid4() for _ in range(3)]

    with seeded(1):
        first = three()
    with seeded(1):
        assert three() == first
    with seeded(2):
        assert three() != first
    assert three() != three()


def host(used_mb: int, **more: float) -> HostReport:
    return HostReport(host="h", hypervisor_type="fake", hypervisor_version=1, vcpus=4, memory_mb=4096, disk_gb=100,
                      vcpus_used=0, memory_mb_used=used_mb, disk_gb_used=0.0, **more)  # type: ignore[arg-type]


def test_room_in_pieces_that_are_too_small_is_fragmentation() -> None:
    size = Size(name="large", memory_mb=3072, vcpus=1, disk_gb=1)
    found = sample(0.0, [host(2048), host(2048), host(2048)], size)  # 6 GB free: two places, had one host them all
    assert (found.places, found.scattered, found.occupied, found.over) == (0, 1.0, 3, 0)
    assert found.used[0] == 0.5
    whole = sample(0.0, [host(0), host(4096)], size)
    assert (whole.places, whole.scattered, whole.occupied) == (1, 0.0, 1)
    assert sample(0.0, [host(4097)], size).over == 1
    assert sample(0.0, [host(4097, ram_ratio=2.0)], size).over == 0


@pytest.mark.parametrize(("message", "why"), [
    ("0 of 40 hosts fit: 31 lack 2048 MB of memory, 9 are disabled", "lack 2048 MB of memory"),
    ("No valid host was found. 2 tried: vcpus: 4 wanted; other", "No valid host was found. 2 tried: vcpus: 4 wanted"),
])
def test_a_reason_is_counted_without_its_numbers_of_hosts(message: str, why: str) -> None:
    assert reason(message) == why


def test_percentiles() -> None:
    assert [percentile(list(range(1, 101)), share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert percentile([], 0.5) == 0
    assert spread([0.001, 0.003], 1000) == {"median": 1.0, "p99": 3.0, "max": 3.0}


def test_flavors_are_read_and_wrong_ones_named() -> None:
    assert sizes("a:512:1:0, b:1024:2:10:0.5") == (
        Size(name="a", memory_mb=512, vcpus=1, disk_gb=0),
        Size(name="b", memory_mb=1024, vcpus=2, disk_gb=10, share=0.5))
    for wrong in ("a:512:1", "a:x:1:1", "a:0:1:1", "a:1:1:1:0", "a:1:1:1:1:1", ":1:1:1", "a:1:1:1,a:2:2:2",
                  "a:1:1:1:nan"):
        with pytest.raises(NacreError, match="--flavors"):
            sizes(wrong)
