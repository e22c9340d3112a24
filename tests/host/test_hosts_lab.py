"""Several real hosts of one cloud: guests on one network reach each other from host to host, what is refused stays
refused, and nothing is left anywhere."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nacre.base.shell import CommandFailed
from tests.host.cloud_lab import ROOT, run
from tests.host.lab import HostsLab, lab, nothing_is_left
from tests.host.lab.hosts import Host, until
from tests.host.wiring_lab import able

pytestmark = [pytest.mark.host, pytest.mark.timeout(300),
              pytest.mark.skipif(not able(), reason="needs root, Open vSwitch, dnsmasq, udhcpc")]
#: What one frame of the underlay carries (its MTU is 1500): 14 + 20 + 8 + 8 bytes of vxlan, 14 + 1450 of the guest's.
WHOLE_FRAME = 1514


@pytest.fixture(scope="module")
def cloud() -> Iterator[HostsLab]:
    with lab(hosts=2) as made:
        yield made


class Pair(NamedTuple):
    """Two servers on one network and on different hosts."""

    net: str
    one: str
    two: str


@pytest.fixture(scope="module")
def pair(cloud: HostsLab) -> Pair:
    net = cloud.network("blue", "192.0.2.0/24")
    one = cloud.boot("one", net)
    two = cloud.boot("two", net, hints={"different_host": one})
    for server in (one, two):
        cloud.ready(server)
    return Pair(net, one, two)


def pings(cloud: HostsLab, source: str, target: str) -> bool:
    try:
        cloud.ssh(source, f"ping -c 2 -W 2 {cloud.address(target)}")
    except (CommandFailed, RuntimeError):
        return False
    return True


def carried(cloud: HostsLab, source: str, target: str, seconds: int = 3) -> int:
    """How many of 512,000 bytes come by TCP to the target's port 8000 within this time."""
    cloud.ssh(target, "killall nc 2>/dev/null; nc -l -p 8000 -e wc -c > /dev/null 2>&1 < /dev/null &")
    counted = cloud.ssh(source, f"dd if=/dev/zero bs=1k count=500 2>/dev/null | timeout {seconds} "
                                f"nc {cloud.address(target)} 8000 2>/dev/null; true")
    return int(counted or 0)


class Wire:
    """What passes a host's card into the underlay while the block runs; afterwards `lines`, as tcpdump says it."""

    def __init__(self, cloud: HostsLab, host: Host):
        self._file = cloud.data / "wire.pcap"
        self._command = [*cloud.fabric.entrance, "tcpdump", "-U", "-i", f"under{host.number}", "-w", str(self._file)]
        self.lines: list[str] = []

    def __enter__(self) -> "Wire":
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        while "listening on" not in self._process.stderr.readline():
            assert self._process.poll() is None
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(1)  # tcpdump takes frames by the second
        self._process.terminate()
        self._process.communicate()
        self.lines = run("tcpdump", "-nn", "-e", "-r", str(self._file), "ip").splitlines()


def test_guests_of_two_hosts_reach_each_other_by_the_tunnel(cloud: HostsLab, pair: Pair) -> None:
    net, one, two = pair
    hosts = {server: cloud.host_of(server) for server in (one, two)}
    assert {host.name for host in hosts.values()} == {"host1", "host2"}
    for server, name in ((one, "one"), (two, "two")):  # DHCP and metadata are those of the own host
        assert hosts[server].domains() == [server]
        leases = hosts[server].run("cat", f"{cloud.names.run}/dhcp/{net}/leases")
        assert [cloud.ports(s)[0]["mac_address"] in leases for s in (one, two)] == [s == server for s in (one, two)]
        assert re.search(rf"READY host={name} from=http .*eth0={cloud.address(server)}/24", cloud.console(server))

    said = "".join((host.folder / "logs" / "node.log").read_text() for host in hosts.values())
    assert "virtualisation" in said and "other hosts' guests are not reached" not in said
    with Wire(cloud, hosts[one]) as wire:
        assert pings(cloud, one, two)
        assert pings(cloud, two, one)
        what_is_refused_stays_refused(cloud, one, two)
    admin = cloud.admin.get("network", f"/networks/{net}")["network"]
    assert admin["mtu"] == 1450
    frames = [line for line in wire.lines if re.match(r"\d\d:\d\d:\d\d\.", line)]  # what is in them has no time
    assert len(frames) > 400
    assert not [frame for frame in frames if ".4789: VXLAN" not in frame], "guests' frames go through tunnels only"
    assert {int(vni) for frame in frames for vni in re.findall(r"vni (\d+)", frame)} == {
        admin["provider:segmentation_id"]}
    ends = {hosts[one].underlay, hosts[two].underlay}
    assert {end for frame in frames for end in re.findall(r"(198\.19\.\d+\.\d+)\.", frame)} == ends
    lengths = [int(length) for frame in frames for length in re.findall(r"length (\d+)", frame)[:1]]
    assert max(lengths) == WHOLE_FRAME, "the guests' MTU is what the underlay's leaves, and all of it"


def what_is_refused_stays_refused(cloud: HostsLab, one: str, two: str) -> None:
    """A port that no rule names is closed to the other host's guest; a rule for the group's own members opens it,
    wherever they are."""
    assert carried(cloud, one, two) == 0
    group = next(g["id"] for g in cloud.demo.get("network", "/security-groups")["security_groups"]
                 if g["name"] == "demo")
    rule = cloud.demo.post("network", "/security-group-rules", {"security_group_rule": {
        "security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
        "port_range_min": 8000, "port_range_max": 8000, "remote_group_id": group}})["security_group_rule"]["id"]
    cloud.wait(lambda: carried(cloud, one, two, 10) == 512_000, "the rule counts", 30)
    cloud.demo.request("DELETE", "network", f"/security-group-rules/{rule}")
    cloud.wait(lambda: carried(cloud, one, two) == 0, "the rule counts no more", 30)


def test_node_and_libvirt_die_in_a_boot(cloud: HostsLab, pair: Pair) -> None:
    """Both, by force, when the domain is defined and paused; those that come after them finish the build."""
    host = cloud.host_of(pair.two)
    before = host.node_pid
    host.trigger.write_text("node domain done")
    server = cloud.boot("phoenix", pair.net, hints={"different_host": pair.one})
    cloud.wait(lambda: not host.trigger.exists(), "the node dies", 30)
    host.kill("libvirtd")
    cloud.active(server)
    assert host.node_pid != before
    assert sorted(host.domains()) == sorted([pair.two, server])
    port = cloud.ports(server)[0]
    cloud.delete(server)
    nothing_of(cloud, {server: port})
    assert pings(cloud, pair.one, pair.two), "the guest that ran meanwhile has its network"


def test_a_host_loses_power(cloud: HostsLab, pair: Pair) -> None:
    loses_power(cloud, pair.two)
    cloud.act(pair.two, {"os-start": None})
    console = cloud.ready(pair.two, 2)
    assert console.count(f"eth0={cloud.address(pair.two)}/24") == 2, "the console's log keeps both boots"
    assert pings(cloud, pair.one, pair.two)


def loses_power(cloud: HostsLab, server: str) -> None:
    """The server's host comes back without its guests; the server is off then."""
    host = cloud.host_of(server)
    host.cut_power()
    host.switch_on()
    host.await_ready()
    cloud.restart(host)
    cloud.wait(lambda: cloud.show(server)["status"] == "SHUTOFF", "SHUTOFF", 40)


def test_nothing_is_left_of_deleted_servers_and_their_network(cloud: HostsLab, pair: Pair) -> None:
    """One of them runs, the other one's host lost power: libvirt takes nothing off the bridge for it."""
    loses_power(cloud, pair.two)
    ports = {server: cloud.ports(server)[0] for server in (pair.one, pair.two)}
    cloud.delete(*ports)
    nothing_of(cloud, ports)
    used = cloud.admin.get("compute", "/os-hypervisors/detail", headers={"OpenStack-API-Version": "compute 2.87"})
    assert {h["memory_mb_used"] for h in used["hypervisors"]} == {0}
    cloud.demo.request("DELETE", "network", f"/networks/{pair.net}")
    for host in cloud.hosts.values():
        cloud.wait(lambda h=host: pair.net not in h.run("ip", "netns", "list"), "no namespace", 20)  # type: ignore[misc]
        assert not [line for line in host.run("ps", "-ww", "-eo", "args").splitlines()
                    if "dnsmasq" in line and pair.net in line]


def nothing_of(cloud: HostsLab, ports: dict[str, dict[str, Any]]) -> None:
    """On any host, of the servers that had these ports."""
    for host in cloud.hosts.values():
        for server, port in ports.items():
            cloud.wait(lambda h=host, s=server, p=port: not cloud.left_of(h, s, p),  # type: ignore[misc]
                       f"nothing of {server} on {host.name}: {cloud.left_of(host, server, port)}", 20)


def test_a_lab_that_does_not_come_up_leaves_nothing() -> None:
    with pytest.raises(AssertionError, match="NACRE_NETWORK_VXLAN_PORT"), lab(hosts=2, NACRE_NETWORK_VXLAN_PORT="no"):
        raise NotImplementedError  # the lab's own end checks that nothing is left


def test_a_lab_whose_process_is_killed_leaves_no_process_and_no_link(cloud: HostsLab) -> None:
    """Beside another, which does not notice."""
    before = {name: host.flows(cloud.names.bridge, "--no-stats") for name, host in cloud.hosts.items()}
    by_hand = subprocess.Popen([sys.executable, "-m", "tests.host.lab", "1"], stdout=subprocess.PIPE, text=True,
                               cwd=ROOT)
    try:
        assert by_hand.stdout is not None
        said = by_hand.stdout.readline()
        folder = Path(said.split("=")[1].split()[0]).parents[1]
        id = folder.name.split("-")[2]
        with pytest.raises(AssertionError, match=id):
            nothing_is_left(id, set())
    finally:
        by_hand.kill()
        by_hand.communicate()
    shutil.rmtree(folder)
    until("its processes are gone", lambda: f"lab-{id}" not in run("ps", "-ww", "-eo", "args"), 10)
    until("its link is gone", lambda: f"lab-{id}" not in run("ip", "-o", "link"), 10)
    nothing_is_left(id, set())
    assert {name: host.flows(cloud.names.bridge, "--no-stats") for name, host in cloud.hosts.items()} == before
    assert cloud.hosts_up() == set(cloud.hosts)
