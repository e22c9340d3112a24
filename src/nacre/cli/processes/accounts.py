"""Whose rights the processes of a cloud have: under sudo control runs as the user, node and supervisor as root."""

import contextlib
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click

from nacre.config import owner

Account = pwd.struct_passwd


@cache
def account() -> Account | None:
    """Who control runs as: the user behind `sudo`, if this Python is one that they may run; None: whoever we are."""
    user = owner()
    return user if user is None or _runs(user) else None


@cache
def _runs(user: Account) -> bool:
    try:
        subprocess.run([sys.executable, "-c", ""], check=True, user=user.pw_uid, group=user.pw_gid, extra_groups=[])
    except (OSError, subprocess.SubprocessError):
        click.echo(f"{user.pw_name} may not run {sys.executable}: control runs as root.", err=True)
        return False
    return True


@contextlib.contextmanager
def acting(user: Account | None) -> Iterator[None]:
    """In here this process has the user's rights and no more: a link that they made leads it nowhere that they could
    not go, and what it makes is theirs. None: its own rights. For all its threads: none may be at other work."""
    if user is None or os.geteuid() != 0:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    try:
        os.setgroups([])
        os.setegid(user.pw_gid)
        os.seteuid(user.pw_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def become(user: Account | None) -> None:
    """`acting` for good: this process is the user's from now on. None: it stays whose it is."""
    if user is not None and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)


def whose(folder: Path) -> Account | None:
    """Who control runs as in this folder; None: root, or whoever we are."""
    try:
        uid = (folder / "control").lstat().st_uid
        return pwd.getpwuid(uid) if uid else None
    except (OSError, KeyError):
        return None


def runs_as(folder: Path) -> Account | None:
    """Who control is to run as in this folder, whatever command asks: the user behind `sudo`, else whose it is already;
    None: root, or whoever we are."""
    if os.geteuid() != 0:
        return None
    before = whose(folder)
    return account() or (before if before is not None and _runs(before) else None)
