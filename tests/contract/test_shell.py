"""Other programs on both event loops: what they say, how they fail, and daemons that keep what they were given."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from nacre.base.shell import CommandFailed, Limits, run, start

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def on_loop(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    def execute(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(work)

    return execute


def test_what_it_says_comes_back(on_loop: Callable[..., Any]) -> None:
    assert on_loop(run(["cat"], stdin=b"words")) == b"words"
    assert on_loop(run(["sh", "-c", "exit 3"], ok=(3,))) == b""


@pytest.mark.parametrize(("command", "said"), [
    (["sh", "-c", "echo wrong >&2; exit 3"], "code 3: wrong"), (["sleep", "9"], "did not end within"),
    (["head", "-c9999", "/dev/zero"], "wrote more than")])
def test_failures_say_what_happened(on_loop: Callable[..., Any], command: list[str], said: str) -> None:
    with pytest.raises(CommandFailed, match=said):
        on_loop(run(command, limits=Limits(seconds=0.3, output=999)))


def test_a_daemon_that_keeps_its_output_is_not_waited_for(on_loop: Callable[..., Any], tmp_path: Path) -> None:
    told = tmp_path / "pid"
    begin = time.monotonic()
    on_loop(start(["sh", "-c", f"sleep 30 & echo $! > {told}"]))
    assert time.monotonic() - begin < 10
    os.kill(int(told.read_text()), signal.SIGKILL)
    with pytest.raises(CommandFailed, match="code 4: no luck"):
        on_loop(start(["sh", "-c", "echo no luck; exit 4"]))
    with pytest.raises(CommandFailed, match="did not end within"):
        on_loop(start(["sleep", "9"], seconds=0.2))


async def test_a_file_grows_no_further_than_it_may(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed):
        await run(["dd", "if=/dev/zero", f"of={tmp_path}/big", "bs=1M", "count=3"], limits=Limits(file=2 << 20))
    assert (tmp_path / "big").stat().st_size <= 2 << 20
    await run(["dd", "if=/dev/zero", f"of={tmp_path}/fits", "bs=1M", "count=2"], limits=Limits(file=2 << 20))
