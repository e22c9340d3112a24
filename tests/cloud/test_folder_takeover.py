"""No command takes a data folder or its database away beneath a process of its cloud; and a take-over that died goes on
at the next start."""

import contextlib
import os
import pwd
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from nacre.base.errors import NacreError
from nacre.cli import database, supervisor, up
from nacre.cli.database import db
from nacre.cli.processes import accounts, folder, lock, run
from nacre.cli.supervisor import free_port
from nacre.config import load
from tests.cloud.folder_lab import HOLDS, IDLE, OTHER, OTHERS, USER, former, needs_root, owners, python_of_all, working

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120), needs_root]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is ending: nobody is waited for."""
    monkeypatch.setattr(folder, "PATIENCE", 0.0)


@pytest.fixture
def may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "_runs", lambda user: True)


def upgrade(data: Path) -> None:
    CliRunner().invoke(db, ["upgrade", "--data", str(data)], catch_exceptions=False)


def control_starts(data: Path) -> None:
    with run._database_is_ours(load(data), None):
        pass


@pytest.mark.parametrize("command", [upgrade, control_starts])
@pytest.mark.parametrize("earlier", [[], ["control"], ["control", "--port", "8774"]])
def test_a_command_beside_a_running_cloud_locks_nobody_out(
        place: Path, monkeypatch: pytest.MonkeyPatch, at_once: None, command: Callable[[Path], None],
        earlier: list[str]) -> None:
    """A process of an earlier release holds no lock, but has its words."""
    data = place / "data"
    folder.prepare(data, None)
    (place / "roots").symlink_to(data)
    monkeypatch.setattr(accounts, "account", lambda: USER)
    program, words = ((IDLE, ["nacre.cli.main", *earlier, "--data", str(data)]) if earlier else (HOLDS, [str(data)]))
    with working(program, *words):
        for name in (data, place / "roots"):
            with pytest.raises(NacreError, match=r"runs as root.*games's: `nacre down` first"):
                command(name)
    assert not any(owners(data).values()) and not list((data / "control").iterdir())


def test_a_folder_is_not_made_roots_beneath_the_users_own_cloud(
        place: Path, monkeypatch: pytest.MonkeyPatch, at_once: None) -> None:
    data = place / "data"
    former(data)
    for path in (*data.glob("nacre.*"), data / "clouds.yaml"):
        path.unlink()
    monkeypatch.setattr(accounts, "account", lambda: USER)
    for others in (USER.pw_uid, 0):
        for name in ("run", "logs", "node"):
            os.chown(data / name, others, others)
        before = owners(data)
        with working(HOLDS, str(data)), pytest.raises(NacreError, match=r"runs as games.*root's"):
            upgrade(data)
        assert owners(data) == before
    folder.prepare(data, USER)
    assert {k: v for k, v in owners(data).items() if v} == {"control": USER.pw_uid}


def test_one_that_is_ending_is_waited_for(place: Path) -> None:
    data = place / "data"
    folder.prepare(data, None)
    program = HOLDS.replace("sys.stdin.read()", "import time; time.sleep(0.3)")
    with working(program, str(data)):
        folder.prepare(data, USER)
    assert accounts.whose(data) == USER


def test_control_node_and_supervisor_hold_the_folder(
        place: Path, monkeypatch: pytest.MonkeyPatch, at_once: None) -> None:
    data, refused = place / "data", list[str]()
    monkeypatch.setattr(accounts, "account", lambda: None)

    def takes(*_: object) -> list[object]:
        with pytest.raises(folder.NotPrepared, match="runs as root"):
            folder.prepare(data, USER)
        refused.append("once")
        return []

    monkeypatch.setattr(run, "_run", takes)
    monkeypatch.setattr(accounts, "become", lambda user: None)
    CliRunner().invoke(run.control, ["--port", str(free_port()), "--data", str(data)], catch_exceptions=False)
    CliRunner().invoke(run.node, ["--data", str(data)], catch_exceptions=False)
    assert refused == ["once"] * 2
    monkeypatch.setattr(up, "_supervise", lambda *_: takes())
    up.start(load(data, port=free_port(), hypervisor="fake"), ("control", "node"))
    assert refused == ["once"] * 3

    program = ("import sys; from nacre.cli import supervisor\n"
               "supervisor.children = lambda *_: print('there', flush=True) or []\n"
               "supervisor.supervise(['--data', sys.argv[1]])")
    with working(program, str(data)):  # as in its children's pause: it has none
        takes()


def test_a_control_of_sudo_in_the_foreground_is_the_users_and_stays_it(place: Path) -> None:
    (python, environ), data = python_of_all(), place / "data"
    (place / "roots").symlink_to(data)
    with subprocess.Popen([python, "-m", "nacre.cli.main", "control", "--data", str(data), "--port", str(free_port())],
                          env=environ) as control:
        try:
            end = time.monotonic() + 60
            while not (data / "control" / "clouds.yaml").exists():
                assert control.poll() is None and time.monotonic() < end
                time.sleep(0.05)
            done = subprocess.run([python, "-m", "nacre.cli.main", "db", "upgrade", "--data", str(place / "roots")],
                                  env=environ | {"SUDO_USER": OTHER.pw_name}, capture_output=True, text=True,
                                  timeout=60, check=False)
            assert done.returncode == 1 and "runs as games" in done.stderr and "Traceback" not in done.stderr
            assert Path(f"/proc/{control.pid}").stat().st_uid == USER.pw_uid
            made = [data / "control", *(data / "control").rglob("*")]
            assert {p.lstat().st_uid for p in made} == {USER.pw_uid}
        finally:
            control.terminate()


SERVES = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1])
c.execute("PRAGMA journal_mode=WAL"); c.execute("create table t (x)"); c.commit()
print("there", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["words", "lock", "neither"])
@pytest.mark.parametrize("user", [None, USER])
def test_an_earlier_releases_database_stays_while_its_cloud_runs(
        place: Path, monkeypatch: pytest.MonkeyPatch, at_once: None, how: str, user: accounts.Account | None) -> None:
    data = place / "data"
    folder.prepare(data, user)
    monkeypatch.setattr(accounts, "account", lambda: user)
    words = ["nacre.cli.main", "control", "--data", str(data)] if how == "words" else []
    with working(SERVES, str(data / "nacre.db"), *words), contextlib.ExitStack() as others:
        if how == "lock":
            others.enter_context(lock.held(data))
        said = "Another process has" if how == "neither" else "runs on the database of an earlier release"
        with pytest.raises(NacreError, match=said):
            control_starts(data)
        assert {"nacre.db", "nacre.db-wal"} <= {p.name for p in data.iterdir()}
        assert not list((data / "control").glob("nacre.db*"))
        assert (data / "nacre.db").stat().st_uid == 0
    folder.prepare(data, user)
    with contextlib.closing(sqlite3.connect(data / "control" / "nacre.db")) as connection:
        assert connection.execute("select count(*) from t").fetchone() == (0,)


class Died(BaseException):
    """As a kill, or the machine's end."""


@contextlib.contextmanager
def dying_at(name: str, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hand-over ends at this file."""
    chown = os.chown

    def dies(path: str, *args: int, **more: int) -> None:
        if path == name:
            raise Died
        chown(path, *args, **more)

    with patch.context() as dying, pytest.raises(Died):
        dying.setattr(os, "chown", dies)
        yield


def full(path: Path, user: accounts.Account, *names: str) -> None:
    for name in names:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("")
    for each in (path, *path.rglob("*")):
        os.chown(each, user.pw_uid, user.pw_gid, follow_symlinks=False)


def test_a_hand_over_that_died_is_done_by_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, secret, control = tmp_path / "data", tmp_path / "secret", tmp_path / "data" / "control"
    nobody = pwd.getpwnam("nobody")
    folder.prepare(data, OTHER)
    full(control, OTHER, "rpc-key.json", "images/one", "images/two")
    for name in ("secret", "data/control/roots"):
        (tmp_path / name).write_text("")
    os.link(secret, control / "linked")
    with dying_at("images", monkeypatch):
        folder.prepare(data, USER)
    assert control.stat().st_uid == 0
    with dying_at("one", monkeypatch):
        folder.prepare(data, None)
    folder.prepare(data, nobody)
    mine = {p.name for p in (control, *control.rglob("*")) if p.stat().st_uid == nobody.pw_uid}
    assert {"control", "rpc-key.json", "images", "one", "two"} <= mine and "linked" not in mine
    assert not list(data.glob(".*"))


def test_a_hand_over_takes_nobody_elses_files_and_nothing_that_is_mounted(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, control = tmp_path / "data", tmp_path / "data" / "control"
    folder.prepare(data, None)
    (control / "roots").write_text("")
    for name in ("store", "mounted"):
        (control / name).mkdir()
    full(control / "store", OTHER, "theirs")
    (control / "mounted" / "image").write_text("")
    mounted, fstat, stat = (control / "mounted").stat(), os.fstat, os.stat

    def elsewhere(found: os.stat_result) -> os.stat_result:
        if found.st_ino not in (mounted.st_ino, (control / "mounted" / "image").lstat().st_ino):
            return found
        return os.stat_result((*found[:2], found.st_dev + 1, *found[3:10]))

    with monkeypatch.context() as other_device:
        other_device.setattr(os, "fstat", lambda handle: elsewhere(fstat(handle)))
        other_device.setattr(os, "stat", lambda *args, **more: (
            elsewhere(stat(*args, **more)) if more.get("dir_fd") is not None and args[0] in ("mounted", "image")
            else stat(*args, **more)))
        folder.prepare(data, USER)
    assert {p.name: p.stat().st_uid for p in control.rglob("*")} == {
        "roots": USER.pw_uid, "store": OTHER.pw_uid, "theirs": OTHER.pw_uid, "mounted": 0, "image": 0}


@pytest.mark.parametrize("name", ["logs", "run", "node", "control"])
def test_links_in_what_a_hand_over_to_root_left_stop_each_start(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    data = tmp_path / "data"
    folder.prepare(data, USER)
    full(data / name, USER, "aaa/file")
    with dying_at("aaa", monkeypatch):
        folder.prepare(data, None)
    assert (data / name).stat().st_uid == 0
    (data / name / "aaa" / "control.log").symlink_to("/etc/hostname")
    os.lchown(data / name / "aaa" / "control.log", USER.pw_uid, USER.pw_gid)
    for _ in range(2):
        with pytest.raises(folder.NotPrepared, match=r"control\.log is a symbolic link"):
            folder.prepare(data, None)
    for mark in data.glob(".*.owners"):  # as an earlier release left it: with no mark
        mark.unlink()
    with pytest.raises(folder.NotPrepared, match=r"control\.log is a symbolic link"):
        folder.prepare(data, None)


def test_a_refusal_has_taken_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    former(data)
    for name in ("logs", "run", "node"):
        os.chown(data / name, USER.pw_uid, USER.pw_gid)
    for path in (data / "guest", data / "logs" / "link"):
        before = owners(data)
        path.symlink_to("/etc")
        os.lchown(path, USER.pw_uid, USER.pw_gid)
        with pytest.raises(folder.NotPrepared, match=f"{path} is a symbolic link"):
            folder.prepare(data, USER)
        path.unlink()
        if path.parent == data:
            assert owners(data) == before
        else:
            assert path.parent.stat().st_uid == USER.pw_uid


def test_the_links_that_nacre_made_as_the_user_are_no_traps(tmp_path: Path) -> None:
    data = tmp_path / "data"
    former(data)
    (data / "clouds.yaml").rename(data / "control" / "clouds.yaml")
    for name in folder.SHOWN:
        (data / name).symlink_to(f"control/{name}")
        os.lchown(data / name, USER.pw_uid, USER.pw_gid)
    folder.prepare(data, USER)
    assert {k: v for k, v in owners(data).items() if v} == {"control": USER.pw_uid}
    assert (data / "clouds.yaml").read_text() == "clouds.yaml"


@pytest.mark.parametrize("before", [None, USER])
def test_without_sudo_control_stays_whose_it_is_at_each_command(
        place: Path, monkeypatch: pytest.MonkeyPatch, may_run: None, before: accounts.Account | None) -> None:
    data, uid = place / "data", before.pw_uid if before else 0
    folder.prepare(data, before)
    monkeypatch.setattr(accounts, "account", lambda: None)
    monkeypatch.setattr(up, "_supervise", lambda *_: None)
    monkeypatch.setattr(supervisor, "prepare", lambda *_: None)
    monkeypatch.setattr(database, "reached", lambda *_: supervisor.newest_revision())
    url = "postgresql://nacre:secret@127.0.0.1/nacre"
    settings = load(data, port=free_port(), database_url=url)
    with run._database_is_ours(settings, url) as user:
        assert user == before
    assert (data / "database-url").stat().st_uid == uid
    up.start(settings, ("control", "node"), up.Given(url))
    assert ((data / "control").stat().st_uid, (data / "database-url").stat().st_uid) == (uid, uid)
    assert [c._user for c in supervisor.children(load(data, hypervisor="fake"), ("control",))] == [before]
    with accounts.acting(before):
        assert load(data).database == url


def test_several_make_a_folder_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir, data = os.mkdir, tmp_path / "deep" / "data"

    def late(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None:
            mkdir(path, mode, dir_fd=dir_fd)  # the other's
        mkdir(path, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", late)
    folder.prepare(data, None)
    assert (data / "control").is_dir()


def test_of_two_databases_nobody_says_that_up_moves_one(tmp_path: Path) -> None:
    data = tmp_path / "data"
    folder.prepare(data, None)
    for path in (data, data / "control"):
        (path / "nacre.db").write_text("")
    for look in (lambda: upgrade(data), lambda: database.present(load(data))):
        with pytest.raises(NacreError, match="take away the one that is not the cloud's"):
            look()


def test_what_a_cloud_was_started_with_is_roots(tmp_path: Path) -> None:
    data = tmp_path / "data"
    former(data)
    (data / "nacre.toml").write_text("")
    (data / "kept.json").write_text("{}")
    os.chown(data / "kept.json", USER.pw_uid, USER.pw_gid)
    folder.prepare(data, USER)
    assert owners(data)["kept.json"] == 0
    up._keep(load(data, port=1234, hypervisor="fake"))
    assert (load(data).port, owners(data)["kept.json"], (data / "kept.json").stat().st_mode & OTHERS) == (1234, 0, 0)
