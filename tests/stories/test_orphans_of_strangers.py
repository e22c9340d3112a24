"""A host whose root is an enemy describes guests: of others' servers, ports and networks that changes nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import sqlalchemy as sa
from tests.stories.test_orphans import ADOPT, FORGET, act, made, orphans
from tests.stories.whole_cloud import WholeCloud, whole_cloud

from nacre.base.rpc.memory import MemoryTransport
from nacre.base.rpc.server import Peer
from nacre.compute.allocations import FOLLOWED, LEAP
from nacre.compute.tables import allocations, servers
from nacre.conductor.contract import Beat, NodeHello
from nacre.network.contract import AddressPair, AgentReport, FixedIp, NetworkFacts, PortFacts, SubnetFacts
from nacre.node.contract import TARGET, BuildOrder, GuestFacts, Orphan
from nacre.scheduler.contract import Held, HostReport


class Stranger:
    """A joined host that says what it likes. says: its answer, whatever it is asked for; flat: a physical network
    that it has."""

    def __init__(self, cloud: WholeCloud, name: str, flat: str = ""):
        self.cloud, self.name, self.says, self._n = cloud, name, tuple[Orphan, ...](), 0
        self.bridges = {flat: "br"} if flat else {}
        hub = cloud.control.base.transport.hub  # type: ignore[attr-defined]
        self.transport = MemoryTransport(hub, me=Peer(name, "node"))
        self.transport.serve(TARGET, self, _Describes, ("control",))

    async def describe(self, allocations: tuple[str, ...]) -> tuple[Orphan, ...]:
        return self.says

    async def claims(self, *held: Held, says: tuple[Orphan, ...]) -> None:
        self.says, self._n = says, self._n + 1
        report = HostReport(host=self.name, incarnation=1, n=self._n, hypervisor_type="QEMU", hypervisor_version=8,
                            vcpus=16, memory_mb=65536, disk_gb=1000, vcpus_used=0, memory_mb_used=0, disk_gb_used=0.0,
                            held=held)
        agent = AgentReport(host=self.name, tunnel_ip=f"192.0.2.{ord(self.name[-1])}", bridge_mappings=self.bridges,
                            tunnel_types=("vxlan",))
        await self.cloud.control.conductor.hello(NodeHello(
            endpoint="", public_key="", journal="j", cloud="", position=0, beat=Beat(report=report, agent=agent)))


class AlwaysStands:
    """A word that is never used up."""

    def check(self, connection: sa.Connection) -> None: ...


class _Describes:
    async def describe(self, allocations: tuple[str, ...]) -> tuple[Orphan, ...]:
        raise NotImplementedError


@pytest.fixture
async def cloud(tmp_path: Path, story_url: str) -> AsyncIterator[WholeCloud]:
    async with whole_cloud(tmp_path, story_url) as made:
        yield made


async def project(cloud: WholeCloud) -> str:
    answer = await cloud.http.post("/identity/v3/projects", json={"project": {"name": "mallory"}},
                                   headers={"X-Auth-Token": await cloud.token("admin")})
    return str(answer.json()["project"]["id"])


def guest(owner: str, *ports: PortFacts, networks: tuple[NetworkFacts, ...] = ()) -> Orphan:
    server, allocation = str(uuid4()), str(uuid4())
    return Orphan(allocation=allocation, server_id=server, power="running", epoch=1, stage="running", ports=tuple(
        msgspec.structs.replace(port, device_id=server) for port in ports), networks=networks, order=BuildOrder(
            cloud="", allocation=allocation, server_id=server, epoch=1, memory_mb=64, vcpus=1, root_gb=0,
            ephemeral_gb=0, swap_mb=0, limit_vcpus=1, limit_memory_mb=1, limit_disk_mb=1, image=None,
            guest=GuestFacts(id=server, name="harmless", hostname="h", project_id=owner, user_id="u",
                             availability_zone="nova", flavor_name="m1.nano")))


def held(found: Orphan) -> Held:
    return Held(allocation=found.allocation, server_id=found.server_id, epoch=1, power="running")


def port_of(network: str, id: str = "", **more: Any) -> PortFacts:
    return PortFacts(**{
        "id": id or str(uuid4()), "name": "p", "project_id": "", "network_id": network, "network_name": "n",
        "device_id": "", "mac_address": "fa:16:3e:00:00:01", "fixed_ips": (), **more})


async def test_a_host_gets_no_port_and_no_network_of_another_project(cloud: WholeCloud) -> None:
    victim, evil, mallory = await made(cloud), Stranger(cloud, "evil"), await project(cloud)
    ports = (await cloud.ask("demo", "GET", "network", f"/ports?device_id={victim['id']}")).json()["ports"]
    net = ports[0]["network_id"]
    spare = (await cloud.ask("demo", "POST", "network", "/ports", {"port": {"network_id": net}})).json()["port"]
    before = (await cloud.ask("admin", "GET", "network", "/ports")).json()
    elsewhere = NetworkFacts(id=str(uuid4()), name="new", project_id=mallory, mtu=1450, network_type="vxlan",
                             physical_network=None, segmentation_id=77)
    for wrong in (port_of(net, spare["id"]), port_of(net, port_security=False), port_of(elsewhere.id, spare["id"])):
        found = guest(mallory, wrong, networks=(elsewhere,))
        await evil.claims(held(found), says=(found,))
        status, said = await act(cloud, found.server_id, ADOPT)
        assert status == 409 and "project" in said["conflictingRequest"]["message"]
    assert (await cloud.ask("admin", "GET", "network", "/ports")).json() == before
    assert (await cloud.ask("admin", "GET", "network", f"/networks/{elsewhere.id}")).status_code == 404


async def test_a_host_makes_no_network_for_a_project_that_the_operator_did_not_name(cloud: WholeCloud) -> None:
    victim, evil, mallory = await made(cloud), Stranger(cloud, "evil"), await project(cloud)
    demo = (await cloud.ask("demo", "GET", "compute", f"/servers/{victim['id']}")).json()["server"]["tenant_id"]
    gone = NetworkFacts(id=str(uuid4()), name="new", project_id=demo, mtu=1450, network_type="vxlan",
                        physical_network=None, segmentation_id=77)
    found = guest(mallory, port_of(gone.id), networks=(gone,))
    await evil.claims(held(found), says=(found,))
    status, said = await act(cloud, found.server_id, ADOPT)
    assert status == 409 and f"was project {demo}'s" in said["conflictingRequest"]["message"]
    assert (await cloud.ask("admin", "GET", "network", f"/networks/{gone.id}")).status_code == 404
    own = guest(mallory, port_of(gone.id), networks=(msgspec.structs.replace(gone, project_id=mallory),))
    await evil.claims(held(own), says=(own,))
    assert (await act(cloud, own.server_id, ADOPT))[0] == 200
    made_again = (await cloud.ask("admin", "GET", "network", f"/networks/{gone.id}")).json()["network"]
    assert made_again["project_id"] == mallory


async def test_a_host_makes_no_network_on_a_wire_that_the_operator_did_not_name(cloud: WholeCloud) -> None:
    evil, mallory = Stranger(cloud, "evil", flat="physnet-of-operator"), await project(cloud)
    flat = NetworkFacts(id=str(uuid4()), name="f", project_id=mallory, mtu=1500, network_type="flat",
                        physical_network="physnet-of-operator", segmentation_id=None)
    found = guest(mallory, port_of(flat.id), networks=(flat,))
    await evil.claims(held(found), says=(found,))
    for body in (ADOPT, {"adopt": {"segments": ["flat:another", "vlan:physnet-of-operator:1"]}}):
        status, said = await act(cloud, found.server_id, body)
        assert status == 409 and "flat:physnet-of-operator" in said["conflictingRequest"]["message"]
    assert (await cloud.ask("admin", "GET", "network", f"/networks/{flat.id}")).status_code == 404
    status, said = await act(cloud, found.server_id, {"adopt": {"segments": ["flat:physnet-of-operator"]}})
    assert status == 200, said
    assert (await cloud.ask("admin", "GET", "network", f"/networks/{flat.id}")).json()["network"][
        "provider:physical_network"] == "physnet-of-operator"


async def test_what_a_host_makes_is_of_its_guest_and_within_the_quota(cloud: WholeCloud) -> None:
    evil, mallory = Stranger(cloud, "evil"), await project(cloud)
    subnets = tuple(SubnetFacts(id=str(uuid4()), cidr=f"10.{n}.0.0/24", ip_version=4, gateway_ip=None,
                                enable_dhcp=False) for n in range(2))
    new = [NetworkFacts(id=str(uuid4()), name="n", project_id=mallory, mtu=1450, network_type="vxlan",
                        physical_network=None, segmentation_id=None, subnets=subnets if n else ()) for n in range(2)]
    beside = guest(mallory, port_of(new[0].id), networks=tuple(new))
    await evil.claims(held(beside), says=(beside,))
    status, said = await act(cloud, beside.server_id, ADOPT)
    assert status == 400 and f"no port of the guest is on network {new[1].id}" in said["badRequest"]["message"]
    both = guest(mallory, *(port_of(n.id, mac_address=f"fa:16:3e:00:00:0{i}") for i, n in enumerate(new)),
                 networks=tuple(new))
    await evil.claims(held(both), says=(both,))
    for resource in ("network", "subnet", "port"):
        await quota(cloud, mallory, resource, 1)
        status, said = await act(cloud, both.server_id, ADOPT)
        assert status == 403 and f"'{resource}'" in said["forbidden"]["message"], said
        await quota(cloud, mallory, resource, 2)
    assert (await act(cloud, both.server_id, ADOPT))[0] == 200


async def quota(cloud: WholeCloud, of: str, resource: str, limit: int) -> None:
    answer = await cloud.ask("admin", "PUT", "network", f"/quotas/{of}", {"quota": {resource: limit}})
    assert answer.status_code == 200, answer.text


async def test_of_a_network_that_is_there_only_its_owner_says_what_counts(cloud: WholeCloud) -> None:
    victim, evil, mallory = await made(cloud), Stranger(cloud, "evil"), await project(cloud)
    server = (await cloud.ask("demo", "GET", "network", f"/ports?device_id={victim['id']}")).json()["ports"][0]
    net, group = server["network_id"], server["security_groups"][0]
    await share(cloud, net, mallory)
    subnets = (await cloud.ask("admin", "GET", "network", f"/subnets?network_id={net}")).json()
    loose = port_of(net, port_security=False, security_groups=(group,), allowed_pairs=(AddressPair(
        ip_address="0.0.0.0/1"),))
    more = SubnetFacts(id=str(uuid4()), cidr="10.66.0.0/24", ip_version=4, gateway_ip="10.66.0.1",
                       dns_nameservers=("10.66.0.2",), enable_dhcp=True)
    found = guest(mallory, loose, networks=(NetworkFacts(
        id=net, name="n", project_id=mallory, mtu=1450, network_type="flat", physical_network="physnet1",
        segmentation_id=None, subnets=(more,)),))
    await evil.claims(held(found), says=(found,))
    [seen] = await orphans(cloud)
    assert seen["networks"][0]["project_id"] == mallory and seen["networks"][0]["network_type"] == "flat"
    assert seen["ports"][0]["port_security_enabled"] is False and "project_id" in seen["ports"][0]
    status, said = await act(cloud, found.server_id, {"adopt": {"addresses": [loose.mac_address]}})
    assert status == 200 and said["adopted"]["lost_security_groups"] == [group]
    port = (await cloud.ask("admin", "GET", "network", f"/ports/{loose.id}")).json()["port"]
    assert port["port_security_enabled"] and port["allowed_address_pairs"] == []
    assert port["security_groups"] and group not in port["security_groups"]
    assert (await cloud.ask("admin", "GET", "network", f"/subnets?network_id={net}")).json() == subnets


async def share(cloud: WholeCloud, network: str, project: str) -> None:
    shared = await cloud.ask("admin", "POST", "network", "/rbac-policies", {"rbac_policy": {
        "object_type": "network", "object_id": network, "action": "access_as_shared", "target_tenant": project}})
    assert shared.status_code == 201


@pytest.mark.parametrize("whose", ["mallory", "*"])
async def test_on_a_network_that_is_shared_a_guest_keeps_only_addresses_that_the_operator_named(
        cloud: WholeCloud, whose: str) -> None:
    """A member of the project gets there what the cloud chooses, as `POST /ports` says."""
    victim, evil, mallory = await made(cloud), Stranger(cloud, "evil"), await project(cloud)
    [own] = (await cloud.ask("demo", "GET", "network", f"/ports?device_id={victim['id']}")).json()["ports"]
    net = own["network_id"]
    [subnet] = (await cloud.ask("demo", "GET", "network", f"/subnets?network_id={net}")).json()["subnets"]
    await share(cloud, net, whose if whose == "*" else mallory)
    gateway, mac = subnet["gateway_ip"], "fa:16:3e:0a:0b:0c"
    port = port_of(net, mac_address=mac, fixed_ips=(FixedIp(subnet_id=subnet["id"], ip_address=gateway),))
    found = guest(mallory, port)
    await evil.claims(held(found), says=(found,))
    before = (await cloud.ask("admin", "GET", "network", "/ports")).json()
    for named in ([], [mac], [gateway], [mac, "10.9.0.77"]):
        status, said = await act(cloud, found.server_id, {"adopt": {"addresses": named}})
        message = said["conflictingRequest"]["message"]
        assert status == 409 and f"{gateway} (its subnet's gateway)" in message, said
        assert all((f"--address {each}" in message) is (each not in named) for each in (mac, gateway)), message
    assert (await cloud.ask("admin", "GET", "network", "/ports")).json() == before
    status, said = await act(cloud, found.server_id, {"adopt": {"addresses": [mac.upper(), gateway]}})
    assert status == 200, said
    assert said["adopted"]["ports"] == [{
        "id": port.id, "network_id": net, "mac_address": mac, "addresses": [gateway]}]


async def test_an_operator_who_adopts_is_no_administrator_for_what_a_host_says(
        tmp_path: Path, story_url: str) -> None:
    """Whoever asks for the adoption, the addresses are those that a member might choose."""
    (tmp_path / "policy.yaml").write_text(
        '"create_port:fixed_ips:ip_address": "is_admin:True or project_id:%(network:project_id)s"\n')
    async with whole_cloud(tmp_path, story_url) as cloud:
        victim, evil, mallory = await made(cloud), Stranger(cloud, "evil"), await project(cloud)
        [own] = (await cloud.ask("demo", "GET", "network", f"/ports?device_id={victim['id']}")).json()["ports"]
        await share(cloud, own["network_id"], mallory)
        found = guest(mallory, port_of(own["network_id"], fixed_ips=(FixedIp(
            subnet_id=own["fixed_ips"][0]["subnet_id"], ip_address="10.9.0.99"),)))
        await evil.claims(held(found), says=(found,))
        status, said = await act(cloud, found.server_id, {"adopt": {"addresses": [found.ports[0].mac_address]}})
        assert status == 409 and "--address 10.9.0.99" in said["conflictingRequest"]["message"], said


async def test_addresses_need_not_be_named_where_the_project_may_choose_them(cloud: WholeCloud) -> None:
    victim, evil = await made(cloud), Stranger(cloud, "evil")
    [other] = (await cloud.ask("demo", "GET", "network", f"/ports?device_id={victim['id']}")).json()["ports"]
    [fixed] = other["fixed_ips"]
    for address, right in ((fixed["ip_address"], 409), ("10.9.0.99", 200)):
        found = guest(victim["tenant_id"], port_of(other["network_id"], fixed_ips=(FixedIp(
            subnet_id=fixed["subnet_id"], ip_address=address),)))
        await evil.claims(held(found), says=(found,))
        status, said = await act(cloud, found.server_id, ADOPT)
        assert status == right, said


async def test_a_host_that_describes_another_guest_than_it_was_asked_for_is_not_believed(cloud: WholeCloud) -> None:
    victim, evil, mallory = await made(cloud), Stranger(cloud, "evil"), await project(cloud)
    asked = guest(mallory)
    for says in (msgspec.structs.replace(asked, server_id=victim["id"]),
                 msgspec.structs.replace(asked, allocation=str(uuid4()), server_id=victim["id"])):
        await evil.claims(held(asked), says=(says,))
        assert await orphans(cloud) == []
        for body in (FORGET, ADOPT):
            assert (await act(cloud, asked.server_id, body))[0] == 404
    assert await places(cloud, victim["id"]) == ["vm"]


async def test_a_guest_of_a_server_that_lives_on_another_host_is_forgotten_only_by_its_hosts_name(
        cloud: WholeCloud) -> None:
    victim, evil = await made(cloud), Stranger(cloud, "evil")
    false = Orphan(allocation=str(uuid4()), server_id=victim["id"], power="running", order=None, epoch=1)
    await evil.claims(held(false), says=(false,))
    status, said = await act(cloud, false.allocation, FORGET)
    assert status == 409 and "lives on host vm" in said["conflictingRequest"]["message"]
    assert await places(cloud, victim["id"]) == ["vm"]
    assert (await act(cloud, false.allocation, {"forget": {"host": "evil"}}))[0] == 202
    assert await places(cloud, victim["id"]) == ["evil", "vm"]


async def test_a_guest_that_two_hosts_have_is_named_with_its_host(cloud: WholeCloud) -> None:
    found = guest(await project(cloud))
    for name in ("evil", "honest"):
        await Stranger(cloud, name).claims(held(found), says=(found,))
    for body in (ADOPT, FORGET):
        status, said = await act(cloud, found.allocation, body)
        assert status == 409 and "on honest" in said["conflictingRequest"]["message"]
    assert (await act(cloud, found.allocation, {"adopt": {"host": "nobody"}}))[0] == 404
    status, said = await act(cloud, found.allocation, {"adopt": {"host": "honest"}})
    assert status == 200 and said["adopted"]["server"]["host"] == "honest"


async def places(cloud: WholeCloud, server: str) -> list[str]:
    """The hosts where the server has an allocation."""
    return sorted(await cloud.control.db.read(lambda c: c.execute(sa.select(allocations.c.host).where(
        allocations.c.server_id == server)).scalars().all()))


async def test_an_accepted_host_catches_up_with_its_own_servers_only_and_by_no_leap(cloud: WholeCloud) -> None:
    victim, evil = await made(cloud), Stranger(cloud, "evil")
    ledger = cloud.control.base.ledger

    async def epoch() -> int:
        return int(await cloud.control.db.read(lambda c: c.execute(sa.select(servers.c.epoch).where(
            servers.c.id == victim["id"])).scalar_one()))

    def says(seen: int) -> tuple[Held, ...]:
        return (Held(allocation=str(uuid4()), server_id=victim["id"], epoch=seen, power="running"),)

    before = await epoch()
    await evil.claims(*says(before + 50), says=())
    state = await cloud.control.registry.get("evil")
    assert state is not None and not state.barred  # what it says of a server on another host proves nothing
    async def catch_up(host: str, held: tuple[Held, ...]) -> None:
        await ledger.catch_up(host, held, AlwaysStands())

    await catch_up("evil", says(before + 50))
    assert await epoch() == before
    await catch_up("vm", says(1 << 30))
    assert await epoch() == before
    await catch_up("vm", says(before + 50))
    assert await epoch() == before + 50
    await catch_up("vm", says(before + 1))
    assert await epoch() == before + 50
    await cloud.control.db.run(lambda c: c.execute(sa.insert(allocations).values(
        id=str(uuid4()), server_id=victim["id"], host="evil", epoch=1, purpose="build", state="ending", memory_mb=1,
        vcpus=1, disk_mb=1, created_at=sa.func.current_timestamp())))  # a failed attempt that it does not confirm
    await catch_up("evil", says(before + 60))
    assert await epoch() == before + 50
    assert (await ledger.audit("evil", says(before + 60))).later == ()
    assert (await ledger.audit("vm", says(before + 60))).later != ()


async def test_no_number_of_hellos_uses_up_the_epochs_of_a_server(cloud: WholeCloud) -> None:
    """Beyond their bound nothing that its host says would be heard. The thousands of hellos between the first ones and
    those that come close to the bound are left out: each is believed as those before it are."""
    victim, ledger, rounds = await made(cloud), cloud.control.base.ledger, 4
    of_victim = servers.c.id == victim["id"]

    async def hello(seen: int) -> int:
        await ledger.catch_up("vm", (Held(
            allocation=str(uuid4()), server_id=victim["id"], epoch=seen),), AlwaysStands())
        return int(await cloud.control.db.read(lambda c: c.execute(sa.select(servers.c.epoch).where(
            of_victim)).scalar_one()))

    for begin in (1, FOLLOWED - rounds * LEAP + LEAP // 2):
        await cloud.control.db.run(lambda c, begin=begin: c.execute(  # type: ignore[misc]
            sa.update(servers).where(of_victim).values(epoch=begin)))
        for n in range(1, 2 * rounds):
            for seen in (1 << 30, FOLLOWED + 1, FOLLOWED, begin + n * LEAP):
                epoch = await hello(seen)
                assert epoch <= min(begin + n * LEAP, FOLLOWED)
        assert epoch > min(begin + 2 * (rounds - 1) * LEAP, FOLLOWED - LEAP)
    assert await hello(FOLLOWED) == FOLLOWED == (1 << 30) // 2
    for seen in (1 << 30, FOLLOWED + 1, FOLLOWED + LEAP):
        assert await hello(seen) == FOLLOWED


NETWORK, SUBNET = str(uuid4()), str(uuid4())


def lost(owner: str, *, subnet: dict[str, Any] | None = None, port: dict[str, Any] | None = None,
         **network: Any) -> Orphan:
    """A guest on a network that is gone, as its host remembers it."""
    there = SubnetFacts(**{"id": SUBNET, "cidr": "10.77.0.0/24", "ip_version": 4, "gateway_ip": "10.77.0.1",
                           "enable_dhcp": True, "dhcp_ip": "10.77.0.2"} | (subnet or {}))
    facts = NetworkFacts(**{"id": NETWORK, "name": "gone", "project_id": owner, "mtu": 1450, "network_type": "vxlan",
                            "physical_network": None, "segmentation_id": 4242, "subnets": (there,),
                            "dhcp_mac": "fa:16:3e:99:99:99"} | network)
    plug = {"mac_address": "fa:16:3e:00:00:77", "fixed_ips": (FixedIp(subnet_id=there.id, ip_address="10.77.0.9"),)}
    return guest(owner, port_of(facts.id, **plug | (port or {})), networks=(facts,))


async def test_what_no_client_could_say_of_a_network_no_host_says(cloud: WholeCloud) -> None:
    victim, evil = await made(cloud), Stranger(cloud, "evil")
    before = [(await cloud.ask("admin", "GET", "network", f"/{what}")).json() for what in ("networks", "subnets")]
    owner = victim["tenant_id"]
    for field, found in {
            "UUID": lost(owner, subnet={"id": "s\ndhcp-script=/bin/evil"}),
            "id: ": lost(owner, id="../../../../tmp/pwned"),
            "mac_address": lost(owner, port={"mac_address": "garbage"}),
            "MAC": lost(owner, port={"mac_address": "0/0\ntable=11,priority=65535,actions=NORMAL"}),
            "dhcp_mac": lost(owner, dhcp_mac="x,actions=NORMAL"), "cidr": lost(owner, subnet={"cidr": "10.0.0.0\n/8"}),
            "network_type": lost(owner, network_type="gre"), "mtu": lost(owner, mtu=-1),
            "name": lost(owner, name="n" * 256),
            "dns_nameservers": lost(owner, subnet={"dns_nameservers": ("fe80::1%a\nb",)}),
            "host_routes": lost(owner, subnet={"host_routes": (("10.0.0.0/8", "x"),)}),
            "gateway_ip": lost(owner, subnet={"gateway_ip": "2001:db8::1"}),
            "dhcp_ip": lost(owner, subnet={"dhcp_ip": "10.78.0.2"}), "dns_domain": lost(owner, dns_domain="a\nb"),
            "segmentation_id": lost(owner, segmentation_id=1 << 24), "port's id": lost(owner, port={"id": "../x"}),
            "dhcp_options": lost(owner, port={"dhcp_options": (("6", "a\nb", 4),)}),
            "allowed_pairs": lost(owner, port={"allowed_pairs": (AddressPair(ip_address="all"),)})}.items():
        await evil.claims(held(found), says=(found,))
        status, said = await act(cloud, found.server_id, ADOPT)
        assert status == 400, (field, said)
        assert field.removeprefix("port's ") in said["badRequest"]["message"], said
    assert before == [(await cloud.ask("admin", "GET", "network", f"/{what}")).json()
                      for what in ("networks", "subnets")]
    found = lost(owner)
    await evil.claims(held(found), says=(found,))
    assert (await act(cloud, found.server_id, ADOPT))[0] == 200


async def test_what_no_flavor_has_no_host_says_of_a_server(cloud: WholeCloud) -> None:
    victim, evil = await made(cloud), Stranger(cloud, "evil")

    async def used() -> dict[str, int]:
        limits = (await cloud.ask("demo", "GET", "compute", "/limits")).json()["limits"]["absolute"]
        return {name: value for name, value in limits.items() if name.startswith("total")}

    before, good = await used(), guest(victim["tenant_id"])
    assert good.order is not None
    for field, order in (
            ("memory_mb", {"memory_mb": -10**8}), ("vcpus", {"vcpus": -10**5}), ("vcpus", {"vcpus": 0}),
            ("root_gb", {"root_gb": -1}), ("swap_mb", {"swap_mb": 1 << 40}), ("disk_shares", {"disk_shares": -1}),
            ("net_bandwidth", {"net_bandwidth": -1}), ("another guest", {"server_id": victim["id"]}),
            ("name", {"guest": msgspec.structs.replace(good.order.guest, name="n\x1b")}),
            ("hostname", {"guest": msgspec.structs.replace(good.order.guest, hostname="a b")}),
            ("isoformat", {"guest": msgspec.structs.replace(good.order.guest, created_at="yesterday")}),
            ("bytes", {"extra_specs": {str(n): "x" * 1000 for n in range(1100)}})):
        found = msgspec.structs.replace(good, order=msgspec.structs.replace(good.order, **order))
        await evil.claims(held(found), says=(found,))
        [seen] = await orphans(cloud)
        assert not seen["adoptable"] and field in seen["why_not"] and seen["memory_mb"] is None
        status, said = await act(cloud, found.server_id, ADOPT)
        assert status == 409 and field in said["conflictingRequest"]["message"]
    assert await used() == before
    assert (await act(cloud, good.server_id, FORGET))[0] == 202 and await used() == before
