"""Whether anybody works in a data folder: every control, node and supervisor holds a lock in it for as long as it
lives, so that nobody takes the folder or its database away beneath it, however it was started."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

#: What is locked: folders that only their owner and root can open, so nobody else can hold a start up.
PLACES = ("control", "node")
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


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
        """Nobody has it alone from now on. Waits for one that has."""
        for handle in self.handles:
            fcntl.flock(handle, fcntl.LOCK_SH)

    def close(self) -> None:
        for handle in self.handles:
            os.close(handle)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """In here nobody takes this folder over."""
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.closing(Lock(top)) as lock:
            lock.share()
            yield
    finally:
        os.close(top)
