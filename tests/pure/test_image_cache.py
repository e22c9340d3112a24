"""A host's images: fetched once, in pieces, whatever happens on the way; in virtual time."""

import asyncio
import hashlib
import os
import random
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nacre.base.errors import BuildFailed, NotFound, Unavailable
from nacre.image.contract import ImageFacts
from nacre.node.image_cache import CacheSettings, ImageCache, Pace, cache_name, work
from nacre.simulation.virtual_time import LoopClock, VirtualLoop
from tests.stories.node.orders import image_facts

KB, MB = 1 << 10, 1 << 20
DATA = random.Random(1).randbytes(5 * MB + 12_345)


def virtual(story: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a test in virtual time."""
    def run(tmp_path: Path) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(story(tmp_path))

    run.__name__, run.__doc__ = story.__name__, story.__doc__
    return run


class Source:
    """The control side, over a way of its own. rate: bytes a second; rtt: seconds; no answer may take longer than
    `timeout`. broken: what is raised instead, by the number of the read."""

    def __init__(self, data: bytes = DATA, *, rate: float = 1e12, rtt: float = 0.0, timeout: float = 30.0):
        self.data, self.rate, self.rtt, self.timeout = data, rate, rtt, timeout
        self.reads: list[tuple[int, int]] = []
        self.broken: Callable[[int], Exception | None] = lambda number: None
        self.gone: set[str] = set()
        self._free_at, self.flying, self.most_flying, self.served = 0.0, 0, 0, 0

    async def find(self, context: Any, image_id: str) -> ImageFacts:
        raise NotFound

    async def read(self, image_id: str, offset: int, length: int) -> bytes:
        now = asyncio.get_running_loop().time()
        self.reads.append((offset, length))
        self.flying += length
        self.most_flying = max(self.most_flying, self.flying)
        try:
            if image_id in self.gone:
                raise NotFound(f"Image {image_id} has no data.")
            if error := self.broken(len(self.reads)):
                await asyncio.sleep(self.rtt)
                raise error
            self._free_at = max(now, self._free_at) + length / self.rate
            wait = self._free_at - now + self.rtt
            await asyncio.sleep(min(wait, self.timeout))
            if wait > self.timeout:
                raise Unavailable("control did not answer image.read within 30 s.")
            self.served += length
            return self.data[offset:offset + length]
        finally:
            self.flying -= length

    @property
    def bytes(self) -> int:
        return sum(length for _, length in self.reads)


def facts(data: bytes = DATA, **changes: Any) -> ImageFacts:
    return image_facts(**{"disk_format": "raw", "size": len(data), "virtual_size": len(data),
                          "os_hash_value": hashlib.sha512(data).hexdigest()} | changes)


async def as_it_is(download: Path, image: ImageFacts, to: Path, largest: int | None) -> None:
    """Plain data stays where it is."""
    if largest is not None and image.size > largest:  # type: ignore[operator]
        raise BuildFailed(f"image {image.id} is larger than {largest} bytes")


Convert = Callable[[Path, ImageFacts, Path, int | None], Awaitable[None]]


def cache_of(folder: Path, source: Source, *, convert: Convert = as_it_is, in_use: set[str] | None = None,
             **options: Any) -> ImageCache:
    return ImageCache(CacheSettings(folder=folder, **options), source, convert, lambda: in_use or set(), LoopClock())


def names(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def size_of_half(folder: Path) -> int:
    [part] = folder.glob("*.part")
    return part.stat().st_size


def half(folder: Path, data: bytes = DATA, size: int = 2 * MB) -> Path:
    """What an earlier fetch left."""
    part = (folder / cache_name(facts())).with_suffix(".part")
    part.write_bytes(data[:size])
    return part


@virtual
async def test_an_image_is_fetched_once_for_all_that_want_it(tmp_path: Path) -> None:
    source = Source(rtt=0.1)
    cache = cache_of(tmp_path, source)
    files = await asyncio.gather(*(cache.fetch(facts()) for _ in range(5)))
    assert len(set(files)) == 1 and files[0].read_bytes() == DATA and source.bytes == len(DATA)
    await cache.fetch(facts())
    assert source.bytes == len(DATA) and names(tmp_path) == [".base"]
    assert files[0].name == f"{facts().os_hash_value[:64]}-raw.base"  # type: ignore[index]


@virtual
async def test_a_slow_image_boots_however_short_each_attempts_patience_is(tmp_path: Path) -> None:
    """It took 100 s to reach the host, and each build gave up after 60 s and threw away what there was."""
    source = Source(rate=len(DATA) / 100)
    cache = cache_of(tmp_path, source)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await cache.fetch(facts())
    await asyncio.sleep(5)
    async with asyncio.timeout(60):
        file = await cache.fetch(facts())
    assert file.read_bytes() == DATA and source.bytes == len(DATA)


@virtual
async def test_a_fetch_that_nobody_wants_ends_and_the_next_goes_on_where_it_was(tmp_path: Path) -> None:
    source = Source(rate=len(DATA) / 1000)
    cache = cache_of(tmp_path, source, linger=200)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await cache.fetch(facts())
    await asyncio.sleep(1000)
    assert names(tmp_path) == [".part"]
    got = size_of_half(tmp_path)
    assert 0.15 * len(DATA) < got < 0.25 * len(DATA)
    source.reads.clear()
    assert (await cache.fetch(facts())).read_bytes() == DATA
    assert source.reads[0][0] == got and source.bytes == len(DATA) - got and names(tmp_path) == [".base"]


@virtual
async def test_whoever_comes_back_in_time_keeps_it_going(tmp_path: Path) -> None:
    source = Source(rate=len(DATA) / 1000)
    cache = cache_of(tmp_path, source, linger=50)
    for _ in range(12):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(40):
                await cache.fetch(facts())
        await asyncio.sleep(45)
    assert (await cache.fetch(facts())).read_bytes() == DATA and source.bytes == len(DATA)


@virtual
async def test_a_restarted_node_goes_on(tmp_path: Path) -> None:
    source = Source(rate=len(DATA) / 100)
    first = cache_of(tmp_path, source)
    waiting = asyncio.create_task(first.fetch(facts()))
    await asyncio.sleep(50)
    await first.close()
    assert waiting.cancelled() or isinstance((await asyncio.gather(waiting, return_exceptions=True))[0],
                                             asyncio.CancelledError)
    assert names(tmp_path) == [".part"]
    seen: list[tuple[int, int]] = []
    file = await cache_of(tmp_path, source).fetch(facts(), None, lambda done, total: seen.append((done, total)))
    assert file.read_bytes() == DATA and source.bytes < 1.3 * len(DATA)
    assert seen == sorted(seen) and seen[-1] == (len(DATA), len(DATA))


@virtual
async def test_a_damaged_half_is_fetched_anew_once(tmp_path: Path) -> None:
    """As a machine leaves it whose power went."""
    half(tmp_path, bytes(2 * MB))
    source = Source()
    assert (await cache_of(tmp_path, source).fetch(facts())).read_bytes() == DATA
    assert source.bytes == 2 * len(DATA) - 2 * MB


@virtual
async def test_more_than_the_image_has_is_no_half_of_it(tmp_path: Path) -> None:
    half(tmp_path, DATA + b"more", len(DATA) + 4)
    source = Source()
    assert (await cache_of(tmp_path, source).fetch(facts())).read_bytes() == DATA and source.bytes == len(DATA)


@pytest.mark.parametrize("kept", [0, 2 * MB])
def test_what_is_not_the_image_is_refused_and_not_kept(tmp_path: Path, kept: int) -> None:
    async def story() -> None:
        source = Source(bytes(len(DATA)))
        if kept:
            half(tmp_path, source.data, kept)
        with pytest.raises(BuildFailed, match="digest"):
            await cache_of(tmp_path, source).fetch(facts())
        assert names(tmp_path) == [] and source.bytes == len(DATA) * (2 if kept else 1) - kept
        short = Source(DATA[:-1])
        with pytest.raises(BuildFailed, match=f"ends after {len(DATA) - 1} bytes"):
            await cache_of(tmp_path, short).fetch(facts())

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story())


@virtual
async def test_silence_is_waited_out(tmp_path: Path) -> None:
    """As long as something comes now and then, however often it fails between."""
    source = Source(rtt=1.0)
    source.broken = lambda number: None if number % 40 == 1 else Unavailable("away")
    file = await cache_of(tmp_path, source, patience=300).fetch(facts())
    assert file.read_bytes() == DATA


@virtual
async def test_silence_for_too_long_is_a_failure_and_what_came_is_kept(tmp_path: Path) -> None:
    source, loop = Source(), asyncio.get_running_loop()
    source.broken = lambda number: None if number < 4 else Unavailable("The image's data is at control one.")
    cache = cache_of(tmp_path, source, patience=300)
    with pytest.raises(BuildFailed, match="nothing has come of it for 300 s: The image's data is at control one"):
        await cache.fetch(facts())
    assert 300 < loop.time() < 320 and len(source.reads) < 500
    got = size_of_half(tmp_path)
    source.broken = lambda number: None
    source.reads.clear()
    await cache.fetch(facts())
    assert got > 0 and source.bytes == len(DATA) - got


@virtual
async def test_an_image_that_is_gone_is_said_so_at_once(tmp_path: Path) -> None:
    source = Source()
    source.gone = {"img"}
    with pytest.raises(BuildFailed, match="cannot be read: Image img has no data"):
        await cache_of(tmp_path, source).fetch(facts())
    assert asyncio.get_running_loop().time() < 1


@virtual
async def test_the_same_bytes_under_another_id_outlive_the_first(tmp_path: Path) -> None:
    source = Source(rate=MB)
    cache = cache_of(tmp_path, source)
    first = asyncio.create_task(cache.fetch(facts()))
    await asyncio.sleep(1.5)
    second = asyncio.create_task(cache.fetch(facts(id="other")))
    await asyncio.sleep(0.5)
    source.gone = {"img"}
    with pytest.raises(BuildFailed):
        await first
    assert (await second).read_bytes() == DATA


@virtual
async def test_a_smaller_disks_failure_is_not_the_larger_ones(tmp_path: Path) -> None:
    source = Source(rate=MB)
    cache = cache_of(tmp_path, source)
    small = asyncio.create_task(cache.fetch(facts(), MB))
    await asyncio.sleep(1)
    large = asyncio.create_task(cache.fetch(facts(), 10 * MB))
    with pytest.raises(BuildFailed, match="larger than"):
        await small
    assert (await large).read_bytes() == DATA


@virtual
async def test_what_the_conversion_refuses_is_not_kept(tmp_path: Path) -> None:
    async def refuse(download: Path, image: ImageFacts, to: Path, largest: int | None) -> None:
        (tmp_path / to.name).write_bytes(b"half a file")
        raise BuildFailed("this is not what it claims")

    with pytest.raises(BuildFailed, match="claims"):
        await cache_of(tmp_path, Source(), convert=refuse).fetch(facts())
    assert names(tmp_path) == []


@virtual
async def test_all_see_the_progress_while_it_is_fetched_and_converted(tmp_path: Path) -> None:
    image = facts(disk_format="qcow2", virtual_size=8 * MB)
    seen: dict[str, list[tuple[float, int, int]]] = {"first": [], "second": []}

    def watch(name: str) -> Callable[[int, int], None]:
        return lambda done, total: seen[name].append((asyncio.get_running_loop().time(), done, total))

    async def slowly(download: Path, image: ImageFacts, to: Path, largest: int | None) -> None:
        for _ in range(4):
            await asyncio.sleep(2)
            with to.open("ab") as file:
                file.write(os.urandom(2 * MB))

    cache = cache_of(tmp_path, Source(rate=MB), convert=slowly)
    first = asyncio.create_task(cache.fetch(image, None, watch("first")))
    await asyncio.sleep(3)
    second = asyncio.create_task(cache.fetch(image, None, watch("second")))
    await asyncio.gather(first, second)
    for name, since in (("first", 0), ("second", 3)):
        moments = [time for time, *_ in seen[name]]
        assert max(b - a for a, b in zip([since, *moments], moments, strict=False)) < 2.1
        done = [each for _, each, _ in seen[name]]
        assert done == sorted(done) and {total for *_, total in seen[name]} == {work(image)} == {len(DATA) + 8 * MB}
        assert seen[name][-1][1] == work(image)
    assert seen["second"][0][1] > 2 * MB


@virtual
async def test_a_long_way_does_not_halve_the_rate(tmp_path: Path) -> None:
    data = DATA * 10
    source, loop = Source(data, rate=50 * MB, rtt=0.03), asyncio.get_running_loop()
    await cache_of(tmp_path, source).fetch(facts(data))
    assert loop.time() < 1.3 * len(data) / source.rate
    assert source.most_flying <= Pace.MOST + MB


@virtual
async def test_a_slow_way_is_not_stuffed(tmp_path: Path) -> None:
    """With 4 MB asked for at once at 20 kB/s no answer would ever come in time; nor would any other message's."""
    source = Source(rate=20_000, rtt=0.1)
    assert (await cache_of(tmp_path, source).fetch(facts())).read_bytes() == DATA
    later = source.reads[len(source.reads) // 2:]
    assert max(length for _, length in later) == 64 * KB and source.bytes < 1.5 * len(DATA)
    assert asyncio.get_running_loop().time() < 1.3 * len(DATA) / source.rate


@virtual
async def test_cleaning(tmp_path: Path) -> None:
    """Halves that nobody continues go by age, and before whole images when there is no room; what is in use stays."""
    now = LoopClock().now().timestamp()
    sizes = {"old.part": 1, "young.part": 1, "crashed.new": 1, "used.base": 3, "first.base": 2, "second.base": 2,
             "third.base": 2, "note": 1}
    for number, (name, size) in enumerate(sizes.items()):
        (tmp_path / name).write_bytes(os.urandom(size * MB))
        age = 90_000 if name == "old.part" else 50_000 - number
        os.utime(tmp_path / name, (now - age, now - age))

    def there() -> set[str]:
        return {path.name for path in tmp_path.iterdir()}

    source = Source()
    source.broken = lambda number: Unavailable("away")
    cache = cache_of(tmp_path, source, in_use={"used.base"}, limit=100 * MB, patience=1e9)
    await cache.clean()
    assert there() == set(sizes) - {"old.part", "crashed.new"}
    fetching = asyncio.create_task(cache.fetch(facts()))
    await asyncio.sleep(10)
    for limit, gone in ((19 * MB // 2, {"young.part"}), (8 * MB, {"first.base"}), (0, {"second.base", "third.base"})):
        cache.settings = CacheSettings(folder=tmp_path, limit=limit)
        before = there()
        await cache.clean()
        assert before - there() == gone
    assert there() == {"used.base", "note", cache_name(facts()).replace(".base", ".part")}
    fetching.cancel()
    await cache.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_happens_what_comes_out_is_the_image(tmp_path: Path, data: st.DataObject) -> None:
    """Silences, aborts, restarts, damaged and cut halves, at any byte, in any order."""
    events = data.draw(st.lists(st.tuples(
        st.sampled_from(["silence", "abort", "restart", "damage", "cut"]), st.floats(0, 1)), max_size=6))
    size = data.draw(st.one_of(st.integers(1, 200), st.integers(MB, 2 * MB)))
    image, honest = facts(DATA[:size]), not any(kind in ("damage", "cut") for kind, _ in events)

    async def story(folder: Path) -> None:
        source = Source(DATA[:size], rate=100 * KB, rtt=0.01)
        cache = cache_of(folder, source, linger=0.1)
        part = (folder / cache_name(image)).with_suffix(".part")
        for kind, share in events:
            waiting = asyncio.create_task(cache.fetch(image))
            await asyncio.sleep(share * size / source.rate)
            match kind:
                case "silence":
                    number = len(source.reads)
                    source.broken = lambda n, until=number + 5: Unavailable("away") if n <= until else None
                case "restart":
                    await cache.close()
                    cache = cache_of(folder, source, linger=0.1)
                case "damage" | "cut":
                    waiting.cancel()
                    await cache.close()
                    cache = cache_of(folder, source, linger=0.1)
                    if part.exists() and kind == "cut":
                        os.truncate(part, int(share * part.stat().st_size))
                    elif part.exists() and (kept := bytearray(part.read_bytes())):
                        kept[int(share * (len(kept) - 1))] ^= 1
                        part.write_bytes(kept)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await asyncio.sleep(data.draw(st.sampled_from([0, 1])))
        assert (await cache.fetch(image)).read_bytes() == DATA[:size]
        assert names(folder) == [".base"]
        if honest:  # nothing is fetched twice but what was on its way
            assert source.served <= size + len(events) * 256 * KB

    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story(folder))


@given(st.lists(st.one_of(st.none(), st.floats(0, 100))))
def test_the_pace_stays_within_its_bounds(answers: list[float | None]) -> None:
    pace = Pace()
    for seconds in answers:
        if seconds is None:
            pace.failed()
        else:
            pace.took(seconds, pace.piece)
        assert Pace.LEAST <= pace.piece <= pace.window <= Pace.MOST and pace.piece <= MB
