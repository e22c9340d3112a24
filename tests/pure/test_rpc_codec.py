"""Contracts on the wire."""

import contextlib
from typing import Any, Protocol

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import BadRequest, NacreError, NotFound, Refused
from nacre.base.rpc import codec
from nacre.base.rpc.recent import Recent


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    size: int
    bus: str = "virtio"


class Old(Protocol):
    async def attach(self, server: str, disk: Disk) -> dict[str, int]: ...


class New(Protocol):
    async def attach(self, server: str, disk: Disk, slots: tuple[int, ...] = ()) -> dict[str, int]: ...


OLD, NEW = codec.verbs(Old)["attach"], codec.verbs(New)["attach"]


@given(st.text(), st.integers(-2**63, 2**63 - 1), st.lists(st.integers(0, 100)))
def test_arguments_survive(server: str, size: int, slots: list[int]) -> None:
    data = NEW.pack(server, Disk(size=size), slots=tuple(slots))
    assert NEW.unpack(msgspec.Raw(data)) == {"server": server, "disk": Disk(size=size), "slots": tuple(slots)}


def test_a_side_that_is_one_release_behind_is_understood() -> None:
    assert NEW.unpack(msgspec.Raw(OLD.pack("s", Disk(size=1))))["slots"] == ()
    assert OLD.unpack(msgspec.Raw(NEW.pack("s", Disk(size=1), (4,)))) == {"server": "s", "disk": Disk(size=1)}


@given(st.binary(max_size=200))
def test_garbage_is_refused_never_run(data: bytes) -> None:
    for decode in (codec.decode_request, codec.decode_answer):
        with pytest.raises(BadRequest):
            decode(b"\xc1" + data)
    with contextlib.suppress(BadRequest):
        codec.decode_request(data)


def test_arguments_of_the_wrong_type_are_named() -> None:
    with pytest.raises(BadRequest, match="attach"):
        NEW.unpack(msgspec.Raw(codec.encode({"server": "s", "disk": {"size": "big"}})))


def test_errors_keep_their_class_or_its_nearest_known_base() -> None:
    class Odd(Refused):
        pass

    sent = codec.failure(Odd("no room", field="memory"))
    del Odd
    got = codec.error_from(msgspec.structs.replace(sent, kinds=("NeverHeardOf", *sent.kinds[1:])))
    assert type(got) is Refused and (got.message, got.field, got.type) == ("no room", "memory", "Odd")
    assert type(codec.error_from(codec.failure(NotFound("x")))) is NotFound
    assert type(codec.error_from(codec.Failure(("Alien",), "m", "Alien"))) is NacreError


def test_the_version_rule() -> None:
    assert codec.compatible("1.0", "1.2") and codec.compatible("1.2", "1.2")
    assert not codec.compatible("1.3", "1.2") and not codec.compatible("2.0", "1.2")
    assert not codec.compatible("1", "1.2") and not codec.compatible("x.y", "1.2")


@pytest.mark.parametrize("wrong", [
    {"id": b""}, {"id": b"x" * 15}, {"id": b"x" * (1 << 20)}, {"namespace": "n" * 65}, {"verb": "v" * 65},
    {"version": "1" * 33}])
def test_what_names_a_request_is_bounded(wrong: dict[str, Any]) -> None:
    good = codec.Request(b"0123456789abcdef", "n", "1.0", "v", msgspec.Raw(b"\xc0"))
    assert codec.decode_request(codec.encode(good)).verb == "v"
    with pytest.raises(BadRequest):
        codec.decode_request(codec.encode(msgspec.structs.replace(good, **wrong)))


def test_of_what_came_no_peer_pushes_out_what_is_known_of_others() -> None:
    recent = Recent[int](each=10, total=35)
    recent.add("honest", b"first", 1)
    for n in range(1000):
        recent.add("evil", str(n).encode(), n)
    assert recent.get("honest", b"first") == 1 and len(recent) == 11
    assert ("evil", b"999") in recent and ("evil", b"989") not in recent
    for peer in "abc":
        for n in range(10):
            recent.add(peer, str(n).encode(), n)
    assert len(recent) == 35 and ("honest", b"first") not in recent and recent.get("c", b"9") == 9
    assert sum(map(len, recent._of.values())) == 35 and "honest" not in recent._of
