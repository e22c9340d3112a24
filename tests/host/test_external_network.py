"""`nacre up --external`: what it makes on a machine, that frames go through it, and that nothing is left. The machine
is one of the lab, with links, nftables and Open vSwitch of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nacre.node.names import Names
from tests.host.cloud_lab import ROOT, run
from tests.host.lab import _free_net, nothing_is_left
from tests.host.lab.hosts import Fabric, Host
from tests.host.wiring_lab import able

pytestmark = [pytest.mark.host, pytest.mark.timeout(300),
              pytest.mark.skipif(not able(), reason="needs root, Open vSwitch, dnsmasq, udhcpc")]
OPTIONS = {"NACRE_NODE_VIRT_TYPE": "qemu", "NACRE_NODE_DATAPATH": "netdev"}
#: Answers one connection with where it came from.
ANSWER = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as server:
    print("ready", flush=True)
    server.settimeout(20)
    connection, peer = server.accept()
    connection.sendall(f"{peer[0]} ".encode() * int(sys.argv[3]))
    connection.close()
"""
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as connection:
    said = b"".join(iter(lambda: connection.recv(65536), b""))
print(len(said.split()), said.decode().split()[0])
"""

OUTSIDE = """
import asyncio, sys
from nacre.base.errors import Conflict
from nacre.base.shell import run
from nacre.node.names import Names
from nacre.node.routing.external import Outside, Uplink, forwarding, missing, remove
names = Names(sys.argv[1])
async def main():
    try:
{code}
    except Conflict as error:
        print("refused:", error)
asyncio.run(main())
"""
REMOVED = """
from nacre.base.shell import CommandFailed
try:
    print(await remove(names))
except CommandFailed as error:
    print("not taken away:", error.message)
"""
#: Two clouds that have a provider bridge here, and no more.
ONE, TWO = "c10d0000-0000-4000-8000-000000000001", "c10d0001-0000-4000-8000-000000000002"


class Machine(Host):
    """A machine with a way out: the machine of the tests."""

    def cloud(self, name: str) -> Path:
        return self.folder / name

    def nacre_in(self, name: str, *args: str, ok: bool = True) -> str:
        """What a command says over the folder of one cloud of this machine."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("NACRE_")}
        done = subprocess.run(
            [*self.entrance, sys.executable, "-m", "nacre.cli.main", *args, "--data", str(self.cloud(name))], text=True,
            capture_output=True, timeout=120, check=False, cwd="/",
            env={**clean, **OPTIONS, "PYTHONPATH": str(ROOT / "src")})
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def python(self, code: str, *args: str) -> str:
        """What it prints, with what joins a provider bridge to the outside at hand; "refused: WHY" for a Conflict."""
        return run("env", f"PYTHONPATH={ROOT / 'src'}", *self.entrance, sys.executable, "-c", OUTSIDE.format(
            code=textwrap.indent(textwrap.dedent(code), "        ")), *args).strip()

    def names(self, name: str) -> Names:
        return Names((self.cloud(name) / "run" / "cloud").read_text())

    def told(self, name: str) -> dict[str, Any]:
        """What is kept for later starts."""
        return dict(json.loads((self.cloud(name) / "kept.json").read_text()).get("external", {}))

    def has(self) -> dict[str, Any]:
        """All of the machine's that a cloud could have changed."""
        commands = {"nft": "nft -s list ruleset", "links": "ip -br link", "addresses": "ip -br -4 address",
                    "routes": "ip -4 route show table all", "forwarding": "grep . -r /proc/sys/net/ipv4/conf",
                    "ports": "ovs-vsctl --columns=name list Interface", "files": "find /run/nacre/forwarding"}
        found = {what: sorted(self.run(*line.split(), check=False).splitlines()) for what, line in commands.items()}
        return found | {"forwarding": [line for line in found["forwarding"] if "forwarding:" in line]}


@pytest.fixture
def machine() -> Iterator[Machine]:
    id, spaces = uuid.uuid4().hex[:8], set[str]()
    folder = Path(tempfile.mkdtemp(prefix=f"nacre-lab-{id}-", dir="/var/tmp"))
    folder.chmod(0o755)
    fabric = Fabric(id, _free_net(), folder, spaces)
    try:
        made = Machine(fabric, "machine", 1, folder / "machine")
        try:
            made.await_ready()
            made.run("ip", "route", "add", "default", "via", fabric.address)
            made.run("nft", "add", "table", "inet", "operators")
            made.run("nft", "add", "chain", "inet", "operators", "own", "{ type filter hook input priority 5; }")
            yield made
        finally:
            made.cut_power()
    finally:
        fabric.close()
        shutil.rmtree(folder)
        nothing_is_left(id, spaces)


def guest(machine: Machine, cloud: str, address: str) -> list[str]:
    """A namespace on the cloud's provider bridge, as a router is: what stands before a command in it."""
    space, outer = f"lab-{cloud}", f"g-{cloud}"
    machine.run("ip", "netns", "add", space)
    machine.run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
    for name, value in (("ipv4/conf/{}/arp_ignore", 8), ("ipv6/conf/{}/disable_ipv6", 1)):  # the machine is not asked
        machine.run("sh", "-c", f"echo {value} > /proc/sys/net/{name.format(outer)}")
    machine.run("ip", "link", "set", outer, "up")
    inside = ["ip", "netns", "exec", space]
    for line in ("ethtool -K eth0 tx off", f"ip address add {address} dev eth0", "ip link set eth0 up",
                 f"ip route add default via {address.rpartition('.')[0]}.1"):
        machine.run(*inside, *line.split())
    machine.run("ovs-vsctl", "add-port", machine.names(cloud).provider, outer)
    return inside


def asked(entrance: list[str], at: list[str], address: str, port: int = 8000, times: int = 1) -> str:
    """How many answers come, and from where the question came, to one who asks `address` where `at` is listened."""
    server = subprocess.Popen([*at, sys.executable, "-c", ANSWER, address, str(port), str(times)], text=True,
                              stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        return run(*entrance, sys.executable, "-c", ASK, address, str(port)).strip()
    finally:
        server.kill()
        server.wait()


def test_two_clouds_are_joined_to_the_outside_and_nothing_is_left(machine: Machine) -> None:
    before, outside = machine.has(), machine._fabric.address
    said = machine.nacre_in("one", "up", "-d", "--external", "nat")
    names = machine.names("one")
    assert f"`public` is 172.24.4.0/24, behind this machine's address, by {names.nat[0]}; eth0 forwards for it." in said
    assert machine.told("one") == {"kind": "nat", "cidr": "172.24.4.0/24", "interface": ""}
    here, _ = names.nat
    one = guest(machine, "one", "172.24.4.10/24")
    entrance = [*machine.entrance, *one]
    # The outside hears the machine's own address, and as much as it likes comes back; the machine itself is reached.
    assert asked(entrance, [], outside, times=100000) == f"100000 {machine.management}"
    assert asked(entrance, machine.entrance, "172.24.4.1").endswith("172.24.4.10")
    assert asked(machine.entrance, entrance, "172.24.4.10").endswith("172.24.4.1")
    # Once more, and beside another cloud, which takes another range.
    made = machine.has()
    machine.nacre_in("one", "down")
    machine.nacre_in("one", "up", "-d")
    assert machine.told("one")["kind"] == "nat" and machine.has() == made
    assert f"/proc/sys/net/ipv4/conf/{here}/forwarding:1" in made["forwarding"]
    machine.nacre_in("two", "up", "-d", "--external", "nat", "--port", "8790")
    assert machine.told("two")["cidr"] == "172.24.5.0/24"
    two = guest(machine, "two", "172.24.5.10/24")
    assert asked([*machine.entrance, *two], [], outside).endswith(machine.management)
    assert asked([*machine.entrance, *two], entrance, "172.24.4.10").endswith("172.24.4.1")  # as the machine
    found = json.loads(machine.nacre_in("two", "status", "--json"))["external"]
    assert found["cidr"] == "172.24.5.0/24" and found["wrong"] == [] and found["forwarding"] == ["eth0"]
    # What one takes back the other keeps.
    machine.nacre_in("one", "down", "--purge")
    assert machine.told("one") == {"kind": "none", "cidr": "172.24.4.0/24", "interface": ""}
    assert asked([*machine.entrance, *two], [], outside).endswith(machine.management)
    machine.nacre_in("two", "down", "--purge")
    for name in ("one", "two"):
        machine.run("ip", "link", "del", f"g-{name}")
        machine.run("ip", "netns", "del", f"lab-{name}")
    assert machine.has() == before


def bridged(machine: Machine, *clouds: str) -> None:
    """As the node makes them."""
    for cloud in clouds:
        bridge = Names(cloud).provider
        machine.run("ovs-vsctl", "add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev")


def test_what_somebody_takes_away_is_made_again(machine: Machine) -> None:
    bridged(machine, ONE)
    before = machine.has()
    said = machine.python("""
        outside = Outside(Uplink(names=names, cidr="172.24.4.0/24"))
        here, there = names.nat
        for line in ("true", "nft flush ruleset", f"nft flush table ip {names.nat_table}", f"ip link del {here}",
                     f"ovs-vsctl del-port {there}", f"ip address flush dev {here}", f"ip link set {there} down",
                     f"sysctl -qw net.ipv4.conf.eth0.forwarding=0", "true"):
            await run(line.split())
            lost = await missing(outside.uplink)
            await outside.ensure()
            print(line.partition(" ")[0], lost, await missing(outside.uplink), await forwarding(names))
    """, ONE).splitlines()
    assert len(said) == 9 and all(line.endswith("[] ['eth0']") for line in said), said
    assert "nftables has no table nacre_nat_c10d0000" in said[1] and "eth0 does not forward" in said[7]
    assert said[8] == "true [] [] ['eth0']"
    taken = machine.python("print(await remove(names))\nprint(await remove(names))", ONE).splitlines()
    assert "link nat-c10d0000" in taken[0] and "eth0 does not forward any more" in taken[0] and taken[1] == "[]"
    after = machine.has()
    assert after.pop("nft") == [] and before.pop("nft")  # the test flushed what was an operator's
    assert after == before


def test_what_guests_send_to_link_local_addresses_ends_here(machine: Machine) -> None:
    """There a machine that is a guest itself is told its own keys: by an address beyond it, or by one of its own."""
    bridged(machine, ONE)
    (machine.cloud("one") / "run").mkdir(parents=True)
    (machine.cloud("one") / "run" / "cloud").write_text(ONE)
    machine.python('await Outside(Uplink(names=names, cidr="172.24.4.0/24")).ensure()', ONE)
    one = guest(machine, "one", "172.24.4.10/24")
    assert machine.run("ip", "-6", "address", "show", "dev", Names(ONE).nat[0]) == ""  # no router there is believed
    machine.run("ip", "address", "add", "169.254.170.2/32", "dev", "lo")
    for line in ("add chain inet operators proxy { type nat hook prerouting priority -100; }",
                 "add rule inet operators proxy ip daddr 169.254.0.9 udp dport 80 dnat ip to 172.24.4.1",
                 "add chain inet operators seen { type filter hook prerouting priority 300; }",
                 *(f"add rule inet operators seen iifname {Names(ONE).nat[0]} ct original ip daddr {net} counter"
                   for net in ("169.254.0.0/16", "172.24.4.1"))):
        machine.run("nft", *line.split())
    for address in ("169.254.170.2", "169.254.169.254", "169.254.0.9", "172.24.4.1"):
        machine.run(*one, "bash", "-c", f"echo > /dev/udp/{address}/80")
    told = machine.run("nft", "list", "chain", "inet", "operators", "seen")
    assert re.findall(r"counter packets (\d+)", told) == ["0", "1"], told


def test_a_machine_that_forwards_by_itself_goes_on(machine: Machine) -> None:
    machine.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    bridged(machine, ONE, TWO)
    before = machine.has()
    for cloud, cidr in ((ONE, "172.24.4.0/24"), (TWO, "172.24.5.0/24")):
        assert machine.python(f"""
            outside = Outside(Uplink(names=names, cidr="{cidr}"))
            await outside.ensure()
            print(await missing(outside.uplink), await forwarding(names))
        """, cloud) == "[] []"
        assert "eth0" not in machine.run("nft", "list", "table", "ip", Names(cloud).nat_table)  # its ways stay open
    for cloud in (ONE, TWO):
        machine.python("await remove(names)", cloud)
    assert machine.has() == before


def test_what_is_not_ours_is_left_and_said(machine: Machine) -> None:
    bridged(machine, ONE)
    machine.run("ip", "link", "add", "nat-c10d0000", "type", "bridge")
    before = machine.has()
    ensure = "await Outside(Uplink(names=names, {})).ensure()"
    said = machine.python(ensure.format('cidr="172.24.4.0/24"'), ONE)
    assert said.startswith("refused: There is a link nat-c10d0000"), said
    for interface, why in (("eth0", "own way to everywhere"), ("lo", "no network card"), ("eth1", "a port of br-under"),
                           ("br-under", "no network card"), ("eth9", "there is no interface eth9")):
        said = machine.python(ensure.format(f'interface="{interface}"'), ONE)
        assert said.startswith("refused: ") and why in said, said
    assert machine.has() == before
    machine.run("ip", "link", "del", "nat-c10d0000")
    machine.run("ip", "address", "add", "172.24.4.77/32", "dev", "lo")
    said = machine.python(ensure.format('cidr="172.24.4.0/24"'), ONE)
    assert "lo has 172.24.4.77/32" in said, said


def test_an_interface_is_plugged_in_and_given_back(machine: Machine) -> None:
    bridged(machine, ONE, TWO)
    machine.run("ip", "link", "add", "card", "type", "veth", "peer", "name", "wire")
    before = machine.has()
    plug = "await Outside(Uplink(names=names, interface='card')).ensure()\n"
    for _ in range(2):
        assert machine.python(plug + "print(await missing(Uplink(names=names, interface='card')))", ONE) == "[]"
    assert machine.run("ovs-vsctl", "list-ports", "br-ex-c10d0000") == "card\n"
    machine.run("ip", "link", "set", "card", "down")  # as after a reboot, and where a host was killed before the link
    look = "print(await missing(Uplink(names=names, interface='card')))\n"
    assert machine.python(look + plug + look, ONE).splitlines() == ["['card is down']", "[]"]
    assert "UP" in machine.run("ip", "link", "show", "card").partition(">")[0]
    assert "card is a port of br-ex-c10d0000: take it out there first" in machine.python(plug, TWO)
    given = machine.has()
    for way in ("db.sock away.sock", "away.sock db.sock"):  # without Open vSwitch nothing is taken away, which is said
        if way.startswith("away"):
            assert machine.python(REMOVED, ONE).startswith("not taken away: ovs-vsctl")
        machine.run("sh", "-c", f"cd /run/openvswitch && mv {way}")
    assert machine.has() == given
    assert machine.python(REMOVED, ONE) == "['card is not in br-ex-c10d0000 any more']"
    assert machine.has() == before


def test_a_default_route_that_is_away_for_a_moment_changes_nothing(machine: Machine) -> None:
    bridged(machine, ONE)
    look = """
        await Outside(Uplink(names=names, cidr="172.24.4.0/24")).ensure()
        print(await forwarding(names))
    """
    assert machine.python(look, ONE) == "['eth0']"
    made, (route, *_) = machine.has(), machine.run("ip", "route", "show", "default").splitlines()
    machine.run("ip", "route", "del", *route.split())
    assert machine.python(look, ONE) == "['eth0']"
    machine.run("ip", "route", "add", *route.split())
    assert machine.has() == made


def test_what_is_refused_later_changes_nothing(machine: Machine) -> None:
    machine.nacre_in("one", "up", "-d", "--external", "nat")
    machine.nacre_in("one", "down")
    made, told = machine.has(), machine.told("one")
    assert "no interface eht1" in machine.nacre_in("one", "up", "-d", "--external", "eht1", ok=False)
    own = machine.cloud("one") / "nacre.toml"
    own.write_text('[node]\nbridge_mappings = {public = "br-own"}\n')
    assert "which is yours" in machine.nacre_in("one", "up", "-d", "--external", "eth2", ok=False)
    own.unlink()
    assert machine.has() == made and machine.told("one") == told
    # And the other way: what is to come cannot have its link, so what is there stays.
    machine.run("ip", "link", "add", "card", "type", "veth", "peer", "name", "wire")
    machine.nacre_in("one", "up", "-d", "--external", "card")
    machine.nacre_in("one", "down")
    machine.run("ip", "link", "add", machine.names("one").nat[0], "type", "bridge")
    made, told = machine.has(), machine.told("one")
    assert "There is a link nat-" in machine.nacre_in("one", "up", "-d", "--external", "nat", ok=False)
    assert machine.has() == made and machine.told("one") == told and told["interface"] == "card"
    machine.nacre_in("one", "down", "--purge")


def test_up_refuses_what_cannot_be(machine: Machine) -> None:
    for args, why in (("eth0", "own way to everywhere"), ("br-under", "no network card"),
                      ("nat --hypervisor fake", "Simulated guests have no way out")):
        said = machine.nacre_in("one", "up", "-d", "--external", *args.split(), ok=False)
        assert why in said and "Traceback" not in said, said
    machine.cloud("one").joinpath("nacre.toml").write_text('[node]\nbridge_mappings = {public = "br-own"}\n')
    assert "the bridge br-own, which is yours" in machine.nacre_in("one", "up", "-d", "--external", "nat", ok=False)
    assert "nothing was running" in machine.nacre_in("one", "down")
    assert "No cloud was ever started in" in machine.nacre_in("two", "down", "--purge", ok=False)
