"""Who owns what in a data folder.

Under sudo control runs as the user, and node and supervisor as root. So the folder is root's with all that root opens
in it (`node/`, `logs/`, `run/`, `nacre.toml`), and nobody else can put a link or a folder of his own in its place. What
control writes lies in `control/`, which is the user's: whatever root has to do in there, it does with his rights.
"""

import contextlib
import os
import pwd
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click

from nacre.base.errors import NacreError
from nacre.cli.processes.left import find
from nacre.config import CLOUDS, owner

#: Written by control, and shown to people in the data folder itself.
SHOWN = ("clouds.yaml", "authority.pem")
#: What earlier releases kept beside `control/`; the database last: where it is there, all of it is.
_FORMER = (*SHOWN, "nacre.db-wal", "nacre.db-shm", "nacre.db")
#: All that a folder which is a cloud's may hold before it has been one's.
_GIVEN = {"nacre.toml", "policy.yaml", "database-url", "control", "clouds.yaml", "authority.pem"}
#: An operator's, which root's processes go by.
_OPTIONS = ("nacre.toml", "policy.yaml")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

Account = pwd.struct_passwd


class NotPrepared(NacreError):
    """Folder or database cannot be used; the message says what to do."""


@cache
def account() -> Account | None:
    """Who control runs as: the user behind `sudo`, if this Python is one that they may run; None: whoever we are."""
    user = owner()
    return user if user is None or _runs(user) else None


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


def takes(folder: Path) -> Account | None:
    """Who control is to run as in this folder, for commands that do not stop its cloud before: the user behind `sudo`,
    else whose it is already. Raises NotPrepared if the cloud runs as another, who would be locked out."""
    before = whose(folder)
    if os.geteuid() != 0:
        return None
    user = account() or (before if before is not None and _runs(before) else None)
    if user != before and os.path.lexists(folder / "control") and set(find(folder)) - {os.getpid()}:
        names = [each.pw_name if each else "root" for each in (before, user)]
        raise NotPrepared(f"The cloud in {folder} runs as {names[0]}, and this command would make its files "
                          f"{names[1]}'s: `nacre down` first.")
    return user


def prepare(folder: Path, user: Account | None, *, control: bool = True) -> None:
    """The data folder, with what is in all of them, owned as it should be; files of earlier releases move to where they
    belong, but for guests' disks. control: not only a host's. No process of the cloud may run but the one that asks.
    Raises NotPrepared."""
    root, mode = os.geteuid() == 0, 0o755 if user else 0o700
    if not root:
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
    with _opened(folder, mode if root else None) as top:
        if root:
            _take(folder, top, user)
        for name in ("run", "logs", "node", *(("control",) if control else ())):
            open_to_all = user is not None and name in ("run", "logs")
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755 if open_to_all else 0o700, dir_fd=top)
            if root:
                _own(folder, top, name, user if name == "control" else None)
        if control:
            _settle(folder, top, user)
            for name in _FORMER:
                _move(folder, name, top, user)
            for name in SHOWN:
                with contextlib.suppress(FileExistsError, PermissionError):
                    os.symlink(f"control/{name}", name, dir_fd=top)
    if user is not None and folder == CLOUDS / user.pw_name:
        with acting(user), contextlib.suppress(OSError):  # where people look for it
            (Path(user.pw_dir) / ".nacre").symlink_to(folder)


def unsafe(folder: Path) -> list[str]:
    """What of the folders that root's processes open others could put something else in the place of: a sentence each,
    the worst first. Nothing for a cloud without root."""
    there = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
    if os.geteuid() != 0 and not _is_roots(folder / "node"):
        return []
    names = [folder / name for name in ("", "node", "logs", "run", "nacre.toml")]
    found = [said for path in names if (said := foreign(path))]
    for path in dict.fromkeys((there, *there.parents, *there.resolve().parents)):
        if path != folder and (said := foreign(path)):
            found.append(said)
    return found


def _is_roots(path: Path) -> bool:
    try:
        return path.lstat().st_uid == 0
    except OSError:
        return False


def foreign(path: Path) -> str:
    """Why another than root decides what is at this path or in it; "": nobody does."""
    try:
        found = path.lstat()
    except OSError:
        return ""
    if found.st_uid != 0:
        try:
            name = pwd.getpwuid(found.st_uid).pw_name
        except KeyError:
            name = str(found.st_uid)
        return f"{path} is {name}'s"
    link, sticky = stat.S_ISLNK(found.st_mode), stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    others = found.st_mode & 0o002 or (found.st_mode & 0o020 and found.st_gid != 0)
    return f"others may write {path}" if others and not link and not sticky else ""


@contextlib.contextmanager
def _opened(folder: Path, mode: int | None) -> Iterator[int]:
    """mode: root's way to it, which makes it with that mode where it is not there."""
    if mode is None:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    else:
        with contextlib.ExitStack() as way:
            handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=_walked(folder, mode, way))
    try:
        yield handle
    finally:
        os.close(handle)


def _walked(folder: Path, mode: int, way: contextlib.ExitStack) -> int:
    """A handle of the folder, which is closed with the way, come to name by name: no link leads there but root's own.
    Raises NotPrepared."""
    def step(name: str, at: int | None) -> int:
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=at)
        way.callback(os.close, found)
        return found

    here, names, links = step("/", None), list(reversed(folder.parts[1:])), 0
    while names:
        name = names.pop()
        try:
            found = step(name, here)
        except FileNotFoundError:
            os.mkdir(name, 0o777 if names else mode, dir_fd=here)
            found = step(name, here)
        if not stat.S_ISLNK(os.fstat(found).st_mode):
            here = found
            continue
        target, links = Path(os.readlink("", dir_fd=found)), links + 1
        if os.fstat(found).st_uid != 0 or links > 40:
            raise NotPrepared(f"On the way to {folder}, {name} is a symbolic link of another account, which could lead "
                              "root anywhere: put the folder itself there (`mount --bind` does it too), or name "
                              "another with --data.")
        if target.is_absolute():
            here = step("/", None)
        names += reversed(target.parts[target.is_absolute():])
    return here


def _take(folder: Path, top: int, user: Account | None) -> None:
    """Root's from now on. A link that somebody left here before is not followed, but named."""
    before, names = os.fstat(top), set(os.listdir(top))
    shared = before.st_mode & (stat.S_ISVTX | 0o002)
    given = all(name in _GIVEN or name.startswith("nacre.db") for name in names)
    if (before.st_uid != 0 or shared) and not (given or (names >= {"run", "logs"} and names & {"control", "node"})):
        raise NotPrepared(f"{folder} holds other things than a cloud's, and would be root's from now on: name a folder "
                          "that is only for the cloud with --data.")
    os.fchown(top, 0, 0)
    os.fchmod(top, before.st_mode & ~0o022 | (0o755 if user else 0))
    for entry in os.scandir(top):
        if entry.is_symlink() and entry.stat(follow_symlinks=False).st_uid != 0:
            raise NotPrepared(f"{folder / entry.name} is a symbolic link of another account: put the file there.")
    for name in _OPTIONS:
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=top, follow_symlinks=False)
            if found.st_uid != 0 and found.st_nlink == 1:
                os.chown(name, 0, user.pw_gid if user else 0, dir_fd=top, follow_symlinks=False)
                os.chmod(name, 0o640, dir_fd=top)  # no link: those were looked for


def _own(folder: Path, top: int, name: str, user: Account | None) -> None:
    """The folder in the data folder is the user's, or root's, with what its owner of before had in it."""
    uid, gid = (user.pw_uid, user.pw_gid) if user else (0, 0)
    try:
        handle = os.open(name, _FOLDER, dir_fd=top)
    except OSError as error:
        raise NotPrepared(f"{folder / name} is no folder, or a symbolic link: {error.strerror}.") from None
    try:
        before = os.fstat(handle).st_uid
        if before not in (0, uid) and name == "control":
            click.echo(f"{folder / name} was account {before}'s, and is account {uid}'s from now on.", err=True)
        if before != uid:
            _hand_over(folder / name, handle, uid, gid)
    except NotPrepared:
        os.fchown(handle, before, -1)  # the next start looks again
        raise
    finally:
        os.close(handle)


def _hand_over(path: Path, handle: int, uid: int, gid: int) -> None:
    """An opened folder, and what its owner has in it, to another. The folder is root's as long as this takes: where it
    was found so, another hand-over may have died, and a user gets whatever is not his and has no name elsewhere."""
    before = os.fstat(handle).st_uid
    os.fchown(handle, 0, 0)
    for inside, folders, files, at in os.fwalk(".", topdown=uid == 0, dir_fd=handle):
        for each in (*folders, *files):
            found = os.stat(each, dir_fd=at, follow_symlinks=False)
            if uid == 0 and stat.S_ISLNK(found.st_mode) and found.st_uid != 0:
                raise NotPrepared(f"{path / inside / each} is a symbolic link of another account: put the file there.")
            left = before == 0 and (found.st_nlink == 1 or stat.S_ISDIR(found.st_mode))
            if left or (before != 0 and found.st_uid == before):
                os.chown(each, uid, gid, dir_fd=at, follow_symlinks=False)
    os.fchown(handle, uid, gid)


def _settle(folder: Path, top: int, user: Account | None) -> None:
    """The rows that lie beside the database of an earlier release, in its WAL, go into it, so that one file is all that
    matters while it moves. Where that cannot be (it is damaged, the disk is full), both move as they are."""
    names = ("nacre.db", "nacre.db-wal")
    if os.path.lexists(folder / "control" / names[1]):
        return  # a move that did not come to its end: the database follows
    try:
        found = [os.stat(name, dir_fd=top, follow_symlinks=False) for name in names]
    except FileNotFoundError:
        return
    if not all(stat.S_ISREG(each.st_mode) and each.st_nlink == 1 for each in found):
        return
    if user is not None and os.geteuid() == 0:
        for name in names:
            os.chown(name, user.pw_uid, user.pw_gid, dir_fd=top, follow_symlinks=False)
    with acting(user), contextlib.suppress(sqlite3.Error), contextlib.closing(
            sqlite3.connect(f"{(folder / names[0]).as_uri()}?mode=rw", uri=True, timeout=1)) as connection:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # needs no third file, which the user could not make here
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _move(folder: Path, name: str, top: int, user: Account | None) -> None:
    """A file of control's that an earlier release kept in the data folder, to those of now."""
    try:
        found = os.stat(name, dir_fd=top, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        return
    if found.st_nlink != 1:
        raise NotPrepared(f"{folder / name} has another name elsewhere, whose file it may be: put a copy in its place.")
    control = os.open("control", _FOLDER, dir_fd=top)
    try:
        if name in os.listdir(control):
            if name.startswith("nacre.db"):
                raise NotPrepared(f"There is {folder / name}, as of an earlier release, and {folder / 'control' / name}"
                                  ": take away the one that is not the cloud's, with what begins with its name.")
            return  # an operator's: a copy of another control's
        if user is not None and os.geteuid() == 0:
            os.chown(name, user.pw_uid, user.pw_gid, dir_fd=top, follow_symlinks=False)
        os.rename(name, name, src_dir_fd=top, dst_dir_fd=control)
    finally:
        os.close(control)
