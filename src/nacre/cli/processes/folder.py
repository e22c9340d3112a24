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
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from nacre.base.durable.files import write_whole
from nacre.base.errors import NacreError
from nacre.cli.processes.accounts import Account, acting
from nacre.cli.processes.left import find
from nacre.cli.processes.lock import FOLDER, Lock
from nacre.config import CLOUDS, KEPT_FILE

#: Written by control, and shown to people in the data folder itself.
SHOWN = ("clouds.yaml", "authority.pem")
#: A SQLite database, which earlier releases kept beside `control/`; itself last: where it is there, all of it is.
DATABASES = ("nacre.db-wal", "nacre.db-shm", "nacre.db")
#: All that a folder which is a cloud's may hold before it has been one's.
_GIVEN = {"nacre.toml", "policy.yaml", "database-url", "control", "clouds.yaml", "authority.pem", KEPT_FILE}
#: What root's processes go by.
_OPTIONS = ("nacre.toml", "policy.yaml", KEPT_FILE)
#: Seconds that a process of the cloud which is ending has for it.
PATIENCE = 5.0


class NotPrepared(NacreError):
    """Folder or database cannot be used; the message says what to do."""


@contextlib.contextmanager
def prepared(folder: Path, user: Account | None, *, control: bool = True) -> Iterator[list[int]]:
    """The data folder, with what is in all of them, owned as it should be; files of earlier releases move to where they
    belong, but for guests' disks. control: not only a host's. In here nobody else changes that; gives the handles of
    the locks, for a process that shall hold them too. Raises NotPrepared, among others where something would have to
    change and a process of the cloud runs, and NotFree."""
    root, mode = os.geteuid() == 0, 0o755 if user else 0o700
    names = ("run", "logs", "node", *(("control",) if control else ()))
    if not root:
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
    with _opened(folder, mode if root else None) as top:
        if root:
            _look(folder, top)
        for name in names:
            open_to_all = user is not None and name in ("run", "logs")
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755 if open_to_all else 0o700, dir_fd=top)
        with contextlib.closing(Lock(top)) as lock:
            _alone(folder, top, {name: user if name == "control" else None for name in names}, lock)
            if root:
                _take(folder, top, user)
                for name in names:
                    _own(folder, top, name, user if name == "control" else None)
            if control:
                _former(folder, top, user)
            if user is not None and folder == CLOUDS / user.pw_name:
                with acting(user), contextlib.suppress(OSError):  # where people look for it
                    (Path(user.pw_dir) / ".nacre").symlink_to(folder)
            lock.share()
            yield lock.handles


def prepare(folder: Path, user: Account | None, *, control: bool = True) -> None:
    """As `prepared`, for one who does not go on in there. Raises NotPrepared."""
    with prepared(folder, user, control=control):
        pass


def _alone(folder: Path, top: int, owners: Mapping[str, Account | None], lock: Lock) -> None:
    """Where something has to change, nobody else works here. Waits a little for those that are ending. Raises
    NotPrepared."""
    end = time.monotonic() + PATIENCE
    while why := _change(folder, top, owners):
        if lock.alone() and not find(folder):
            return
        if time.monotonic() > end:
            raise NotPrepared(f"The cloud in {folder} {why}: `nacre down` first, and end what of it runs in the "
                              "foreground.")
        time.sleep(0.05)


def _change(folder: Path, top: int, owners: Mapping[str, Account | None]) -> str:
    """What of a running cloud would change beneath it, if these are to be the owners; "": nothing."""
    if os.geteuid() == 0:
        for name, owner in {**owners, ".": None}.items():
            before, uid = os.stat(name, dir_fd=top, follow_symlinks=False).st_uid, owner.pw_uid if owner else 0
            if before != uid or _marked(folder, name):
                return f"runs as {_name(before)}, and this command would make its files {_name(uid)}'s"
    if "control" in owners and any(_lies(top, name) for name in DATABASES):
        return "runs on the database of an earlier release, and this command would move that"
    return ""


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"account {uid}"


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
            with contextlib.suppress(FileExistsError):  # another start makes it too
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


def _look(folder: Path, top: int) -> None:
    """Raises NotPrepared for a folder that is something else's, and for a link that somebody left in it: root would
    follow it. Before anything is changed."""
    before, names = os.fstat(top), set(os.listdir(top))
    shared = before.st_mode & (stat.S_ISVTX | 0o002)
    given = all(name in _GIVEN or name.startswith("nacre.db") for name in names)
    if (before.st_uid != 0 or shared) and not (given or (names >= {"run", "logs"} and names & {"control", "node"})):
        raise NotPrepared(f"{folder} holds other things than a cloud's, and would be root's from now on: name a folder "
                          "that is only for the cloud with --data.")
    for entry in os.scandir(top):
        if entry.is_symlink() and entry.stat(follow_symlinks=False).st_uid != 0 and not (
                entry.name in SHOWN and os.readlink(entry.name, dir_fd=top) == f"control/{entry.name}"):
            raise NotPrepared(f"{folder / entry.name} is a symbolic link of another account: put the file there.")


def _take(folder: Path, top: int, user: Account | None) -> None:
    """Root's from now on."""
    before = os.fstat(top).st_mode
    os.fchown(top, 0, 0)
    os.fchmod(top, before & ~0o022 | (0o755 if user else 0))
    _look(folder, top)  # what came in between
    for name in (*_OPTIONS, *SHOWN):
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=top, follow_symlinks=False)
            if found.st_uid == 0 or found.st_nlink != 1:
                continue
            if stat.S_ISLNK(found.st_mode):
                os.chown(name, 0, 0, dir_fd=top, follow_symlinks=False)
            elif name in _OPTIONS:
                os.chown(name, 0, user.pw_gid if user else 0, dir_fd=top, follow_symlinks=False)
                os.chmod(name, 0o640, dir_fd=top)  # no link: those were looked for


def _own(folder: Path, top: int, name: str, user: Account | None) -> None:
    """The folder in the data folder is the user's, or root's, with what its owner of before had in it. As long as this
    takes the folder is root's, and a mark beside it names who may have files in it: if it dies, the next start goes
    on. In root's own folders links of others are looked for at every start."""
    uid, gid = (user.pw_uid, user.pw_gid) if user else (0, 0)
    try:
        handle = os.open(name, FOLDER, dir_fd=top)
    except OSError as error:
        raise NotPrepared(f"{folder / name} is no folder, or a symbolic link: {error.strerror}.") from None
    try:
        before, marked = os.fstat(handle).st_uid, _marked(folder, name)
        if before not in (0, uid) and name == "control":
            click.echo(f"{folder / name} was account {before}'s, and is account {uid}'s from now on.", err=True)
        if uid == 0:
            _hand_over(folder / name, handle, set(), 0, 0)
        if before != uid or marked:
            owners = marked | ({before} if before or not marked else set())
            write_whole(_mark(folder, name), " ".join(map(str, owners | {uid})))
            os.fchown(handle, 0, 0)
            _hand_over(folder / name, handle, owners - {uid}, uid, gid)
            os.fchown(handle, uid, gid)
            _mark(folder, name).unlink()
    finally:
        os.close(handle)


def _mark(folder: Path, name: str) -> Path:
    return folder / f".{name}.owners"


def _marked(folder: Path, name: str) -> set[int]:
    """Whose files are in there beside its owner's, after a hand-over that died."""
    try:
        found = _mark(folder, name).lstat()
    except FileNotFoundError:
        return set()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != 0 or found.st_nlink != 1:
        return set()  # none of ours
    return {int(word) for word in _mark(folder, name).read_text().split() if word.isdecimal()}


def _hand_over(path: Path, handle: int, owners: set[int], uid: int, gid: int) -> None:
    """What these accounts have in an opened folder, to another: of root's no file that has a name elsewhere. Not what
    is mounted in there. Raises NotPrepared for others' links in what is to be root's."""
    device = os.fstat(handle).st_dev
    for inside, folders, files, at in os.fwalk(".", topdown=uid == 0, dir_fd=handle):
        if os.fstat(at).st_dev != device:
            folders.clear()
            continue
        for each in (*folders, *files):
            try:
                found = os.stat(each, dir_fd=at, follow_symlinks=False)
            except FileNotFoundError:  # the folder may be a running cloud's
                continue
            if uid == 0 and stat.S_ISLNK(found.st_mode) and found.st_uid != 0:
                raise NotPrepared(f"{path / inside / each} is a symbolic link of another account: put the file there.")
            inner = stat.S_ISDIR(found.st_mode)
            if found.st_uid in owners and (found.st_uid != 0 or found.st_nlink == 1 or inner) and (
                    not inner or found.st_dev == device):
                os.chown(each, uid, gid, dir_fd=at, follow_symlinks=False)


def _former(folder: Path, top: int, user: Account | None) -> None:
    """What an earlier release kept beside `control/`, into it. Raises NotPrepared."""
    _settle(folder, top, user)
    for name in (*SHOWN, *DATABASES):
        _move(folder, name, top, user)
    for name in SHOWN:
        with contextlib.suppress(FileExistsError, PermissionError):
            os.symlink(f"control/{name}", name, dir_fd=top)


def _lies(top: int, name: str) -> os.stat_result | None:
    """The file of that name in the data folder itself; None: there is none."""
    try:
        found = os.stat(name, dir_fd=top, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


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
    try:
        with acting(user), contextlib.closing(
                sqlite3.connect(f"{(folder / names[0]).as_uri()}?mode=rw", uri=True, timeout=1)) as connection:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # needs no third file: the user could not make it here
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
            for name, each in zip(names, found, strict=True):
                os.chown(name, each.st_uid, each.st_gid, dir_fd=top, follow_symlinks=False)
            raise NotPrepared(f"Another process has {folder / names[0]} open: end it (`nacre down`) first.") from None


def both(folder: Path, name: str = "nacre.db") -> str:
    """That there are two databases, and what to do; "": there are not."""
    found = folder / name, folder / "control" / name
    return (f"There is {found[0]}, as of an earlier release, and {found[1]}: take away the one that is not the "
            "cloud's, with what begins with its name.") if all(map(os.path.lexists, found)) else ""


def _move(folder: Path, name: str, top: int, user: Account | None) -> None:
    """A file of control's that an earlier release kept in the data folder, to those of now."""
    if not (found := _lies(top, name)):
        return
    if found.st_nlink != 1:
        raise NotPrepared(f"{folder / name} has another name elsewhere, whose file it may be: put a copy in its place.")
    control = os.open("control", FOLDER, dir_fd=top)
    try:
        if name in os.listdir(control):
            if name in DATABASES:
                raise NotPrepared(both(folder, name))
            return  # an operator's: a copy of another control's
        if user is not None and os.geteuid() == 0:
            os.chown(name, user.pw_uid, user.pw_gid, dir_fd=top, follow_symlinks=False)
        os.rename(name, name, src_dir_fd=top, dst_dir_fd=control)
    finally:
        os.close(control)
