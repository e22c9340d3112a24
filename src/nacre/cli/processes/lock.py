"""Whether anybody works in a data folder: every control, node and supervisor holds a lock in it for as long as it
lives, so that nobody takes the folder or its database away beneath it, however it was started."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from nacre.base.errors import NacreError

#: What is locked: folders that only their owner and root can open.
PLACES = ("control", "node")
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
#: Seconds that a command may have a folder alone for, while it takes it over, until others give up.
TAKES = 30.0


class NotFree(NacreError):
    """Another process has the folder alone, and keeps it."""


class Lock:
    """That of an opened data folder, as far as this account reaches it. Several share it, or one has it alone."""

    def __init__(self, top: int):
        self.handles: list[int] = []
        for name in PLACES:
            with contextlib.suppress(OSError):
                self.handles.append(os.open(name, FOLDER, dir_fd=top))

    def alone(self) -> bool:
        """Whether nobody else holds it, and from now on nobody gets it."""
        with contextlib.suppress(BlockingIOError):
            for handle in self.handles:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def share(self) -> None:
        """Nobody has it alone from now on. Waits for one that has. Of several it is those of this account that count:
        what is another's, that one could keep locked, and hold root up with it. Raises NotFree."""
        own = [handle for handle in self.handles if os.fstat(handle).st_uid == os.geteuid()] or self.handles
        end = time.monotonic() + TAKES
        for handle in self.handles:
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB if handle in own else fcntl.LOCK_UN)
                    break
                if time.monotonic() > end:
                    raise NotFree(f"Another process{_who(handle)} keeps {os.readlink(f'/proc/self/fd/{handle}')} "
                                  "locked: wait until it ends, or end it.")
                time.sleep(0.05)

    def close(self) -> None:
        for handle in self.handles:
            os.close(handle)


def _who(handle: int) -> str:
    """Which has it alone, if the system tells."""
    place, found = f":{os.fstat(handle).st_ino}", list[str]()
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, _, mode, pid, where, *_ = line.split()
            if (kind, mode) == ("FLOCK", "WRITE") and where.endswith(place) and int(pid) > 0:
                found.append(pid)
    return f" ({', '.join(found)})" if found else ""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """In here nobody takes this folder over. Raises NotFree."""
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.closing(Lock(top)) as lock:
            lock.share()
            yield
    finally:
        os.close(top)
