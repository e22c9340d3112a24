"""The lock among processes of one machine lives as long as who holds it."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from nacre.base.errors import Unavailable
from nacre.base.locks import file_lock
from nacre.node.ovs.service import alive

HOLD = """
import asyncio, subprocess, sys, time
from pathlib import Path
from nacre.base.locks import file_lock
async def hold():
    async with file_lock(Path(sys.argv[1]), 0):
        print(subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL).pid, flush=True)
        time.sleep(60)
asyncio.run(hold())
"""


async def test_it_is_one_process_at_a_time_and_goes_with_it(tmp_path: Path) -> None:
    file = tmp_path / "run" / "lock"
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLD, str(file), stdout=asyncio.subprocess.PIPE)
    assert other.stdout is not None
    child = (await other.stdout.readline()).decode().strip()
    try:
        with pytest.raises(Unavailable, match=str(file)):
            async with file_lock(file, 0.1):
                raise AssertionError("two processes hold one lock")
        other.kill()
        await other.wait()
        async with file_lock(file, 5):  # though what the other started lives on
            assert await asyncio.to_thread(alive, int(child))
            with pytest.raises(Unavailable):
                async with file_lock(file, 0):
                    raise AssertionError("held twice")
        async with file_lock(file, 0):
            pass
    finally:
        await (await asyncio.create_subprocess_exec("kill", child)).wait()
        if other.returncode is None:
            other.kill()
            await other.wait()


def another_descriptor(file: Path) -> int:
    """What fork makes of one of this process's that has the file open."""
    here = next(each for each in Path("/proc/self/fd").iterdir() if each.exists() and each.samefile(file))
    return os.dup(int(here.name))


async def test_it_is_let_go_though_a_child_that_has_not_begun_its_program_has_it_too(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    async with file_lock(file, 0):
        copy = another_descriptor(file)
    try:
        async with file_lock(file, 0):
            pass
    finally:
        os.close(copy)
