"""Dying on purpose, to prove that nothing is lost: a fault that is a parameter.

$NACRE_CRASH_FILE names a file. When a process passes the point whose name the file holds, it removes the file and is gone
at once, as by `kill -9`. Without the variable a point costs one comparison.
"""

import os
import signal

_FILE = os.environ.get("NACRE_CRASH_FILE")


def point(name: str) -> None:
    """Pass a named point: the steps of stories, before and after, are such points."""
    if _FILE is not None:
        _perhaps_die(_FILE, name)


def _perhaps_die(file: str, name: str) -> None:
    try:
        with open(file) as wanted:
            if wanted.read().strip() != name:
                return
        os.unlink(file)
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
