"""Whether anybody works in a data folder: every control, node and supervisor holds a lock in it for as long as it
lives, so that nobody takes the folder or its database away beneath it, however it was started. And that one control
works in it: two would be one member of the cloud, and end each other for ever."""

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from nacre.base.errors import NacreError
from nacre.cli.processes.accounts import Account, acting

#: What is locked: folders that only their owner and root can open.
PLACES = ("control", "node")
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
#: Seconds that a command may have a folder alone for, while it takes it over, until others give up.
TAKES = 30.0
#: In control/: a file whose bytes are locked, by who starts control there (a supervisor, or itself in the foreground)
#: and by control. Locks of this kind name who has them, and end with that process.
RUNS, STARTS, WORKS = "runs", 0, 1
#: Seconds that one is waited for which is ending.
PATIENCE = 1.0
#: Linux: struct flock.
_FLOCK = "hhqqi"


class NotFree(NacreError):
    """Another process has the folder alone, and keeps it."""


class RunsAlready(NacreError):
    """Another process runs control in this folder; the message names it."""


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


@contextlib.contextmanager
def control_of(folder: Path, user: Account | None, *places: int) -> Iterator[None]:
    """In here nobody else does this in the folder: STARTS control, WORKS as it. user: who control runs as. Raises
    RunsAlready."""
    with acting(user):
        handle = os.open(folder / "control" / RUNS, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        end = time.monotonic() + PATIENCE
        for place in places:
            while not _locked(handle, place):
                if (pid := _holder(handle, place)) is not None and time.monotonic() > end:
                    raise RunsAlready(_said(folder, pid))
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def _locked(handle: int, place: int) -> bool:
    """Whether it is ours now: until this process closes any handle of that file."""
    with contextlib.suppress(BlockingIOError):
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        return True
    return False


def _holder(handle: int, place: int) -> int | None:
    """The other process that has it."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else int(pid)


def refuse_second(folder: Path, *places: int) -> None:
    """Raises RunsAlready if another process does this in the folder, and goes on with it."""
    for place in places:
        end = time.monotonic() + PATIENCE
        while (pid := who(folder, place)) is not None:
            if time.monotonic() > end:
                raise RunsAlready(_said(folder, pid))
            time.sleep(0.05)


def who(folder: Path, place: int) -> int | None:
    """The other process that has this place in the folder; None: nobody, as far as this account sees. Not to be asked
    in `control_of`: its handle's end would take the locks away."""
    try:
        handle = os.open(folder / "control" / RUNS, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return _holder(handle, place)
    except OSError:
        return None
    finally:
        os.close(handle)


def _said(folder: Path, pid: int) -> str:
    try:
        supervises = b"supervise" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        supervises = False
    if pid <= 0:  # a lock of another kind, or of a process that is not seen from here
        return f"Another process has {folder / 'control' / RUNS} locked: end it first."
    what, cure = ("Nacre", "`nacre down` first") if supervises else (
        "`nacre control`", f"end it first (Ctrl-C where it was started, or `kill {pid}`)")
    return f"{what} runs already in {folder} (process {pid}): {cure}, or name another folder with --data."
