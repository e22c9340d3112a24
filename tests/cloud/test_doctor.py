"""What `nacre doctor` finds."""

import os
import socket
from pathlib import Path

import pytest

from nacre.cli import doctor
from nacre.cli.doctor import check_door, check_folders, doors
from nacre.cli.processes import folder
from nacre.cli.supervisor import free_port
from nacre.config import load
from tests.cloud.folder_lab import USER, needs_root


@needs_root
def test_whose_the_folders_are_that_root_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CODE", ())  # of these tests' own nothing is known
    data = tmp_path / "data"
    folder.prepare(data, USER)
    assert check_folders(data).state == "ok"
    os.chown(tmp_path, USER.pw_uid, USER.pw_gid)
    found = check_folders(data)
    assert (found.state, f"{tmp_path} is games's" in found.detail) == ("warning", True)
    assert f"{tmp_path} is games's" in check_folders(tmp_path / "not" / "yet").detail
    for path, word in ((data, "games's"), (data / "logs", "games's")):
        os.chown(path, USER.pw_uid, USER.pw_gid)
        found = check_folders(data)
        assert (found.state, f"{path} is {word}" in found.detail, bool(found.cure)) == ("failed", True, True)
        os.chown(path, 0, 0)
    (data / "run").chmod(0o777)
    assert f"others may write {data / 'run'}" in check_folders(data).detail
    monkeypatch.setattr(doctor, "CODE", (tmp_path,))
    assert "install Nacre in a folder of root's" in check_folders(data).cure


def test_every_port_of_up_and_who_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("NACRE_HOST", "0.0.0.0")
    monkeypatch.setenv("NACRE_METRICS_PORT", "19999")
    every = doors(load(tmp_path, port=port))
    assert [(d.port, d.udp) for d in every] == [
        (port, False), (port + 1, False), (port + 2, False), (19999, False), (4789, True)]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port + 1))
        taken.listen()
        found = {d.port: check_door(d, tmp_path) for d in every if not d.udp}
    assert found[port].state == "ok"
    assert found[port + 1].state == "failed" and f"process {os.getpid()} (" in found[port + 1].detail
    assert "NACRE_RPC_PORT" in found[port + 1].cure
