"""A cloud of its own on the machine's Open vSwitch, with network namespaces as guests. Every name carries its id."""

import asyncio
import os
import shutil
import socket
import struct
import tempfile
import time
import uuid
from contextlib import asynccontextmanager
from pathlib import Path

from nacre.base.errors import NotFound, Unavailable
from nacre.base.shell import CommandFailed, run
from nacre.network.contract import (
    Differences,
    FixedIp,
    GroupFacts,
    HostWiring,
    NetworkFacts,
    NetworkPorts,
    Peer,
    PlacedPort,
    PortFacts,
    Routing,
    RuleFacts,
    SubnetFacts,
)
from nacre.node.contract import GuestFacts
from nacre.node.dhcp.config import DhcpSettings
from nacre.node.dhcp.server import Dhcp
from nacre.node.metadata import Metadata
from nacre.node.names import Names
from nacre.node.netns import Namespaces, inside
from nacre.node.ovs.agent import AgentSettings, OvsAgent, decommission
from nacre.node.ovs.bridge import Bridge
from nacre.node.ovs.contract import Standing
from nacre.node.ovs.local import LocalNetworks
from nacre.node.ovs.ovsdb import BridgeSettings

RUNDIR = Path("/run/openvswitch")
FORTY_TWO = "0a0a0a0a-0000-4000-8000-00000000000"


def network(number=1, **more):
    cidr = f"10.77.{number}"
    subnet = SubnetFacts(id=f"s4-{number}", cidr=f"{cidr}.0/24", ip_version=4, gateway_ip=f"{cidr}.1", enable_dhcp=True,
                         dhcp_ip=f"{cidr}.2", dns_nameservers=("9.9.9.9",))
    return NetworkFacts(**{"id": f"{number:08d}-aaaa-4000-8000-000000000000", "name": f"net{number}",
                           "project_id": "p", "mtu": 1450, "network_type": "vxlan", "physical_network": None,
                           "segmentation_id": 7000 + number, "subnets": (subnet,),
                           "dhcp_mac": f"fa:16:3e:ff:00:{number:02x}"} | more)


def port(number, net, **more):
    subnet = net.subnets[0]
    base = subnet.cidr.rpartition(".")[0]
    return PortFacts(**{"id": f"{number:08d}-bbbb-4000-8000-00000000000{number % 10}", "name": "", "project_id": "p",
                        "network_id": net.id, "network_name": net.name, "device_id": f"server{number}",
                        "mac_address": f"fa:16:3e:00:01:{number:02x}", "security_groups": ("open",),
                        "fixed_ips": (FixedIp(subnet_id=subnet.id, ip_address=f"{base}.{number}"),)} | more)


def group(name, *rules, stateful=True):
    outward = tuple(RuleFacts(direction="egress", ethertype=version) for version in ("IPv4", "IPv6"))
    return GroupFacts(id=name, stateful=stateful, rules=(*outward, *rules))


def allow(protocol=None, low=None, high=None, **more):
    return RuleFacts(**{"direction": "ingress", "ethertype": "IPv4", "protocol": protocol, "port_min": low,
                        "port_max": high} | more)


async def eventually(check, seconds=8.0):
    for _ in range(int(seconds / 0.1)):
        if await check():
            return True
        await asyncio.sleep(0.1)
    return False


def elsewhere(net, ports, ways):
    """What an answer says of a network's ports on other hosts. ports: by host; ways: host -> tunnel address."""
    return {"placed": (NetworkPorts(id=net.id, n=1, era="e", ports={
        each.id: PlacedPort(mac=each.mac_address, host=host, addresses=tuple(f.ip_address for f in each.fixed_ips))
        for host, its in ports.items() for each in its}),),
        "peers": {host: Peer(tunnel_ip=ip, n=1, era="e") for host, ip in ways.items()}}


class NetworkStub:
    """The network service's two verbs for an agent, answering from memory."""

    def __init__(self, networks, ports, groups=(), **more):
        self.networks, self.ports, self.groups, self.more = list(networks), list(ports), list(groups), more
        self.said, self.served, self.asked, self.routes = [], [], 0, Routing()
        self.away, self.deaf = 0, ""  # so many questions get no answer; of which verb ("": any)

    async def wiring(self, host, port_ids=(), have=None, known=None):
        self._reached("wiring")
        ports = [p for p in self.ports if not port_ids or p.id in port_ids]
        return HostWiring(whole=not port_ids, ports=tuple(ports), networks=tuple(self.networks),
                          groups=tuple(self.groups), **self.more)

    async def differences(self, host, groups, networks, known):
        self._reached("differences")
        self.asked += bool(groups)
        return Differences(
            members=tuple(each for each in self.more.get("members", ()) if each.id in groups),
            placed=tuple(each for each in self.more.get("placed", ()) if each.id in networks),
            peers=self.more.get("peers", {}))

    async def routing(self, host):
        self._reached("routing")
        return self.routes

    async def routed(self, host, served, up):
        self._reached("routed")
        self.served.append((served, up))

    async def wired(self, host, port_ids, up):
        self._reached("wired")
        self.said.append((port_ids, up))

    def _reached(self, verb):
        if self.away and self.deaf in ("", verb):
            self.away -= 1
            raise Unavailable("no control process answers")


class Guest:
    """A namespace with one link, as a guest of `port`."""

    def __init__(self, lab, facts):
        self.lab, self.port = lab, facts
        short = lab.names.short
        self.ns, self.outer = f"ntw-{short}-{facts.id[:8]}", f"g{short}{facts.id[2:8]}"
        self.ip = facts.fixed_ips[0].ip_address if facts.fixed_ips else None

    async def up(self, *, address=True, ipv6=False):
        await run(["ip", "netns", "add", self.ns])
        await run(["ip", "link", "add", self.outer, "type", "veth", "peer", "name", "eth0", "netns", self.ns])
        await self.x("sysctl", "-qw", f"net.ipv6.conf.all.disable_ipv6={0 if ipv6 else 1}")
        await self.x("ip", "link", "set", "eth0", "address", self.port.mac_address, "mtu", "1450")
        await self.x("ethtool", "-K", "eth0", "tx", "off")
        await run(["ip", "link", "set", self.outer, "up"])
        await self.x("ip", "link", "set", "lo", "up")
        await self.x("ip", "link", "set", "eth0", "up")
        if address:
            await self.x("ip", "addr", "add", f"{self.ip}/24", "dev", "eth0")
            await self.x("ip", "route", "add", "169.254.169.254/32", "dev", "eth0")
        await self.lab.bridge.attach(self.outer, {"iface-id": self.port.id})

    async def x(self, *args, ok=(0,)):
        return (await run(["ip", "netns", "exec", self.ns, *args], ok=ok)).decode()

    async def pings(self, address, count=1):
        try:
            await self.x("busybox", "ping", "-c", str(count), "-W", "2", address)
        except CommandFailed:
            return False
        return True

    async def lease(self):
        out, script = self.lab.home / "lease", self.lab.home / "script"
        out.unlink(missing_ok=True)
        script.write_text(f'#!/bin/sh\n[ "$1" = bound ] && env > {out}\nexit 0\n')
        script.chmod(0o755)
        started = time.monotonic()
        await self.x("udhcpc", "-f", "-n", "-q", "-i", "eth0", "-t", "4", "-T", "1", "-O", "mtu", "-O", "staticroutes",
                     "-O", "ntpsrv", "-s", str(script))
        lease = dict(line.split("=", 1) for line in out.read_text().splitlines() if "=" in line)
        return lease | {"seconds": time.monotonic() - started}

    async def curl(self, path, *headers, port=80, host="169.254.169.254"):
        args = [arg for header in headers for arg in ("-H", header)]
        out = await self.x("curl", "-s", "-m", "5", "-w", "\n%{http_code}", *args, f"http://{host}:{port}{path}",
                           ok=(0, 7, 28))
        body, _, code = out.rpartition("\n")
        return int(code), body

    async def send(self, *frames):
        def work():
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("eth0", 0))
                for frame in frames:
                    raw.send(frame.ljust(60, b"\0"))
        await inside(self.ns, work)

    async def heard(self, seconds=0.8):
        """Frames that arrive at the guest's link within this time."""
        def work():
            frames, end = [], time.monotonic() + seconds
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:
                raw.bind(("eth0", 3))
                while (left := end - time.monotonic()) > 0:
                    raw.settimeout(left)
                    try:
                        frame, meta = raw.recvfrom(65535)
                    except TimeoutError:
                        break
                    if meta[2] != socket.PACKET_OUTGOING:
                        frames.append(frame)
            return frames
        return await inside(self.ns, work)

    async def tcp(self, other, port=80, size=200_000):
        """A TCP transfer of `size` bytes to the other guest; True if all of it arrived."""
        def listen():
            listener = socket.create_server((other.ip, port))
            listener.settimeout(6)
            return listener

        def take(listener):
            got = 0
            try:
                connection, _ = listener.accept()
                connection.settimeout(5)
                while data := connection.recv(65536):
                    got += len(data)
            except TimeoutError:
                pass
            listener.close()
            return got

        def push():
            try:
                with socket.create_connection((other.ip, port), timeout=2) as connection:
                    connection.sendall(b"x" * size)
            except OSError:
                return False
            return True

        listener = await inside(other.ns, listen)
        taking = asyncio.create_task(asyncio.to_thread(take, listener))
        if not await inside(self.ns, push):
            listener.close()
            taking.cancel()
            return False
        return await taking == size


class Lab:
    """One agent with its bridge."""

    def __init__(self, stub, *, names=None, host="lab", **settings):
        self.stub, self.home = stub, Path(tempfile.mkdtemp(prefix="nacre-wiring-"))
        self.home.chmod(0o755)
        self.names = names or Names(str(uuid.uuid4()))
        self.settings = BridgeSettings(**{"names": self.names, "rundir": RUNDIR} | settings)
        self.host, self.guests = host, []
        self.build()

    def build(self):
        """The agent and its parts, as after a restart of the node."""
        self.bridge = Bridge(self.settings)
        self.places = LocalNetworks(Namespaces(self.names), Dhcp(DhcpSettings(directory=self.names.run / "dhcp")),
                                    Metadata(self._facts))
        self.agent = OvsAgent(AgentSettings(host=self.host, plug_timeout=3, look=0.3, glance=0.05), self.stub,
                              self.bridge, self.places)

    async def _facts(self, server_id):
        if server_id.startswith("ghost"):
            raise NotFound
        return GuestFacts(id=server_id, name=server_id, hostname=f"{server_id}.novalocal", project_id="p", user_id="u",
                          availability_zone="nova", metadata={"who": server_id, "cloud": self.names.cloud})

    async def guest(self, facts, **more):
        guest = Guest(self, facts)
        self.guests.append(guest)
        await guest.up(**more)
        return guest

    async def wire(self, *guests):
        await self.agent.wire([g.port for g in guests], self.stub.networks)

    async def restart(self):
        """The node process ends, and another takes over."""
        await self.agent.stop()
        self.build()
        await self.begin()

    async def begin(self):
        """The agent runs, is believed, and has brought the bridge to what is wanted."""
        await self.agent.start()
        await self.agent.follow(Standing(trusted=True))
        assert await eventually(lambda: asyncio.sleep(0, self.agent.table.applied is not None))

    async def down(self):
        await self.agent.stop()
        for guest in self.guests:
            await run(["ip", "link", "del", guest.outer], ok=(0, 1))
            await run(["ip", "netns", "del", guest.ns], ok=(0, 1))
        await decommission(self.names, self.settings.rundir)
        shutil.rmtree(self.home, ignore_errors=True)


@asynccontextmanager
async def lab(stub, **more):
    place = Lab(stub, **more)
    try:
        await place.begin()
        yield place
    finally:
        await place.down()


def able():
    return os.geteuid() == 0 and all(
        shutil.which(p) for p in ("ovs-vsctl", "dnsmasq", "udhcpc", "curl", "ethtool", "busybox", "nft"))


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def ether(dst, src, kind, payload, vlan=None):
    tag = struct.pack("!HH", 0x8100, vlan) if vlan is not None else b""
    return mac(dst) + mac(src) + tag + struct.pack("!H", kind) + payload


def arp(operation, sha, spa, tpa, tha="00:00:00:00:00:00"):
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac(sha) + socket.inet_aton(spa) + mac(tha) + \
        socket.inet_aton(tpa)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(src, dst, protocol, payload):
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + socket.inet_aton(src) + \
        socket.inet_aton(dst)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(sport, dport, payload=b"forged"):
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def ipv6(src, dst, following, payload):
    ends = socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst)
    if following == 58:
        fixed = payload[:2] + b"\0\0" + payload[4:]
        value = checksum(ends + struct.pack("!II", len(payload), 58) + fixed)
        payload = fixed[:2] + struct.pack("!H", value) + fixed[4:]
    return struct.pack("!IHBB", 6 << 28, len(payload), following, 255) + ends + payload


def advertisement(target, layer):
    """A neighbour advertisement, overriding."""
    return struct.pack("!BBHI", 136, 0, 0, 0x20000000) + socket.inet_pton(socket.AF_INET6, target) + b"\2\1" + \
        mac(layer)


def solicitation(target, layer):
    return b"\x87\0\0\0" + b"\0" * 4 + socket.inet_pton(socket.AF_INET6, target) + b"\x01\x01" + mac(layer)
