"""Real guests on a real network, through the public APIs: what they get, whom they reach, and that nothing is left."""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nacre.base.shell import CommandFailed
from tests.host.cloud_lab import CloudLab, run

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def lab() -> Iterator[CloudLab]:
    folder = Path(tempfile.mkdtemp(prefix="nacre-guests-", dir="/var/tmp"))  # QEMU's own account must get in
    made = CloudLab(folder)
    try:
        yield made
    finally:
        made.close()


def pings(lab: CloudLab, net: str, source: str, target: str) -> bool:
    """Whether a guest reaches an address."""
    try:
        lab.ssh(net, source, f"ping -c 2 -W 1 {target}")
    except CommandFailed:
        return False
    return True


def test_two_guests_and_a_closed_one(lab: CloudLab) -> None:
    net = lab.network("blue", "192.0.2.0/24")
    lab.demo.post("network", "/security-groups", {"security_group": {"name": "closed"}})
    user_data = "IyEvYmluL3NoCmVjaG8gdXNlci1kYXRhIHJhbiBvbiAkKGhvc3RuYW1lKQo="  # echo user-data ran on $(hostname)
    one = lab.boot("one", net, config_drive=True, user_data=user_data, metadata={"colour": "blue"})
    two = lab.boot("two", net)
    shut = lab.boot("shut", net, security_groups=[{"name": "closed"}])
    consoles = {s: lab.ready(s) for s in (one, two, shut)}
    where = {s: lab.address(s) for s in (one, two, shut)}
    for server in (one, two, shut):
        assert f"eth0={where[server]}/24" in consoles[server]
        assert {p["status"] for p in lab.ports(server)} == {"ACTIVE"}
    assert "user-data ran on one" in consoles[one]

    assert pings(lab, net, where[one], where[two])
    assert pings(lab, net, where[two], where[one])
    assert "one" in lab.ssh(net, where[two], f"timeout 5 nc {where[one]} 22 < /dev/null; echo one")
    assert not pings(lab, net, where[one], where[shut])
    assert "closed" in lab.ssh(net, where[two], f"timeout 3 nc {where[shut]} 22 < /dev/null > /dev/null || echo closed")

    documents = json.loads(lab.ssh(
        net, where[two], "timeout 5 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json"))
    assert (documents["uuid"], documents["name"]) == (two, "two")
    drive = json.loads(lab.ssh(net, where[one], "mount -o ro /dev/sr0 /mnt 2>/dev/null || mount -o ro "
                               "$(findfs LABEL=config-2) /mnt; cat /mnt/openstack/latest/meta_data.json; umount /mnt"))
    assert (drive["uuid"], drive["meta"]) == (one, {"colour": "blue"})
    spoofing_reaches_nobody(lab, net, where[one], where[two])
    goes_without_a_trace(lab, net, (one, two, shut))


def spoofing_reaches_nobody(lab: CloudLab, net: str, source: str, target: str) -> None:
    """A second address inside the guest, and then another MAC address: no answer comes."""
    lab.ssh(net, source, "ip addr add 192.0.2.250/24 dev eth0")
    with pytest.raises(CommandFailed):
        lab.ssh(net, source, f"ping -c 2 -W 1 -I 192.0.2.250 {target}")
    lab.ssh(net, source, "ip addr del 192.0.2.250/24 dev eth0")
    assert pings(lab, net, source, target)
    change = "(sleep 1; ip link set eth0 down; ip link set eth0 address fa:16:3e:99:99:99; ip link set eth0 up; "
    change += f"ping -c 3 -W 1 {target} > /run/forged 2>&1; ip link set eth0 down; ip link set eth0 address $M; "
    change += "ip link set eth0 up) > /dev/null 2>&1 &"
    lab.ssh(net, source, f"M=$(cat /sys/class/net/eth0/address); {change}")
    forged = lab.wait(lambda: re.search(r"(\d+) packets received", lab.ssh(net, source, "cat /run/forged")),
                      "the forged ping's result", 40)
    assert forged.group(1) == "0"


def goes_without_a_trace(lab: CloudLab, net: str, servers: tuple[str, ...]) -> None:
    ports: dict[str, dict[str, Any]] = {s: lab.ports(s)[0] for s in servers}
    lab.delete(*servers)
    for server in servers:
        lab.wait(lambda s=server: not lab.leftovers(s, ports[s]) or None,  # type: ignore[misc]
                 f"nothing left of {server}: {lab.leftovers(server, ports[server])}", 20)
    space = lab.names.namespace(net)
    lab.demo.request("DELETE", "network", f"/networks/{net}")
    lab.wait(lambda: space not in run("ip", "netns", "list"), "the namespace is gone", 20)
    assert not [x for x in run("ps", "-eo", "args").splitlines() if "dnsmasq" in x and net in x]


def test_power_keeps_the_guest(lab: CloudLab) -> None:
    net = lab.network("power", "198.51.100.0/24")
    server = lab.boot("steady", net)
    lab.ready(server)
    before = lab.address(server)
    lab.act(server, {"os-stop": None})
    lab.wait(lambda: lab.show(server)["status"] == "SHUTOFF", "SHUTOFF", 90)
    lab.act(server, {"os-start": None})
    lab.ready(server, 2)
    lab.act(server, {"reboot": {"type": "HARD"}})
    console = lab.ready(server, 3)
    assert lab.address(server) == before
    assert console.count(f"eth0={before}/24") >= 3, "the console log keeps all boots"
    assert lab.ssh(net, before, "hostname") == "steady"
    goes_without_a_trace(lab, net, (server,))


@pytest.mark.parametrize("point", ["node disks done", "node journal spawning", "node domain done", "node boot begins",
                                   "control spawn begins"])
def test_killed_in_a_build_with_libvirt(lab: CloudLab, point: str) -> None:
    net = lab.network("kill", "203.0.113.0/24")
    lab.arm(point)
    server = lab.boot("phoenix", net)
    lab.active(server, 30)
    assert not lab.trigger.exists(), f"no process passed {point!r}"
    assert run("virsh", "list", "--uuid").split().count(server) == 1
    goes_without_a_trace(lab, net, (server,))


def test_a_killed_node_leaves_its_guests_running(lab: CloudLab) -> None:
    net = lab.network("adopt", "192.0.2.0/24")
    server = lab.boot("survivor", net)
    lab.ready(server)
    pid = int((lab.data / "run" / "node.pid").read_text())
    run("kill", "-9", str(pid))
    assert "survivor" in lab.ssh(net, lab.address(server), "hostname")
    lab.wait(lambda: int((lab.data / "run" / "node.pid").read_text()) != pid, "another node process", 30)
    assert lab.show(server)["status"] == "ACTIVE"
    lab.wait(lambda: lab.act(server, {"reboot": {"type": "HARD"}}) is None, "the new node takes orders", 30)
    lab.ready(server, 2)
    goes_without_a_trace(lab, net, (server,))
