"""The lock that proves that the cloud of an integration bridge lives."""

import asyncio
import sys
from pathlib import Path

import pytest

from nacre.base.errors import Conflict
from nacre.node.ovs.ownership import Holder, Ownership

MINE, OTHER = "/srv/mine", "/srv/other"
HOLD = """
import asyncio, sys, time
from pathlib import Path
from nacre.node.ovs.ownership import Ownership
place = Path(sys.argv[1])
asyncio.run(Ownership("br-int", Path("/srv/other"), place / "ovs", place / "locks").take())
print("held", flush=True)
time.sleep(60)
"""


async def test_the_lock_lives_as_long_as_its_process(tmp_path: Path) -> None:
    """There is no Open vSwitch in this folder, so the lock alone decides."""
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLD, str(tmp_path),
                                                 stdout=asyncio.subprocess.PIPE)
    try:
        assert other.stdout is not None and await other.stdout.readline() == b"held\n"
        mine = Ownership("br-int", Path(MINE), tmp_path / "ovs", tmp_path / "locks")
        assert mine.holder() == Holder(OTHER, other.pid) == (await mine.facts()).holder
        with pytest.raises(Conflict, match=f"nacre down --data {OTHER}"):
            await mine.take()
        elsewhere = Ownership("br-two", Path(MINE), tmp_path / "ovs", tmp_path / "locks")
        await elsewhere.take()  # another bridge is another matter
        elsewhere.release()
        other.kill()
        await other.wait()
        assert mine.holder() is None
        await mine.take()
        await mine.take()  # as the bridge is made sure of more than once
        mine.release()
        assert mine.holder() is None
    finally:
        if other.returncode is None:
            other.kill()
            await other.wait()
