"""Small files are there whole or not at all, and one that an older release left empty stops no process."""

import os
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from nacre.base.durable.files import write_whole
from nacre.base.rpc.memory import MemoryHub, MemoryTransport
from nacre.base.rpc.server import Peer
from nacre.cli.bootstrap import kept
from nacre.cloud.control import process_id
from nacre.cloud.node import ControlWays
from nacre.conductor.contract import ControlAddress
from nacre.config import load


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    write_whole(file, "old")

    def full(_: int) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", full)
        write_whole(file, "new")
    assert file.read_text() == "old"
    write_whole(file, b"new", 0o644)
    assert file.read_text() == "new" and file.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_two_writers_of_one_file_do_not_take_each_others_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, sync = tmp_path / "file", os.fsync

    def another_comes(handle: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        write_whole(file, "other")
        sync(handle)

    monkeypatch.setattr(os, "fsync", another_comes)
    write_whole(file, "mine")
    assert file.read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_writer_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    old, young, others = tmp_path / ".file.part", tmp_path / ".file.1.part", tmp_path / ".fil.part"
    for each in (old, young, others):
        each.write_text("half")
    for each in (old, others):
        os.utime(each, (0, 0))
    write_whole(tmp_path / "file", "whole")
    assert {each.name for each in tmp_path.iterdir()} == {"file", young.name, others.name}


@pytest.mark.parametrize("broken", ["", "\0" * 36])
def test_a_lost_process_id_is_made_anew(tmp_path: Path, broken: str) -> None:
    (tmp_path / "process-id").write_text(broken)
    made = process_id(tmp_path)
    assert str(UUID(made)) == made == process_id(tmp_path)


def test_a_node_starts_without_the_controls_that_it_knew(tmp_path: Path) -> None:
    file, first = tmp_path / "controls.json", ControlAddress("one", "", "")
    file.write_bytes(b"")
    ways = ControlWays(MemoryTransport(MemoryHub(), me=Peer("h", "node")), file, first)
    assert list(ways.known()) == [first]
    two = ControlAddress("two", "", "")
    ways.learn([first, two])
    assert msgspec.json.decode(file.read_bytes(), type=list[ControlAddress]) == [first, two]


def test_passwords_that_are_lost_are_not_known(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "passwords.json").write_bytes(b"")
    assert kept(load(tmp_path, environ={"NACRE_IDENTITY_ADMIN_PASSWORD": "sesame"}))["admin"] == "sesame"
