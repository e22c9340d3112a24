"""Processes of a cloud whose supervisor is gone: it was killed, they go on. The next `up` or `down` ends them."""

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from nacre.base.errors import NacreError

ROLES = (b"control", b"node")


class NotEnded(NacreError):
    """A process of ours that we may not end, or that does not end."""


def find(data: Path) -> dict[int, str]:
    """Process id -> role, of every control and node that runs on this folder; by what they were started with, so that
    neither a lost pid file nor a reused number misleads."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        role, option, folder = words[-4:-1] if len(words) > 4 else (b"", b"", b"")
        if b"nacre.cli.main" in words and role in ROLES and option == b"--data" and _same(entry, folder, data):
            found[int(entry.name)] = role.decode()
    return found


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
    while left := {pid: role for pid, role in there.items() if _runs(pid)}:
        if time.monotonic() > until + 5:
            raise NotEnded(f"Processes {sorted(left)} of an earlier start do not end: kill -9 them, then try again.")
        if time.monotonic() > until:
            for pid, role in left.items():
                _signal(pid, role, signal.SIGKILL)
        time.sleep(0.05)
    return bool(there)


def _runs(pid: int) -> bool:
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
