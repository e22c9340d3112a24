"""One simulated host: runs inside a network namespace with an Open vSwitch of its own, and does what it is told, a JSON
array a line on standard input: ["ping", address], ["tcp"...]. Started by test_wiring_hosts.py."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import msgspec
from wiring_lab import (
    Lab,
    NetworkStub,
    allow,
    arp,
    elsewhere,
    ether,
    eventually,
    group,
    ipv6,
    network,
    port,
    solicitation,
)

from nacre.base.shell import run
from nacre.network.contract import Differences, FixedIp, NetworkPorts, PlacedPort, RouterFacts, RouterLeg, Routing
from nacre.node.ovs.antispoof import link_local

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


async def start_ovs(rundir, number):
    env = ["env", f"OVS_RUNDIR={rundir}", f"OVS_LOGDIR={rundir}", f"OVS_DBDIR={rundir}"]
    await run(["ovsdb-tool", "create", f"{rundir}/conf.db", SCHEMA])
    await run([*env, "ovsdb-server", f"{rundir}/conf.db", f"--remote=punix:{rundir}/db.sock", "--pidfile", "--detach",
               "--log-file", "-vconsole:off"])
    vsctl = ["ovs-vsctl", f"--db=unix:{rundir}/db.sock"]
    await run([*vsctl, "--no-wait", "init"])
    await start_vswitchd(rundir)
    await run([*vsctl, "add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev", "--", "add-port",
               "br-phy", "eth1"])
    await run(["ip", "link", "set", "br-phy", "up", "mtu", "1600"])
    await run(["ip", "addr", "add", f"172.31.77.{number}/24", "dev", "br-phy"])


async def start_vswitchd(rundir):
    await run(["env", f"OVS_RUNDIR={rundir}", f"OVS_LOGDIR={rundir}", "ovs-vswitchd", f"unix:{rundir}/db.sock",
               "--pidfile", "--detach", "--log-file", "-vconsole:off"])


def kill(rundir, name, number=signal.SIGTERM):
    os.kill(int((rundir / f"{name}.pid").read_text()), number)


async def obey(lab, guest, words):
    match words:
        case ["ping", address]:
            return await guest.pings(address)
        case ["lease"]:
            return (await guest.lease())["ip"]
        case ["curl", path]:
            return await guest.curl(path)
        case ["crash"]:  # vswitchd dies and comes back, with no flows
            rundir = lab.bridge.settings.rundir
            kill(rundir, "ovs-vswitchd", signal.SIGKILL)
            await asyncio.sleep(0.3)
            await start_vswitchd(rundir)
            return True
        case ["heard", seconds]:
            return [frame.hex() for frame in await guest.heard(seconds)]
        case ["ask", address]:  # who has it? What came back meanwhile
            mine, last = guest.port.mac_address, address[-2:]
            frame = ether(f"33:33:ff:00:00:{last}", mine, 0x86DD, ipv6(
                link_local(mine), f"ff02::1:ff00:{last}", 58, solicitation(address, mine))) if ":" in address else \
                ether("ff:ff:ff:ff:ff:ff", mine, 0x0806, arp(1, mine, guest.ip, address))
            hearing = asyncio.create_task(guest.heard(1.0))
            await asyncio.sleep(0.2)
            await guest.send(frame)
            return [frame.hex() for frame in await hearing]
        case ["forge", segment, host, frame]:  # the bridge sends that to another host's tunnel
            tunnel = (await lab.bridge.ofports())[lab.names.tunnel]
            await lab.bridge.openflow.run(
                "packet-out", "controller", f"set_field:{segment}->tun_id,set_field:{host}->tun_dst,output:{tunnel}",
                frame)
            return True
        case ["apart", n]:  # the other host has no port of the network any more, as this one hears
            network_id = guest.port.network_id
            gone = dict.fromkeys(lab.agent.client.places.of(network_id), PlacedPort(mac=""))
            await lab.agent.differ(Differences(placed=(
                NetworkPorts(id=network_id, n=n + 1, era="e", since=n, ports=gone),)))
            await eventually(lambda: asyncio.sleep(0, not lab.agent.client.places.changed))
            await asyncio.sleep(0.3)  # it is being written
            return True


def one_network(number):
    """A guest each on the same network."""
    other = 3 - number
    net = network()
    mine, theirs = port(10 + number, net), port(10 + other, net)
    theirs = msgspec.structs.replace(theirs, fixed_ips=(*theirs.fixed_ips, FixedIp(
        subnet_id="s6", ip_address=f"2001:db8::{10 + other}")))
    return NetworkStub([net], [mine], [group("open", allow())], **elsewhere(net, {f"host{other}": (theirs,)}, {
        f"host{other}": f"172.31.77.{other}"}))


def joined(number):
    """A guest each on networks that a router joins."""
    nets = network(1), network(2)
    ports = [port(10 + at, net) for at, net in enumerate(nets, 1)]
    placed = [elsewhere(net, {f"host{at}": (ports[at - 1],)}, {f"host{at}": f"172.31.77.{at}"})
              for at, net in enumerate(nets, 1)]
    stub = NetworkStub([nets[number - 1]], [ports[number - 1]], [group("open", allow())],
                       placed=tuple(part for each in placed for part in each["placed"]),
                       peers=placed[0]["peers"] | placed[1]["peers"])
    stub.routes = Routing(n=1, era="e", networks=nets, routers=(RouterFacts(id="r", interfaces=tuple(
        RouterLeg(network_id=net.id, port_id=f"leg{at}", mac=f"fa:16:3e:aa:00:0{at}", addresses=(f"10.77.{at}.1/24",))
        for at, net in enumerate(nets, 1))),))
    return stub


async def main(number, folder, kind):
    stub = joined(number) if kind == "joined" else one_network(number)
    mine = stub.ports[0]
    rundir = Path(folder)
    await start_ovs(rundir, number)
    lab = Lab(stub, host=f"host{number}", rundir=rundir, tunnel_ip=f"172.31.77.{number}")
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        await lab.begin()
        guest = await lab.guest(mine)
        await lab.wire(guest)
        if kind == "joined":
            await guest.x("ip", "route", "add", "default", "via", f"10.77.{number}.1")
        print(json.dumps("ready"), flush=True)
        while line := await reader.readline():
            print(json.dumps(await obey(lab, guest, json.loads(line))), flush=True)
    finally:
        await lab.down()
        for name in ("ovs-vswitchd", "ovsdb-server"):
            kill(rundir, name)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
