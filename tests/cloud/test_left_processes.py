"""Which processes work on a data folder: `up` and `down` end them, and nobody else's."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from nacre.cli.processes import left
from nacre.cli.up import stop, supervised
from tests.cloud.folder_lab import HOLDS, IDLE, ROOT, working

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


def test_what_is_left_of_a_cloud_is_found_by_each_name_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "roots").symlink_to("data")
    with working(IDLE, "nacre.cli.main", "control", "--data", str(tmp_path / "data")) as one:
        for name in ("data", "roots"):
            assert left.find(tmp_path / name) == {one.pid: "control"}


def test_a_relative_name_is_that_of_where_its_process_was_started(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "cloud").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "b")
    with working(IDLE, "nacre.cli.main", "control", "--data", "cloud", cwd=tmp_path / "a") as one:
        assert left.find(tmp_path / "b" / "cloud") == {}
        assert left.find(tmp_path / "a" / "cloud") == {one.pid: "control"}


def test_what_is_left_is_found_where_its_folder_was_removed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with working(IDLE, "nacre.cli.main", "control", "--data", str(tmp_path / "data")) as one:
        (tmp_path / "data").rmdir()
        assert left.find(tmp_path / "data") == {one.pid: "control"}


@pytest.mark.parametrize("words", [
    ["--data", "data", "--port", "8774"], ["--port", "8774", "--data=data"], ["--data", "other", "--data", "data"]])
@pytest.mark.parametrize("program", ["nacre.cli.main", "/usr/local/bin/nacre"])
def test_a_name_may_stand_anywhere_among_the_words(tmp_path: Path, program: str, words: list[str]) -> None:
    (tmp_path / "data").mkdir()
    with working(IDLE, program, "control", *words, cwd=tmp_path) as one:
        assert left.find(tmp_path / "data") == {one.pid: "control"} and left.find(tmp_path) == {}
        assert stop(tmp_path / "data") and one.wait(10) == -15


def test_a_folder_of_the_environment_is_known(tmp_path: Path) -> None:
    for name in ("data", "other"):
        (tmp_path / name).mkdir()
    environ = {"NACRE_DATA_DIR": str(tmp_path / "data")}
    with working(IDLE, "nacre.cli.main", "control", **environ) as one:
        assert left.find(tmp_path / "data") == {one.pid: "control"}
    with working(IDLE, "nacre.cli.main", "control", "--data", str(tmp_path / "other"), **environ):
        assert left.find(tmp_path / "data") == {}


SERVES = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1]); c.execute("select count(*) from t").fetchone()
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("place", ["control/nacre.db", "nacre.db"])
def test_a_control_that_was_told_no_folder_is_known_by_what_it_has_open(tmp_path: Path, place: str) -> None:
    """That of an earlier release has only its database."""
    for name in ("data", "other"):
        (tmp_path / name / "control").mkdir(parents=True)
    with sqlite3.connect(tmp_path / "data" / place) as connection:
        connection.execute("create table t (x)")
    (tmp_path / "other" / "nacre.db").symlink_to(tmp_path / "data" / place)
    (tmp_path / "other" / "node").symlink_to(tmp_path / "data" / "control")
    for program, word in ((SERVES, tmp_path / "data" / place), (HOLDS, tmp_path / "data")):
        with working(program, str(word), "/usr/bin/nacre", "control", "--port", "1") as one:
            assert left.find(tmp_path / "data") == {one.pid: "control"}
            assert left.find(tmp_path / "other") == {}, "another's links lead to it"
        with working(program, str(word)):
            assert left.find(tmp_path / "data") == {}, "a backup, or a shell"


@pytest.mark.parametrize(("start", "more"), [
    (["bash", "-c", "echo; read"], []), ([sys.executable, "-c", IDLE], ["-d"]),
    ([sys.executable, "-c", IDLE], ["--detach"])])
def test_who_calls_a_control_and_a_command_that_starts_one_are_none(
        tmp_path: Path, start: list[str], more: list[str]) -> None:
    """As sudo, which has the words of what it runs in its own."""
    (tmp_path / "data").mkdir()
    words = ["nacre.cli.main", "control", "--data", str(tmp_path / "data"), *more]
    with subprocess.Popen([*start, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout and process.stdout.readline()
            assert left.find(tmp_path / "data") == {}
        finally:
            process.kill()


def test_who_asks_is_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    program = ("import sys; from pathlib import Path; from nacre.cli.processes import left\n"
               "print(left.find(Path(sys.argv[-1])), flush=True)")
    words = ["nacre.cli.main", "control", "--data", str(tmp_path / "data")]
    done = subprocess.run([sys.executable, "-c", program, *words],
                          capture_output=True, text=True, check=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert done.stdout == "{}\n"


def test_the_supervisor_is_known_by_each_name_of_its_folder(tmp_path: Path) -> None:
    """And no other's is, where a copy has brought its number."""
    for name in ("data", "other"):
        (tmp_path / name / "run").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data")
    for told in ("data", "link"):
        words = ["supervise", "--roles", "control", "--data", str(tmp_path / told)]
        with working(IDLE, "nacre.cli.main", *words) as one:
            for name in ("data", "other"):
                (tmp_path / name / "run" / "supervisor.pid").write_text(str(one.pid))
            for name in ("data", "link"):
                assert supervised(tmp_path / name) == (one.pid, ("control",))
            assert supervised(tmp_path / "other") == (None, ())


def test_a_control_over_postgresql_that_was_told_no_folder_is_known_by_its_pid_file(tmp_path: Path) -> None:
    """That of an earlier release has nothing of the folder open."""
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / "control.pid"
    with working(IDLE, "/usr/bin/nacre", "control", "--database", "postgresql://n@h/n") as one:
        assert left.find(tmp_path) == {}
        file.write_text(str(one.pid))
        assert left.find(tmp_path) == {one.pid: "control"}
        os.utime(file, (0, 0))
        assert left.find(tmp_path) == {}, "it is older than the process: of one that had its number before"
    for words in (["control", "--data", str(tmp_path / "other")], ["node"]):
        with working(IDLE, "/usr/bin/nacre", *words) as one:
            file.write_text(str(one.pid))
            assert left.find(tmp_path) == {}
    (tmp_path / "other" / "control").mkdir(parents=True)
    with working(HOLDS, str(tmp_path / "other"), "/usr/bin/nacre", "control") as one:
        file.write_text(str(one.pid))
        assert left.find(tmp_path) == {}, "it has locked another folder, of which this is a copy"
