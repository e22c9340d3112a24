"""The control processes that a host takes orders from: those that are named, and nobody else."""

from pathlib import Path
from typing import Any

import pytest

from nacre.base.rpc.memory import MemoryTransport
from nacre.cloud import node
from nacre.cloud.node import ControlWays
from nacre.conductor.contract import ControlAddress

ONE, TWO = (ControlAddress(name, f"tcp://192.0.2.{n}:8775", f"key-{name}") for n, name in enumerate(("one", "two"), 1))


def names(transport: MemoryTransport) -> dict[str, str]:
    return {key: peer.name for key, peer in transport.directory.peers.items()}


def test_a_control_that_left_or_has_another_key_gives_no_orders_any_more(tmp_path: Path) -> None:
    transport = MemoryTransport()
    ways = ControlWays(transport, tmp_path / "controls.json", ONE)
    ways.learn([ONE, TWO])
    assert names(transport) == {"key-one": "one", "key-two": "two"}
    ways.learn([ONE])
    assert names(transport) == {"key-one": "one"}
    renewed = ControlAddress("one", ONE.address, "key-new")
    ways.learn([renewed, TWO])
    assert names(transport) == {"key-new": "one", "key-two": "two"}

    again = MemoryTransport()  # the host comes back with what it was given when it joined
    ways = ControlWays(again, tmp_path / "controls.json", ControlAddress("gone", "tcp://192.0.2.9:8775", "key-gone"))
    ways.learn([renewed, TWO])
    assert names(again) == {"key-new": "one", "key-two": "two"}


def test_what_could_not_be_written_down_is_when_there_is_room_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that left would be believed again after a restart."""
    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    def after_a_restart() -> list[str]:
        return [c.id for c in ControlWays(MemoryTransport(), file, ControlAddress("", "", "")).known()]

    file = tmp_path / "controls.json"
    ways = ControlWays(MemoryTransport(), file, ONE)
    ways.keep()
    assert not file.exists()  # nobody named them yet
    ways.learn([ONE, TWO])
    with monkeypatch.context() as patch:
        patch.setattr(node, "write_whole", full)
        ways.learn([TWO])  # the rest of the hello is to be heard
        ways.learn([TWO])
    assert list(ways.known()) == [TWO] and after_a_restart() == ["one", "two"]
    ways.keep()
    assert after_a_restart() == ["two"]
