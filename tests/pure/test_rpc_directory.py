"""Who is known by which key, and where: also when keys and places change hands."""

from nacre.base.rpc.directory import Directory
from nacre.base.rpc.server import Peer
from nacre.base.rpc.target import Target

HOST = Peer("h", "node")
TARGET = Target(topic="node", namespace="node", version="1.0")


def test_a_peer_is_shut_out_with_its_last_key() -> None:
    known = Directory()
    for key in ("one", "two"):
        known.register(key, HOST)
    known.revoke("one")
    assert known.key_of(HOST) == "two" and not known.shut_out
    known.revoke("two")
    assert known.key_of(HOST) == "" and known.shut_out == {"h"} and not known.peers
    known.register("three", HOST)
    assert known.key_of(HOST) == "three" and not known.shut_out


def test_a_key_has_one_peer() -> None:
    known = Directory()
    known.register("key", HOST)
    known.register("key", Peer("other", "node"))
    assert known.key_of(HOST) == "" and known.peers == {"key": Peer("other", "node")}


def test_where_nobody_listens_any_more_is_said_once() -> None:
    known = Directory()
    known.route("node", "h", "tcp://192.0.2.1:1", "k")
    known.route("node", "h", "tcp://192.0.2.1:1", "k")
    assert known.left() == []
    known.route("node", "h", "tcp://192.0.2.2:1", "k")
    assert known.left() == [("tcp://192.0.2.1:1", "k")] and known.left() == []
    known.unroute("node", "h")
    known.route("node", "other", "tcp://192.0.2.2:1", "k")  # another has the place
    assert known.left() == [] and known.ways(TARGET) == [("tcp://192.0.2.2:1", "k")]
