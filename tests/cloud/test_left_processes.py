"""Which processes work on a data folder: `up` and `down` end them, and nobody else's."""

from pathlib import Path

import pytest

from nacre.cli.processes import left
from tests.cloud.folder_lab import IDLE, working

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
