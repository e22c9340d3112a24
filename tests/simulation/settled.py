"""What must be true once nothing is wrong any more and all had their time: BADINPUTS' invariants, by counting."""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from nacre.base.durable.tables import stories
from nacre.compute import quota_usage
from nacre.compute.tables import allocations, servers
from nacre.network import tables as net
from nacre.network.contract import PlacedPort
from nacre.node.ovs.client import WiringClient

if TYPE_CHECKING:
    from tests.simulation.workload import Users
    from tests.simulation.world import World

#: The guest's power that a server's state stands for.
POWER = {"active": "running", "stopped": "shutdown"}
#: Why a server may be in ERROR: what the seed did to its hosts, or to its guest; no room. (What was not expected is
#: blamed where it is logged.)
CAUSES = ("a fault was asked for", " hosts fit: ", "stopped answering", "not yet taken back",
          "cannot write its journal", "cannot write to its disk")
#: What a build that ran out of hosts says before the reasons of each that was tried.
_TRIED = re.compile(r"No valid host was found\. \d+ tried: ")


def problems(world: "World", users: "Users") -> list[str]:
    """What is not as it should be. Empty: all is well."""
    with world.db.engine.connect() as connection:
        facts = Facts(connection)
    return [*facts.unfinished(), *facts.rooms(), *_users(facts, users), *facts.addresses(users), *_hosts(world, facts),
            *_schedulers(world, facts)]


def caused(why: str) -> bool:
    """Whether the seed is to blame for what a server's fault says: for each reason, of the hosts that were tried."""
    tried = _TRIED.match(why)
    return all(any(cause in each for cause in CAUSES) for each in (why[tried.end():].split("; ") if tried else [why]))


class Facts:
    """The database, read once."""

    def __init__(self, c: sa.Connection):
        self.stories = [dict(r) for r in c.execute(sa.select(stories.c.id, stories.c.kind, stories.c.owner,
                                                             stories.c.set_aside)).mappings()]
        s = servers.c
        self.servers = {r["id"]: dict(r) for r in c.execute(sa.select(
            s.id, s.name, s.vm_state, s.task_state, s.host, s.allocation_id, s.deleted, s.memory_mb, s.vcpus,
            s.metadata, s.epoch, s.fault).order_by(s.number)).mappings()}
        self.allocations = {r["id"]: dict(r) for r in c.execute(sa.select(allocations)).mappings()}
        self.ports = [dict(r) for r in c.execute(sa.select(net.placed).where(
            net.placed.c.device_owner.like("compute:%"))).mappings()]
        self.used = quota_usage.used(c, "p")
        self.members: dict[str, set[str]] = {}
        for group, address in c.execute(sa.select(net.port_groups.c.group_id, net.addresses.c.ip_address).join(
                net.addresses, net.addresses.c.port_id == net.port_groups.c.port_id)):
            self.members.setdefault(group, set()).add(f"{address}/32")
        self._wiring(c)

    def _wiring(self, c: sa.Connection) -> None:
        """wired: host -> port -> what it has to wire for it; places: network -> port -> what its hosts have to know of
        it; ends: host -> its tunnel address."""
        b, a, g = net.bindings.c, net.addresses.c, net.port_groups.c
        addresses, groups = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
        for port, address in c.execute(sa.select(a.port_id, a.ip_address)):
            addresses[port].add(address)
        for port, group in c.execute(sa.select(g.port_id, g.group_id)):
            groups[port].add(group)
        self.ends = {host: ip for host, ip in c.execute(sa.select(net.agents.c.host, net.agents.c.tunnel_ip)) if ip}
        self.wired = defaultdict[str, dict[str, Any]](dict)
        self.places = defaultdict[str, dict[str, PlacedPort]](dict)
        for port, host, network, active, mac in c.execute(sa.select(
                b.port_id, b.host, b.network_id, b.active, net.ports.c.mac_address).join_from(
                    net.bindings, net.ports, net.ports.c.id == b.port_id).where(b.vif_type == "ovs")):
            self.wired[host][port] = network, mac, active, frozenset(addresses[port]), frozenset(groups[port])
            if host:
                known = self.places[network].get(port) or PlacedPort(mac=mac, addresses=tuple(sorted(addresses[port])))
                self.places[network][port] = msgspec.structs.replace(known, host=host) if active else \
                    msgspec.structs.replace(known, prepared=(*known.prepared, host))

    def wires(self, host: str, heard: WiringClient) -> Iterator[str]:
        """A host believes what is so of its ports, and of all ports of their networks, and how their hosts are
        reached."""
        mine, wanted = self.wired[host], heard.desired
        ports = {p.id: (p.network_id, p.mac_address, p.active, frozenset(f.ip_address for f in p.fixed_ips),
                        frozenset(p.security_groups)) for p in wanted.ports.values()}
        if ports != mine:
            yield f"{host} wants to wire {ports}, and should {mine}"
        for network in {port[0] for port in mine.values()}:
            places = {id: msgspec.structs.replace(port, prepared=tuple(sorted(port.prepared)))
                      for id, port in self.places[network].items()}
            if dict(heard.places.of(network)) != places:
                yield f"{host} believes {heard.places.of(network)} of the ports {places}"
            ends = {each: ip for port in places.values() for each in (port.host, *port.prepared)
                    if (ip := self.ends.get(each))}
            if {each: peer.tunnel_ip for each, peer in heard.peers.items() if each in ends} != ends:
                yield f"{host} has the peers {heard.peers}, and should {ends}"

    @property
    def living(self) -> dict[str, dict[str, Any]]:
        return {i: r for i, r in self.servers.items() if not r["deleted"]}

    def on(self, host: str) -> dict[str, dict[str, Any]]:
        return {i: a for i, a in self.allocations.items() if a["host"] == host}

    def unfinished(self) -> Iterator[str]:
        for story in self.stories:
            yield f"story {story['id']} ({story['kind']}) of {story['owner']} goes on, aside: {story['set_aside']}"
        for i, row in self.living.items():
            if row["vm_state"] not in ("active", "stopped", "error") or row["task_state"]:
                yield f"server {i} is {row['vm_state']}, {row['task_state']}"
            if row["vm_state"] == "error" and not caused((row["fault"] or {}).get("message", "")):
                yield f"server {i} is in ERROR, which the seed did not cause: {row['fault']}"

    def rooms(self) -> Iterator[str]:
        """Exactly one live allocation a server, and what projects use."""
        for i, a in self.allocations.items():
            row = self.living.get(a["server_id"])
            if a["state"] != "held" or row is None or row["allocation_id"] != i or row["host"] != a["host"]:
                yield f"allocation {i} of server {a['server_id']} on {a['host']} is {a['state']}"
        for i, row in self.living.items():
            if row["vm_state"] in POWER and row["allocation_id"] not in self.allocations:
                yield f"server {i} is {row['vm_state']} and has no room"
        wanted = {"instances": len(self.living), "cores": sum(r["vcpus"] for r in self.living.values()),
                  "ram": sum(r["memory_mb"] for r in self.living.values())}
        if self.used != wanted:
            yield f"the project uses {wanted}, counted are {self.used}"

    def addresses(self, users: "Users") -> Iterator[str]:
        """No port without its server, none at another host, none missing."""
        owners = [port["device_id"] for port in self.ports]
        for port in self.ports:
            row = self.living.get(port["device_id"])
            if row is None or row["vm_state"] not in POWER:
                yield f"port {port['id']} is of server {port['device_id']}, {row and row['vm_state']}"
            elif port["active"] and port["host"] != row["host"]:
                yield f"port {port['id']} of server {row['id']} is at {port['host']!r} and not at {row['host']}"
        for i, row in self.living.items():
            if row["vm_state"] in POWER and owners.count(i) != users.ports[row["name"]]:
                yield f"server {i} has {owners.count(i)} ports"


def _users(facts: Facts, users: "Users") -> Iterator[str]:
    for i in users.created:
        row = facts.servers.get(i)
        if row is None:
            yield f"the accepted server {i} was never there"
        elif row["deleted"] and i not in users.deleting:
            yield f"server {i} is deleted, which nobody asked for"
    for i in users.deleted:
        if not facts.servers[i]["deleted"]:
            yield f"server {i} is still there, though its delete was accepted"
    for i, keys in users.metadata.items():
        if i in facts.living and (lost := keys - facts.living[i]["metadata"].keys()):
            yield f"metadata {sorted(lost)} of server {i} was accepted and is lost"


def _hosts(world: "World", facts: Facts) -> Iterator[str]:
    """Journal, claims and guests are those of the database, no more and no less."""
    for host in world.hosts:
        here, mine = host.manager.here, facts.on(host.name)
        said = {e.allocation: e.stage for e in here.journal.all()}
        if said != dict.fromkeys(mine, "running"):
            yield f"{host.name} has {said}, and should have {sorted(mine)}"
        used = here.tracker.used
        if here.tracker.allocations != mine.keys() or (used.memory_mb, used.vcpus, used.disk_mb) != tuple(
                sum(a[what] for a in mine.values()) for what in ("memory_mb", "vcpus", "disk_mb")):
            yield f"{host.name} has claims of {sorted(here.tracker.allocations)}, {used}"
        guests = {i: guest.power for i, guest in host.hypervisor.servers.items()}
        wanted = {a["server_id"]: POWER.get(facts.servers[a["server_id"]]["vm_state"]) for a in mine.values()}
        if {i: power for i, power in guests.items() if wanted.get(i, "") is not None} != {
                i: power for i, power in wanted.items() if power is not None}:
            yield f"{host.name} has guests {guests}, and should have {wanted}"
        heard = here.wiring.client
        named = {group: heard.members.cidrs(group) for group in heard.desired.named()}
        if wrong := {group: cidrs for group, cidrs in named.items() if cidrs != facts.members.get(group, set())}:
            yield f"{host.name} believes {wrong} of the members {facts.members}"
        elif not named and any(port["host"] == host.name for port in facts.ports):
            yield f"{host.name} has ports and knows no group"
        yield from facts.wires(host.name, heard)
        if here.barred or here.works.states():
            yield f"{host.name} is barred ({here.barred}) or at work: {here.works.states()}"
    strange = {i: guest.power for i, guest in world.stranger.hypervisor.servers.items()}
    if strange != {world.checker.sacred: "running"}:
        yield f"the host of another cloud has guests {strange}"


def _schedulers(world: "World", facts: Facts) -> Iterator[str]:
    """Every control process knows what is free."""
    for controller in world.controls:
        for host in world.hosts:
            mine = facts.on(host.name).values()
            seen, state = controller.scheduler.real._chooser.host(host.name), controller.control.registry.states.get(
                host.name)
            if seen is None or seen.out or state is None or state.barred:
                yield f"{controller.name} would not use {host.name}: {seen and seen.out} {state and state.barred}"
            elif seen.servers != {a["server_id"] for a in mine}:
                yield f"{controller.name} believes {host.name} to have {sorted(seen.servers)}"
            elif seen.limits.memory_mb - seen.free[0] != sum(a["memory_mb"] for a in mine):
                yield f"{controller.name} believes that {seen.free[0]} MB are free on {host.name}"
        strange = controller.scheduler.real._chooser.host("stranger")
        if strange is not None and not strange.out:
            yield f"{controller.name} would use the host of another cloud"
