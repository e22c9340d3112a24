"""A machine becomes a host by a token, once; whatever else is shown at the door is refused, and says why."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from nacre.base.errors import BadRequest, Conflict, Forbidden, Unavailable
from nacre.base.rpc.keys import KeyPair, new_keys
from nacre.base.rpc.link import UnknownKey
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.base.rpc.zmq import ZmqTransport
from nacre.cloud import control as control_wiring
from nacre.cloud import join_client
from nacre.cloud.contract import TARGET, JoinRequest, Joins
from nacre.cloud.tokens import payload, split
from nacre.identity.keys.seal import write_new
from tests.cloud.join_lab import Member, enter, member


@pytest.fixture
async def control(story_url: str, tmp_path: Path) -> AsyncIterator[Member]:
    async with member(tmp_path / "one", story_url) as made:
        yield made


async def test_a_token_makes_one_machine_a_host(control: Member) -> None:
    keys = new_keys()
    with pytest.raises(UnknownKey):
        await control.greets("host-1", keys)
    joined = await enter(await control.token(), keys=keys)
    me = control.transport
    assert joined.cloud == control.control.base.processes.cloud_id and joined.vxlan_port == 4789
    assert [(c.id, c.address, c.public_key) for c in joined.controls] == [("one", me.address, me.public_key)]
    assert await control.greets("host-1", keys), "let in at once, and asked to say hello"
    with pytest.raises(Forbidden, match="may not speak for host-2"):
        await control.greets("host-2", keys)


async def test_the_key_of_a_token_may_ask_for_nothing_else(control: Member) -> None:
    token, _, _ = split(await control.token())
    transport = ZmqTransport(Peer(token.id, "join"), token.keys)
    transport.directory.route("control", "one", control.transport.address, control.transport.public_key)
    asked = set()
    try:
        for served in control.transport._dispatcher.served.values():
            for name, verb in served.verbs.items():
                client = transport.client(msgspec.structs.replace(served.target, server="one")).prepare(timeout=5)
                with pytest.raises(BadRequest if name == "join" else Forbidden):
                    await client.send(verb, b"\x80")
                asked.add(f"{served.target.namespace}.{name}")
    finally:
        await transport.close()
    assert {"join.join", "conductor.hello", "conductor.guest_facts", "network.wiring", "image.read"} <= asked


async def test_a_token_counts_once(control: Member) -> None:
    token, keys = await control.token(), new_keys()
    first = await enter(token, keys=keys)
    assert await enter(token, keys=keys) == first, "the answer was lost, and the same machine asks again"
    for name in ("host-1", "host-2"):
        with pytest.raises(Conflict, match=r"was used by host-1 at .* counts once"):
            await enter(token, name)
    with pytest.raises(Conflict, match="was used by host-1"):
        await enter(token, "host-2", keys)
    await control.control.base.processes.remove("node", "host-1")
    with pytest.raises(Conflict, match="was used by host-1"):
        await enter(token, keys=keys)


async def test_an_expired_token_is_refused(control: Member) -> None:
    with pytest.raises(Forbidden, match=r"expired at .* UTC"):
        await enter(await control.token(seconds=-1.0))
    with pytest.raises(UnknownKey):
        await control.greets("host-1", new_keys())


async def test_a_forged_token_is_refused(control: Member) -> None:
    text = await control.token()
    token, signed, signature = split(text)
    longer = payload(msgspec.structs.replace(token, expires=token.expires + 10**6))
    other, _, _ = split(await control.token())
    borrowed = payload(msgspec.structs.replace(other, keys=token.keys))
    for forged in (f"{longer}.{signature}", f"{signed}.1.{'A' * 43}", f"{signed}.99.x", f"{borrowed}.{signature}"):
        with pytest.raises(Forbidden, match="not made by this cloud, or was changed"):
            await enter(forged)
    begin, own = time.monotonic(), payload(msgspec.structs.replace(token, keys=new_keys()))
    with pytest.raises(Forbidden, match="does not know this token"):
        await enter(f"{own}.{signature}")
    assert time.monotonic() - begin < 5, "a key that is refused is not waited for"
    for junk in ("", "nacre1-", "nacre1-abc.1.x", text[:40], text.partition(".")[0], "x" * 30_000):
        with pytest.raises(BadRequest, match="no join token"):
            await enter(junk)
    assert (await enter(text)).controls, "what others tried did not use it up"


async def test_a_name_or_a_key_that_is_taken_is_refused(control: Member) -> None:
    keys = new_keys()
    await enter(await control.token(), keys=keys)
    second = await control.token()
    with pytest.raises(Conflict, match="has a host called host-1 already: choose another with --name"):
        await enter(second)
    with pytest.raises(Conflict, match="key is that of node host-1"):
        await enter(second, "host-2", keys)
    with pytest.raises(Conflict, match="key is that of control one"):
        await enter(second, "host-2", control.transport.keys)
    for name in ("", "-x", "a/b", "a b", "x" * 256, "host\n"):
        with pytest.raises(BadRequest, match="no name for a host"):
            await enter(second, name)
    assert await enter(second, keys=keys), "the same machine comes back with a new token"
    assert await control.greets("host-1", keys)


async def test_without_a_control_it_says_whom_it_asked(control: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    token, _, signature = split(await control.token())
    [there] = token.controls
    gone = payload(msgspec.structs.replace(token, controls=(
        msgspec.structs.replace(there, address="tcp://127.0.0.1:1"),)))
    monkeypatch.setattr(join_client, "PATIENCE", 0.2)
    with pytest.raises(Unavailable, match=r"answers at tcp://127\.0\.0\.1:1"):
        await enter(f"{gone}.{signature}")


async def asked_of(one: Member, text: str, name: str, keys: KeyPair) -> str:
    """The name if this control takes it, else "refused"."""
    token, _, _ = split(text)
    transport = ZmqTransport(Peer(token.id, "join"), token.keys)
    transport.directory.route("control", "c", one.transport.address, one.transport.public_key)
    try:
        door = stub(Joins, transport.client(TARGET).prepare(server="c", timeout=10))
        await door.join(JoinRequest(token=text, name=name, public_key=keys.public))
    except Conflict as error:
        assert "was used" in error.message
        return "refused"
    finally:
        await transport.close()
    return name


@pytest.mark.postgres
async def test_of_two_machines_with_one_token_one_joins(postgres_tables: str, tmp_path: Path) -> None:
    """Each asks another control. All controls let the host in that was first, and know each other."""
    write_new(tmp_path / "seal")
    seal = str(tmp_path / "seal")
    async with member(tmp_path / "one", postgres_tables, "one", seal) as one, member(
            tmp_path / "two", postgres_tables, "two", seal) as two:
        for turn in range(5):
            text = await one.token()
            token, _, _ = split(text)
            await two.knows(token.keys.public)
            assert {c.id for c in token.controls} == {"one", "two"}, "either may be asked"
            racers = {f"host-{turn}-{n}": new_keys() for n in (0, 1)}
            results = await asyncio.gather(*(
                asked_of(each, text, *racer) for each, racer in zip((one, two), racers.items(), strict=True)))
            assert results.count("refused") == 1, results
            [winner] = set(results) - {"refused"}
            [loser] = racers.keys() - {winner}
            for each in (one, two):
                await each.knows(racers[winner].public)
                assert await each.greets(winner, racers[winner])
                with pytest.raises(UnknownKey):
                    await each.greets(loser, racers[loser])


def test_every_verb_of_a_control_names_who_may_ask() -> None:
    """One that did not would let tokens in."""
    allows = {name: getattr(control_wiring, name) for name in dir(control_wiring) if name.endswith("_ALLOW")}
    assert len(allows) == 4
    assert [verb for allow in allows.values() for verb, roles in allow.items() if "join" in roles] == ["join"]
