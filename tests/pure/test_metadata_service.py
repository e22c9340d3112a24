"""Who a metadata request is from, and what a rude client gets: over real sockets on the loopback."""

import asyncio
import json

import pytest

from nacre.base.clock import VirtualClock
from nacre.base.errors import NotFound, Unavailable
from nacre.network.contract import FixedIp, PortFacts
from nacre.node.contract import GuestFacts
from nacre.node.metadata import Metadata, MetadataLimits


def port(number, network="n1", **more):
    return PortFacts(**{"id": f"p{number}", "name": "", "project_id": "p", "network_id": network, "network_name": "",
                        "device_id": f"server{number}", "mac_address": f"fa:16:3e:00:00:{number:02x}",
                        "fixed_ips": (FixedIp(subnet_id="s", ip_address=f"10.0.0.{number}"),)} | more)


class Conductor:
    def __init__(self):
        self.asked, self.error = [], None

    async def facts(self, server_id):
        self.asked.append(server_id)
        if self.error:
            raise self.error
        return GuestFacts(id=server_id, name=server_id, hostname=server_id, project_id="p", user_id="u",
                          availability_zone="nova")


@pytest.fixture
def conductor():
    return Conductor()


async def test_by_network_and_address_only(conductor):
    service = Metadata(conductor.facts)
    service.know([port(5), port(6, "n2", fixed_ips=port(5).fixed_ips)], [])
    for network, uuid in (("n1", "server5"), ("n2", "server6")):
        status, body, _ = await service.answer(network, "10.0.0.5", "GET", "/openstack/latest/meta_data.json")
        assert status == 200 and json.loads(body)["uuid"] == uuid
    assert (await service.answer("n1", "10.0.0.6", "GET", "/openstack"))[0] == 404
    assert (await service.answer("n3", "10.0.0.5", "GET", "/openstack"))[0] == 404
    assert (await service.answer("n1", "fe80::f816:3eff:fe00:5", "GET", "/openstack"))[0] == 200
    assert (await service.answer("n1", "10.0.0.5", "POST", "/openstack/latest/password"))[0] == 405
    service.know([], [])
    assert (await service.answer("n1", "10.0.0.5", "GET", "/openstack"))[0] == 404


async def test_trees_and_listings(conductor):
    service = Metadata(conductor.facts)
    service.know([port(5)], [])
    for target in ("/openstack", "/openstack/", "//openstack//", "/openstack?x=1"):
        status, body, _ = await service.answer("n1", "10.0.0.5", "GET", target)
        assert status == 200 and body.endswith(b"latest")
    assert b"2009-04-04" in (await service.answer("n1", "10.0.0.5", "GET", "/"))[1]
    assert (await service.answer("n1", "10.0.0.5", "GET", "/openstack/latest/user_data"))[0] == 404
    assert (await service.answer("n1", "10.0.0.5", "GET", "/../../etc/passwd"))[0] == 404


async def test_facts_are_kept_for_a_moment(conductor):
    clock = VirtualClock()
    service = Metadata(conductor.facts, clock=clock)
    service.know([port(5)], [])
    for _ in range(3):
        await service.answer("n1", "10.0.0.5", "GET", "/openstack")
    assert conductor.asked == ["server5"]
    await clock.advance(6)
    conductor.error = NotFound()
    assert (await service.answer("n1", "10.0.0.5", "GET", "/openstack"))[0] == 404


class Loopback:
    """The service's connection handling on 127.0.0.1."""

    def __init__(self, service):
        self.service = service

    async def __aenter__(self):
        self.server = await asyncio.start_server(
            lambda r, w: self.service._connection("n1", r, w), "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def say(self, data, patience=5):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        try:
            async with asyncio.timeout(patience):
                return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


@pytest.fixture
def service(conductor):
    made = Metadata(conductor.facts, limits=MetadataLimits(seconds=0.5, per_guest=4, head=4096))
    made.know([port(5, fixed_ips=(FixedIp(subnet_id="s", ip_address="127.0.0.1"),)), port(6)], [])
    return made


async def test_headers_are_never_believed(service):
    async with Loopback(service) as wire:
        said = await wire.say(b"GET /openstack/latest/meta_data.json HTTP/1.1\r\nHost: x\r\n"
                              b"X-Forwarded-For: 10.0.0.6\r\n"
                              b"X-Instance-ID: server6\r\nX-Tenant-ID: p\r\nX-Instance-ID-Signature: 00\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200") and b'"uuid":"server5"' in said and b"server6" not in said


@pytest.mark.parametrize(("data", "start"), [
    (b"HEAD /openstack HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200"),
    (b"NONSENSE\r\n\r\n", b"HTTP/1.1 400"),
    (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n", b"HTTP/1.1 431"),
    (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", b"HTTP/1.1 405"),
    (b"GET /openstack HTTP/1.1\r\nHost: x\r\n", b""),
    (b"\x16\x03\x01\x00", b"HTTP/1.1 400"),
])
async def test_rude_requests(service, data, start):
    async with Loopback(service) as wire:
        said = await wire.say(data)
        assert said.startswith(start) and (start or said == b"")
        assert (await wire.say(b"GET /openstack HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_slow_guests_only_hurt_themselves(service):
    async with Loopback(service) as wire:
        lazy = [await asyncio.open_connection("127.0.0.1", wire.port) for _ in range(4)]
        await asyncio.sleep(0.05)
        assert await wire.say(b"GET /openstack HTTP/1.1\r\nHost: x\r\n\r\n") == b""  # the fifth of this guest
        await asyncio.sleep(0.7)
        assert (await wire.say(b"GET /openstack HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for _, writer in lazy:
            writer.close()
    assert not service._busy


async def test_a_silent_conductor_is_503(service, conductor):
    conductor.error = Unavailable()
    async with Loopback(service) as wire:
        assert (await wire.say(b"GET /openstack HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 503")


