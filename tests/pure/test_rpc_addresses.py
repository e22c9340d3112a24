"""Where RPC answers, by what the options say, and how others are told to find it."""

import asyncio
from pathlib import Path

import pytest

from nacre.base.errors import BadRequest, Unavailable
from nacre.base.rpc.addresses import NoAddress, checked, endpoint, host_of, machine_addresses, outward, reachable
from nacre.base.rpc.keys import new_keys
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.base.rpc.zmq import ZmqTransport
from nacre.conductor.contract import TARGET, Conductor
from nacre.config import load


@pytest.mark.parametrize(("environ", "host", "port"), [
    ({}, "127.0.0.1", 0),
    ({"NACRE_HOST": "localhost", "NACRE_PORT": "9000"}, "127.0.0.1", 0),
    ({"NACRE_HOST": "192.0.2.7"}, "192.0.2.7", 8775),
    ({"NACRE_HOST": "0.0.0.0", "NACRE_PORT": "9000"}, "0.0.0.0", 9001),
    ({"NACRE_HOST": "0.0.0.0", "NACRE_RPC_LISTEN": "127.0.0.1"}, "127.0.0.1", 0),
    ({"NACRE_RPC_LISTEN": "192.0.2.7", "NACRE_RPC_PORT": "7000"}, "192.0.2.7", 7000),
])
def test_rpc_answers_where_the_apis_do_on_a_port_that_stays(
        tmp_path: Path, environ: dict[str, str], host: str, port: int) -> None:
    settings = load(tmp_path, environ=environ)
    assert (settings.rpc_host, settings.rpc_port) == (host, port)


def test_endpoints() -> None:
    assert endpoint("192.0.2.7", 8775) == "tcp://192.0.2.7:8775"
    assert endpoint("2001:db8::7", 8775) == "tcp://[2001:db8::7]:8775"
    assert endpoint("localhost", 1) in ("tcp://127.0.0.1:1", "tcp://[::1]:1")
    assert [host_of(endpoint(h, 1)) for h in ("192.0.2.7", "2001:db8::7")] == ["192.0.2.7", "2001:db8::7"]
    with pytest.raises(NoAddress, match=r"no\.\.name"):
        endpoint("no..name", 1)


def test_others_are_told_an_address_that_they_can_reach() -> None:
    assert reachable("tcp://192.0.2.7:8775") == "tcp://192.0.2.7:8775"
    assert reachable("tcp://10.0.0.7:8775", "cloud.example.org") == "tcp://cloud.example.org:8775"
    assert outward("127.0.0.1") == "127.0.0.1"
    if others := [a for a in machine_addresses() if "." in a and not a.startswith("127.")]:
        assert host_of(reachable("tcp://0.0.0.0:8775")) in others


@pytest.mark.parametrize("place", ["tcp://192.0.2.7:8776", "tcp://127.0.0.1:1", "tcp://[2001:db8::7]:65535"])
def test_what_a_host_says_of_its_place_is_kept(place: str) -> None:
    assert checked(place) == place


@pytest.mark.parametrize("place", [
    "nonsense", "", "ipc:///run/x", "tcp://host.example.org:8776", "tcp://192.0.2.7", "tcp://192.0.2.7:0",
    "tcp://192.0.2.7:65536", "tcp://192.0.2.7:1\n", "tcp://0.0.0.0:1", "tcp://224.0.0.1:1", "tcp://[::]:1",
    "tcp://999.0.0.1:1", "tcp://[192.0.2.7]:1", "tcp://2001:db8::7:1", "tcp://eth0;192.0.2.7:1", "tcp://*:1",
    "tcp://169.254.169.254:80", "tcp://240.0.0.1:1", "tcp://255.255.255.255:1", "tcp://0.0.0.1:1",
    "tcp://[::ffff:0.0.0.0]:1", "tcp://[::ffff:169.254.169.254]:1", "tcp://[fe80::1]:1", "tcp://[ff02::1]:1"])
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(BadRequest, match="no place where a process answers"):
        checked(place)


@pytest.mark.parametrize("place", ["tcp://127.0.0.1:22", "tcp://[::1]:22", "tcp://[::ffff:127.0.0.1]:22"])
def test_in_a_cloud_of_several_machines_no_host_is_at_the_loopback(place: str) -> None:
    assert checked(place) == place
    with pytest.raises(BadRequest, match="of another machine"):
        checked(place, near=False)


async def test_a_way_that_leads_nowhere_is_an_answer_and_no_breakdown() -> None:
    client = ZmqTransport(Peer("one", "node"), new_keys())
    try:
        for server, where in (("a", ("nonsense", new_keys().public)), ("b", ("tcp://127.0.0.1:1", "short"))):
            client.directory.route("control", server, *where)
            with pytest.raises(Unavailable, match="Nobody can be asked"):
                await stub(Conductor, client.client(TARGET).prepare(server=server, timeout=1)).guest_facts("h", "s")
    finally:
        await client.close()


async def test_over_ipv6_too() -> None:
    server = ZmqTransport(Peer("control", "control"), new_keys(), endpoint("::1", 0))
    try:
        await server.start()
    except Unavailable as error:  # no IPv6 here
        pytest.skip(str(error))
    client = ZmqTransport(Peer("host-1", "node"), new_keys())
    server.directory.register(client.public_key, client.me)
    client.directory.route("control", "control", server.address, server.public_key)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable, match="Nobody answers conductor"):
                await stub(Conductor, client.client(TARGET)).guest_facts("host-1", "s")
    finally:
        await client.close()
        await server.close()
