"""Two clouds with guests on one machine, the first as `nacre demo` leaves it: the same names, the same network, the
same address in both; each guest is its own cloud's, and what happens to one cloud the other does not notice."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nacre.cli import demo as steps
from nacre.cli.client import Client
from nacre.cli.database import DEMO_CIDR as CIDR
from tests.host.cloud_lab import ROOT, CloudLab, names_of, run
from tests.host.test_demo import Demo, demo, eventually

__all__ = ["demo"]
pytestmark = [pytest.mark.host, pytest.mark.timeout(400)]
METADATA = "timeout 5 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json"


@pytest.fixture
def second(demo: Demo) -> Iterator[CloudLab]:
    """Beside a running demo, as `./nacre test` is."""
    demo.facts()
    made = CloudLab(Path(tempfile.mkdtemp(prefix="nacre-second-", dir="/var/tmp")))
    try:
        yield made
    finally:
        if made.data.exists():
            made.close()


def seen(data: Path) -> dict[str, Any]:
    """All that this machine has of the cloud in this folder; of its flows those that stay: what a next hop answered is
    learnt for seconds."""
    names = names_of(data)
    told = run("ovs-ofctl", "-O", "OpenFlow14", "--no-stats", "dump-flows", names.bridge)
    flows = [line for line in told.splitlines() if "hard_timeout" not in line]
    rows = json.loads(run("ovs-vsctl", "--format=json", "--columns=name,ofport,external_ids", "list", "Interface"))
    interfaces = sorted(row for row in rows["data"] if names.short in row[0])
    zones = re.findall(r"zone=(\d+)", "\n".join(flows))
    return {
        "flows": sorted(flows), "interfaces": interfaces, "zones": sorted(set(zones)),
        "connections": sorted(line for zone in set(zones) for line in run(
            "ovs-appctl", "dpctl/dump-conntrack", f"zone={zone}").splitlines() if "ESTABLISHED" in line),
        "namespaces": [line.split()[0] for line in run("ip", "netns").splitlines() if names.short in line],
        "links": sorted(re.findall(rf"\d+: (\S*{names.short}\S*?)[@:]", run("ip", "-o", "link"))),
        "domains": [domain for domain in run("virsh", "list", "--uuid").split()
                    if names.cloud in run("virsh", "dumpxml", domain, check=False)],
        "dnsmasq": [line for line in run("ps", "-ww", "-eo", "pid,user,args").splitlines()
                    if "dnsmasq" in line and str(names.run) in line],
        "seal": run("nft", "list", "table", "netdev", names.table)}


def differs(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, str]]:
    """What of it is gone or new, by kind."""
    return [(kind, str(each)) for kind in before for each in [*before[kind], *now[kind]]
            if (each in before[kind]) != (each in now[kind])]


def session(data: Path, network: str, address: str) -> "subprocess.Popen[str]":
    """An ssh connection into a guest, which says something each second."""
    return subprocess.Popen(
        ["ip", "netns", "exec", names_of(data).namespace(network), "ssh", "-oStrictHostKeyChecking=no",
         "-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR", "-i", str(data / "demo_key"), f"root@{address}",
         "while sleep 1; do hostname; done"], stdout=subprocess.PIPE, text=True)


def hears(talk: "subprocess.Popen[str]") -> str:
    assert talk.stdout is not None
    return talk.stdout.readline().strip()


def test_two_clouds_with_guests_side_by_side(demo: Demo, second: CloudLab) -> None:
    first = Client(demo.data, "demo")
    (server,) = first.get("compute", "/servers/detail")["servers"]
    network = first.get("network", "/networks", params={"name": "demo"})["networks"][0]["id"]
    address, here = steps.address(server), names_of(demo.data)
    talk = session(demo.data, network, address)
    try:
        assert hears(talk) == "demo"
        before = seen(demo.data)
        assert before["domains"] == [server["id"]] and len(before["dnsmasq"]) == 1 and before["connections"]
        assert before["dnsmasq"][0].split()[1] == "nobody" and before["namespaces"] == [here.namespace(network)]

        net = second.network("demo", CIDR)
        other = second.boot("other", net, networks=[{"uuid": net, "fixed_ip": address}])
        second.ready(other)
        assert second.address(other) == address and second.names.short != here.short
        for data, names, where, wanted in ((demo.data, here, network, ("demo", server["id"])),
                                           (second.data, second.names, net, ("other", other))):
            said = json.loads(steps.ssh(names.namespace(where), data / "demo_key", address, METADATA))
            assert (said["name"], said["uuid"]) == wanted
        assert seen(demo.data) == before
        mine = seen(second.data)
        assert not set(mine["zones"]) & set(before["zones"]) and mine["domains"] == [other]

        for harm in (lambda: kill_node(second), lambda: second.act(other, {"reboot": {"type": "HARD"}}),
                     lambda: second.delete(other), second.close):
            harm()
            assert seen(demo.data) == before
        assert hears(talk) == "demo"

        kill_node(demo)  # and its own node comes back to what there is
        eventually(lambda: first.get("compute", f"/servers/{server['id']}")["server"]["status"] == "ACTIVE",
                   lambda: "not ACTIVE")
        assert steps.ssh(here.namespace(network), demo.data / "demo_key", address, "hostname") == "demo"
        # It asks next hops anew, and what goes outside waits for their answers.
        eventually(lambda: differs(before, seen(demo.data)) == [], lambda: differs(before, seen(demo.data)))
        assert hears(talk) == "demo"
    finally:
        talk.kill()
        first.request("DELETE", "compute", f"/servers/{server['id']}")
        eventually(lambda: not first.get("compute", "/servers")["servers"], lambda: "the server is still there")


#: Tests that make whatever tests make on a machine: bridges, namespaces, guests, nodes, a cloud of processes.
TESTS = ("tests/contract/test_wiring.py", "tests/contract/test_hypervisor.py", "tests/contract/test_domain_owner.py",
         "tests/host/test_wiring_basics.py::test_dhcp_groups_tcp_and_metadata",
         "tests/host/test_wiring_basics.py::test_the_agent_comes_back_and_adopts",
         "tests/cloud/test_processes.py::test_down_and_up_again_keeps_everything")


def test_the_tests_own_clouds_come_and_go_beside_a_running_demo(demo: Demo) -> None:
    """What `./nacre demo && ./nacre test` asks for: neither notices the other."""
    first = demo.facts()["server"]
    client = Client(demo.data, "demo")
    network = client.get("network", "/networks", params={"name": "demo"})["networks"][0]["id"]
    space, key, address = names_of(demo.data).namespace(network), demo.data / "demo_key", first["address"]
    talk = session(demo.data, network, address)
    try:
        assert hears(talk) == "demo"
        before, boot = seen(demo.data), steps.ssh(space, key, address, "cat /proc/sys/kernel/random/boot_id")
        assert before["domains"] == [first["id"]] and before["flows"]
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS], cwd=ROOT,
                              env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True,
                              timeout=300, check=False)
        assert done.returncode == 0, done.stdout[-4000:]
        assert "skipped" not in done.stdout.splitlines()[-1]  # they were run, not left out
        assert hears(talk) == "demo" and talk.poll() is None
        assert steps.ssh(space, key, address, "cat /proc/sys/kernel/random/boot_id") == boot
        assert seen(demo.data) == before
        assert client.get("compute", f"/servers/{first['id']}")["server"]["status"] == "ACTIVE"
    finally:
        talk.kill()
        client.request("DELETE", "compute", f"/servers/{first['id']}")
        eventually(lambda: not client.get("compute", "/servers")["servers"], lambda: "the server is still there")


def kill_node(cloud: "Demo | CloudLab") -> None:
    """As by the kernel; its supervisor starts another, which is waited for."""
    file = cloud.data / "run" / "node.pid"
    log, pid = cloud.data / "logs" / "node.log", file.read_text()
    starts = log.read_text().count("virtualisation")
    run("kill", "-9", pid)
    eventually(lambda: file.read_text() != pid and log.read_text().count("virtualisation") > starts, lambda: "no node")
    time.sleep(3)
