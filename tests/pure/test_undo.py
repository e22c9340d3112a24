"""What is taken back, when, and that nothing hides a cancellation."""

import asyncio

import pytest

from nacre.base.errors import Interrupted, Refused
from nacre.base.undo import Undo


class Steps:
    """Steps that remember that they were run. fail: one that raises this; slow: one that waits for `go`."""

    def __init__(self, fail: BaseException | None = None):
        self.done: list[str] = []
        self.fail, self.begun, self.go = fail, asyncio.Event(), asyncio.Event()

    async def step(self, name: str) -> None:
        if name == "fail" and self.fail:
            raise self.fail
        if name == "slow":
            self.begun.set()
            await self.go.wait()
        self.done.append(name)

    async def work(self, *names: str, end: BaseException | None = None) -> None:
        async with Undo() as undo:
            for name in names:
                undo.add(self.step, name)
            if end:
                raise end


async def test_steps_are_run_last_first_and_only_after_a_failure() -> None:
    steps = Steps()
    await steps.work("a", "b")
    assert steps.done == []
    with pytest.raises(Refused):
        await steps.work("a", "b", "c", end=Refused("no"))
    assert steps.done == ["c", "b", "a"]


async def test_a_step_that_fails_hides_neither_the_others_nor_the_reason() -> None:
    steps = Steps(ValueError("in the undo"))
    with pytest.raises(Refused):
        await steps.work("a", "fail", "c", end=Refused("no"))
    assert steps.done == ["c", "a"]


async def test_an_interruption_takes_nothing_back() -> None:
    steps = Steps(Interrupted("the lease is lost"))
    with pytest.raises(Interrupted):
        await steps.work("a", "b", end=Interrupted("the database is away"))
    assert steps.done == []
    with pytest.raises(Interrupted, match="lease"):  # of a step: the rest is another's to do
        await steps.work("a", "fail", "c", end=Refused("no"))
    assert steps.done == ["c"]


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancellation_while_steps_are_run_ends_the_runner_after_them(times: int) -> None:
    steps = Steps()

    async def runner() -> str:
        try:
            await steps.work("a", "slow", "c", end=Refused("no"))
        except Refused:
            return "goes on to the next host"
        return "?"

    task = asyncio.create_task(runner())
    await steps.begun.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    steps.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps.done == ["c", "slow", "a"]


async def test_a_cancellation_is_a_failure_unless_it_is_said_not_to_be() -> None:
    steps = Steps()
    with pytest.raises(asyncio.CancelledError):
        await steps.work("a", end=asyncio.CancelledError())
    assert steps.done == ["a"]
    with pytest.raises(asyncio.CancelledError):
        async with Undo(but=asyncio.CancelledError) as undo:
            undo.add(steps.step, "kept")
            raise asyncio.CancelledError
    assert steps.done == ["a"]
