"""Many who ask at once: they are answered together, and none of them has to suffer for another."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from nacre.base.db.together import AT_ONCE, Groups, Together
from nacre.base.errors import BadRequest, Interrupted
from nacre.simulation.virtual_time import LoopClock, VirtualLoop


class Source:
    """Doubles numbers; a negative one cannot be doubled."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.ask = Together(self._answer)

    async def _answer(self, numbers: Sequence[int]) -> list[int]:
        self.asked.append(list(numbers))
        await self.open.wait()
        if 0 in numbers:
            raise Interrupted("closed")
        if any(n < 0 for n in numbers):
            raise BadRequest("negative")
        return [2 * n for n in numbers]


async def test_who_asks_while_others_are_answered_is_answered_with_the_next() -> None:
    source = Source()
    source.open.clear()
    first = asyncio.ensure_future(source.ask(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rest = [asyncio.ensure_future(source.ask(n)) for n in range(2, AT_ONCE + 12)]
    await asyncio.sleep(0)
    source.open.set()
    assert await first == 2
    assert await asyncio.gather(*rest) == [2 * n for n in range(2, AT_ONCE + 12)]
    assert [len(each) for each in source.asked] == [1, AT_ONCE, 10]
    assert await source.ask(5) == 10  # also when nobody has asked for a while


async def test_what_one_asks_wrongly_is_refused_to_that_one() -> None:
    source = Source()
    found = await asyncio.gather(source.ask(1), source.ask(-1), source.ask(3), return_exceptions=True)
    assert found[0] == 2 and isinstance(found[1], BadRequest) and found[2] == 6


async def test_when_nobody_can_be_answered_all_hear_so_at_once() -> None:
    source = Source()
    found = await asyncio.gather(*(source.ask(n) for n in range(3)), return_exceptions=True)
    assert all(isinstance(each, Interrupted) for each in found) and len(source.asked) == 1


async def test_who_gives_up_harms_nobody() -> None:
    source = Source()
    source.open.clear()
    gone, stays = asyncio.ensure_future(source.ask(1)), asyncio.ensure_future(source.ask(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gone.cancel()
    source.open.set()
    assert await stays == 4
    with pytest.raises(asyncio.CancelledError):
        await gone


def test_who_comes_alone_goes_on_at_once_and_a_crowd_in_groups() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        groups, went = Groups(LoopClock(), 0.25), list[float]()

        async def come(after: float) -> None:
            await asyncio.sleep(after)
            await groups.join()
            went.append(round(loop.time() - begin, 3))

        begin = loop.time()
        await asyncio.gather(*(come(n / 100) for n in range(100)), come(0), come(5))
        assert went[:2] == [0, 0] and went[-1] == 5
        assert Counter(went[2:-1]) == {0.25: 25, 0.5: 25, 0.75: 25, 1.0: 24}
        asked, cancelled = asyncio.create_task(come(0)), asyncio.create_task(come(0))
        await asyncio.sleep(0.01)
        cancelled.cancel()  # it alone goes
        await asked

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story())
