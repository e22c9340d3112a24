"""Processes of a cloud whose supervisor is gone: it was killed, they go on. The next `up` or `down` ends them."""

import contextlib
import itertools
import os
import signal
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nacre.base.errors import NacreError
from nacre.cli.processes.lock import Lock

ROLES = (b"control", b"node")


class NotEnded(NacreError):
    """A process of ours that we may not end, or that does not end."""


def find(data: Path) -> dict[int, str]:
    """Process id -> role, of every other control and node that runs on this folder: it was started with the folder's
    name, or has open what they open of it, or says so in there. So neither a lost pid file nor a reused number
    misleads."""
    found, places = {}, _places(data)
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        role, words = _started(process)
        if role and (works_in(process, words, data) or _opens(process, places) or (
                role == "control" and _is_recorded(process, words, data))):
            found[int(process.name)] = role
    return found


def works_in(process: Path, words: Sequence[bytes], data: Path) -> bool:
    """Whether a process (of /proc) was told this folder, in its words or its environment."""
    return _same(process, _told(process, words), data)


def _is_recorded(process: Path, words: Sequence[bytes], data: Path) -> bool:
    """Whether a control was told no folder, and this one names it: one in the foreground writes that. Over PostgreSQL
    one of an earlier release has nothing of it open; what locks a folder, as all of today do, is known by that."""
    import psutil

    if _told(process, words) or any(name.endswith(("/control", "/control/runs")) for name in _open_files(process)):
        return False
    try:
        file = data / "run" / "control.pid"
        return file.read_text().strip() == process.name and (  # it is no later one with the number of that
            psutil.Process(int(process.name)).create_time() <= file.stat().st_mtime + 1)
    except (OSError, ValueError, psutil.Error):
        return False


def _open_files(process: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):  # another's
        for handle in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                yield os.readlink(handle)


def _started(process: Path) -> tuple[str, list[bytes]]:
    """The role of a process of ours, and the words behind it; "": it has none, as others, and as `control -d`."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return "", []
    python = bool(words) and os.path.basename(words[0]).startswith(b"python")  # not the sudo that it was called by
    for i, (program, role) in enumerate(itertools.pairwise(words) if python else ()):
        if role in ROLES and (program == b"nacre.cli.main" or os.path.basename(program) == b"nacre"):
            rest = words[i + 2:]
            return "" if b"-d" in rest or b"--detach" in rest else role.decode(), rest
    return "", []


def _told(process: Path, words: Sequence[bytes]) -> bytes:
    """The data folder that a process was told, in its words; b"": none."""
    told = []
    for word, following in zip(words, [*words[1:], b""], strict=False):
        if word == b"--data" or word.startswith(b"--data="):
            told.append(following if word == b"--data" else word.removeprefix(b"--data="))
    with contextlib.suppress(OSError):  # another's
        if not told:
            told = [each.partition(b"=")[2] for each in (process / "environ").read_bytes().split(b"\0")
                    if each.startswith(b"NACRE_DATA_DIR=")]
    return told[-1] if told else b""


def _places(data: Path) -> set[tuple[int, int]]:
    """Device and inode of what a control or node of this folder has open, whatever it was told: the folders that it
    locks, and the database, as those of an earlier release lock nothing. No link is followed: to another cloud's."""
    found = set[tuple[int, int]]()
    with contextlib.suppress(OSError):
        top = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.closing(Lock(top)) as lock:
            for handle in (top, *lock.handles):
                found.add(_inode(os.fstat(handle)))
                with contextlib.suppress(OSError):
                    file = os.stat("nacre.db", dir_fd=handle, follow_symlinks=False)
                    if stat.S_ISREG(file.st_mode) and file.st_nlink == 1:
                        found.add(_inode(file))
        os.close(top)
    return found


def _opens(process: Path, places: set[tuple[int, int]]) -> bool:
    with contextlib.suppress(OSError):  # another's
        for handle in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if _inode(handle.stat()) in places:
                    return True
    return False


def _inode(file: os.stat_result) -> tuple[int, int]:
    return file.st_dev, file.st_ino


def _same(process: Path, word: bytes, data: Path) -> bool:
    """Whether what a process calls so is this folder, which may have several names. A name that is relative begins
    where the process is, and others lie in its root."""
    if not word:
        return False
    at = os.path.join(os.fsencode(process), b"root" if word.startswith(b"/") else b"cwd", word.lstrip(b"/"))
    try:
        return os.path.samefile(at, data)
    except FileNotFoundError:  # somebody has removed it
        return word == os.fsencode(data) and not os.path.lexists(at) and not os.path.lexists(data)
    except PermissionError:  # another's process, or one that has changed its account
        with contextlib.suppress(OSError):
            return word.startswith(b"/") and (word == os.fsencode(data) or os.path.samefile(word, data))
        return False
    except (OSError, ValueError):
        return False


def end(there: Mapping[int, str], patience: float = 15.0) -> bool:
    """End those that `find` gave and wait: servers keep running. False if there were none. Raises NotEnded."""
    for pid, role in there.items():
        _signal(pid, role, signal.SIGTERM)
    until = time.monotonic() + patience
    while left := {pid: role for pid, role in there.items() if runs(pid)}:
        if time.monotonic() > until + 5:
            raise NotEnded(f"Processes {sorted(left)} of an earlier start do not end: kill -9 them, then try again.")
        if time.monotonic() > until:
            for pid, role in left.items():
                _signal(pid, role, signal.SIGKILL)
        time.sleep(0.05)
    return bool(there)


def runs(pid: int) -> bool:
    """Whether there is such a process, which has not ended."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # that of a zombie is empty
    except OSError:
        return False


def _signal(pid: int, role: str, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise NotEnded(f"{role} of an earlier start still runs as another user (process {pid}): "
                       "run this command with sudo.") from None
