"""Who owns what in a data folder: what root opens is root's, and no account can put anything else in its place."""

import contextlib
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from bench.client import Cloud
from click.testing import CliRunner

from nacre.base.errors import NacreError, Unavailable
from nacre.base.rpc.keys import load_keys, new_keys
from nacre.cli.database import db
from nacre.cli.processes import accounts, folder
from nacre.cli.processes.join import join
from nacre.cli.status import members
from nacre.cli.supervisor import free_port
from nacre.cloud import join_client
from nacre.cloud.tokens import JoinToken, payload
from nacre.config import load, reading
from tests.cloud.folder_lab import OTHERS, ROOT, USER, former, needs_root, owners, python_of_all

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120), needs_root]


def test_a_folder_is_roots_but_for_controls(tmp_path: Path) -> None:
    data = tmp_path / "data"
    folder.prepare(data, USER)
    assert {k: v for k, v in owners(data).items() if v} == {"control": USER.pw_uid}
    assert not [p for p in (data, *data.iterdir()) if not p.is_symlink() and p.stat().st_mode & OTHERS]
    assert accounts.whose(data) == USER


def test_a_folder_of_an_earlier_release_is_taken_over_with_its_database(tmp_path: Path) -> None:
    data = tmp_path / "data"
    former(data)
    disk = data / "node" / "guests" / "disk"
    disk.parent.mkdir()
    disk.write_text("a guest's")
    os.chown(disk, 64055, 64055)
    before = disk.stat()
    for _ in range(2):
        folder.prepare(data, USER)
        assert {k: v for k, v in owners(data).items() if v} == {"control": USER.pw_uid}
        moved = [data / "control" / name for name in ("nacre.db", "nacre.db-wal", "clouds.yaml")]
        assert [p.read_text() for p in moved] == [p.name for p in moved]
        assert (data / "clouds.yaml").read_text() == "clouds.yaml" and not (data / "nacre.db").exists()
        assert (disk.stat().st_ino, disk.stat().st_uid) == (before.st_ino, before.st_uid)
    options = (data / "nacre.toml").stat()
    assert (options.st_uid, options.st_gid, options.st_mode & 0o777) == (0, USER.pw_gid, 0o640)


@pytest.mark.parametrize("name", ["logs", "run", "node", "control", "nacre.toml", "guest"])
def test_a_link_that_the_user_left_is_named_and_not_followed(tmp_path: Path, name: str) -> None:
    data, trap = tmp_path / "data", tmp_path / "trap"
    former(data)
    trap.mkdir()
    if (data / name).is_dir():
        (data / name).rename(tmp_path / "away")
    (data / name).unlink(missing_ok=True)
    (data / name).symlink_to(trap)
    os.lchown(data / name, USER.pw_uid, USER.pw_gid)
    with pytest.raises(folder.NotPrepared, match=f"{data / name}"):
        folder.prepare(data, USER)
    assert not list(trap.iterdir()) and trap.stat().st_uid == 0


def test_a_data_folder_that_is_the_users_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(tmp_path)
    os.lchown(tmp_path / "data", USER.pw_uid, USER.pw_gid)
    with pytest.raises(folder.NotPrepared, match="symbolic link"):
        folder.prepare(tmp_path / "data", USER)
    assert not (tmp_path / "run").exists()


def test_the_users_link_above_a_data_folder_is_refused_and_roots_is_followed(tmp_path: Path) -> None:
    others = tmp_path / "others"
    folder.prepare(others / "cloud", pwd.getpwnam("daemon"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "a").symlink_to(others)
    (tmp_path / "roots").symlink_to("home/../home")
    os.lchown(tmp_path / "home" / "a", USER.pw_uid, USER.pw_gid)
    before = owners(others / "cloud")
    for name in ("home/a/cloud", "roots/a/cloud", "home/a/new/cloud"):
        with pytest.raises(folder.NotPrepared, match="a is a symbolic link"):
            folder.prepare(tmp_path / name, USER)
    assert owners(others / "cloud") == before and [p.name for p in others.iterdir()] == ["cloud"]
    folder.prepare(tmp_path / "roots" / "deep" / "cloud", USER)
    assert accounts.whose(tmp_path / "home" / "deep" / "cloud") == USER


def test_control_goes_from_one_account_to_another_with_a_word(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for user in (None, pwd.getpwnam("daemon"), pwd.getpwnam("daemon")):
        folder.prepare(tmp_path / "data", user)
        assert capsys.readouterr().err == ""
    folder.prepare(tmp_path / "data", USER)
    assert f"is account {USER.pw_uid}'s from now on" in capsys.readouterr().err


def test_what_the_user_had_in_logs_becomes_roots_and_his_links_in_there_stop_the_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    former(data)
    (data / "logs" / "node.log").write_text("")
    for path in (data / "logs", data / "logs" / "node.log"):
        os.chown(path, USER.pw_uid, USER.pw_gid)
    folder.prepare(data, USER)
    assert {p.stat().st_uid for p in (data / "logs", data / "logs" / "node.log")} == {0}

    os.chown(data / "logs", USER.pw_uid, USER.pw_gid)
    (data / "logs" / "control.log").symlink_to("/etc/passwd")
    os.lchown(data / "logs" / "control.log", USER.pw_uid, USER.pw_gid)
    for _ in range(2):
        with pytest.raises(folder.NotPrepared, match=r"control\.log"):
            folder.prepare(data, USER)


def test_a_home_or_a_folder_of_all_is_not_taken(tmp_path: Path) -> None:
    for mode, owner in ((0o755, USER.pw_uid), (0o1777, 0)):
        place = tmp_path / str(owner)
        place.mkdir()
        (place / "letter").write_text("")
        os.chown(place, owner, owner)
        place.chmod(mode)
        with pytest.raises(folder.NotPrepared, match="other things"):
            folder.prepare(place, USER)
        assert (place.stat().st_mode & 0o7777, place.stat().st_uid, len(list(place.iterdir()))) == (mode, owner, 1)


def test_a_file_that_has_another_name_is_given_to_nobody(tmp_path: Path) -> None:
    data, secret = tmp_path / "data", tmp_path / "secret"
    former(data)
    secret.write_text("root's")
    (data / "nacre.db").unlink()
    os.link(secret, data / "nacre.db")
    with pytest.raises(folder.NotPrepared, match="another name elsewhere"):
        folder.prepare(data, USER)
    assert secret.stat().st_uid == 0


def test_two_databases_are_not_mixed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    folder.prepare(data, None)
    for path in (data, data / "control"):
        (path / "nacre.db").write_text(str(path))
    with pytest.raises(folder.NotPrepared, match="take away the one"):
        folder.prepare(data, None)


def with_rows(folder: Path) -> None:
    """A database that was left without being closed: its one row lies beside it, in the WAL."""
    with contextlib.closing(sqlite3.connect(folder / "open.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("create table t (x)")
        connection.execute("insert into t values ('kept')")
        connection.commit()
        for end in ("", "-wal"):
            shutil.copy(folder / f"open.db{end}", folder / f"nacre.db{end}")
    (folder / "open.db").unlink()


def rows(file: Path) -> list[tuple[str]]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute("select x from t").fetchall()


@pytest.mark.parametrize("user", [None, USER])
def test_a_move_that_dies_in_its_middle_loses_no_row(
        place: Path, monkeypatch: pytest.MonkeyPatch, user: pwd.struct_passwd | None) -> None:
    data = place / "data"
    former(data)
    for path in data.glob("nacre.*"):
        path.unlink()
    with_rows(data)
    move = os.rename

    def rename(name: str, *args: str, **more: int) -> None:
        if name == "nacre.db":
            raise KeyboardInterrupt
        move(name, *args, **more)

    with monkeypatch.context() as dying:
        dying.setattr(os, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            folder.prepare(data, user)
    shutil.copy(data / "nacre.db", place / "alone.db")
    assert rows(place / "alone.db") == [("kept",)]

    for look in (lambda: CliRunner().invoke(db, ["version", "--data", str(data)], catch_exceptions=False),
                 lambda: members(load(data))):
        with pytest.raises(NacreError, match="`nacre up` moves it"):
            look()
    assert not (data / "control" / "nacre.db").exists()
    folder.prepare(data, user)
    assert rows(data / "control" / "nacre.db") == [("kept",)] and not (data / "nacre.db").exists()


def test_who_looks_makes_no_database(tmp_path: Path) -> None:
    folder.prepare(tmp_path / "data", None)
    with pytest.raises(NacreError, match="There is no cloud"):
        CliRunner().invoke(db, ["version", "--data", str(tmp_path / "data")], catch_exceptions=False)
    assert not list((tmp_path / "data" / "control").iterdir())


def test_in_controls_folder_root_has_the_users_rights(place: Path) -> None:
    """No key of root's is used by a link to it; all that the account needs to get there it has, as what root makes for
    it there shows."""
    data, secret = place / "data", place / "secret"
    folder.prepare(data, USER)
    roots, kept = load_keys(secret).public, data / "control" / "rpc-key.json"
    program = ("import sys, pwd; from pathlib import Path; from nacre.cli.supervisor import keys_for\n"
               "print(keys_for(Path(sys.argv[1]), 'control', pwd.getpwnam('games')).public)")

    def keys() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", program, str(data)], capture_output=True, text=True, check=False,
                              env={"PYTHONPATH": str(ROOT / "src")}, timeout=60)

    made = keys()
    assert made.returncode == 0 and kept.stat().st_uid == USER.pw_uid, made.stderr
    kept.unlink()
    kept.symlink_to(secret)
    refused = keys()
    assert roots not in refused.stdout and f"PermissionError: [Errno 13] Permission denied: '{kept}'" in refused.stderr
    assert secret.stat().st_uid == 0 and load_keys(secret).public == roots


def test_new_clouds_of_sudo_lie_where_nobody_else_has_a_folder_above(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    user = pwd.struct_passwd(("someone", "x", 4321, 4321, "", str(home), ""))
    monkeypatch.setattr(reading, "CLOUDS", tmp_path / "clouds")
    monkeypatch.setattr(reading, "owner", lambda: user)
    monkeypatch.delenv("NACRE_DATA_DIR", raising=False)
    assert reading.data_folder() == tmp_path / "clouds" / "someone"
    (home / ".nacre").symlink_to(tmp_path / "clouds" / "someone")
    assert reading.data_folder() == tmp_path / "clouds" / "someone"
    (home / ".nacre").unlink()
    (home / ".nacre").mkdir()
    assert reading.data_folder() == home / ".nacre"
    assert reading.data_folder(tmp_path) == tmp_path


def test_a_folder_is_made_ready_before_a_token_is_used_in_it(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token names no control: who asks with it gets no answer."""
    token = JoinToken(id="t", cloud="c", expires=0, keys=new_keys(), controls=())
    monkeypatch.setattr(join_client, "PAUSE", 0.0)

    def joins(data: Path) -> None:
        data.mkdir(exist_ok=True)
        os.chown(data, USER.pw_uid, USER.pw_gid)
        command = [f"{payload(token)}.signed", "--hypervisor", "fake", "--data", str(data)]
        CliRunner().invoke(join, command, catch_exceptions=False)

    with pytest.raises(Unavailable):
        joins(tmp_path / "made")
    folder.prepare(tmp_path / "made", None, control=False)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("")
    with pytest.raises(folder.NotPrepared, match="other things"):
        joins(tmp_path / "home")
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["letter"]


def test_a_cloud_of_sudo_comes_up_in_a_folder_of_an_earlier_release(place: Path) -> None:
    (python, environ), data = python_of_all(), place / "data"

    def nacre(*words: str) -> str:
        done = subprocess.run([python, "-m", "nacre.cli.main", *words, "--data", str(data)], env=environ, check=False,
                              capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    up = ("up", "-d", "--hypervisor", "fake", "--port", str(free_port()))
    nacre(*up)
    try:
        nacre("down")
        before = (data / "clouds.yaml").read_text()
        for name in ("clouds.yaml", "authority.pem"):
            (data / name).unlink()
        for path in (data / "control").glob("nacre.db*"):
            path.rename(data / path.name)
        (data / "control" / "clouds.yaml").rename(data / "clouds.yaml")
        os.chown(data, USER.pw_uid, USER.pw_gid)

        nacre(*up)
        assert (data / "clouds.yaml").read_text() == before
        assert Cloud("demo", str(data / "clouds.yaml")).token
        assert {k: v for k, v in owners(data).items() if v} == {"control": USER.pw_uid}
        assert {p.stat().st_uid for p in (data / "control").iterdir()} == {USER.pw_uid}
        assert {p.stat().st_uid for name in ("run", "logs", "node") for p in (data / name).iterdir()} == {0}
        assert "token" in nacre("keys", "list")
    finally:
        nacre("down")
