"""Dying on purpose, to prove that nothing is lost: a fault that is a parameter (the variable NACRE_FAKE_CRASH_FILE).

When a process passes the point whose name the file holds, it removes the file and is gone at once, as by `kill -9`. Not
armed, a point costs one comparison.
"""

import os
import signal

_file = ""


def arm(file: str) -> None:
    """From now on look into this file at every point; "": never."""
    global _file  # noqa: PLW0603 - one process dies as a whole
    _file = file


def point(name: str) -> None:
    """Pass a named point: the steps of stories, before and after, are such points."""
    if _file:
        _perhaps_die(_file, name)


def _perhaps_die(file: str, name: str) -> None:
    try:
        with open(file) as wanted:
            if wanted.read().strip() != name:
                return
        os.unlink(file)
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
