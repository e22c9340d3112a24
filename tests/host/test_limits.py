"""What a server asked of network and disk: it lies in its directory, and the guest itself feels the limits."""

import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from nacre.cli.client import Client
from tests.host.cloud_lab import CloudLab, run

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]
MEGA = 1_000_000
#: 10.5 MB.
READ = "sync; echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/vda of=/dev/null bs=64k count=160 2>/dev/null"


@pytest.fixture
def lab() -> Iterator[CloudLab]:
    folder = Path(tempfile.mkdtemp(prefix="nacre-limits-", dir="/var/tmp"))  # QEMU's own account must get in
    made = CloudLab(folder, NACRE_NODE_DISKS=f"{folder}/one:100,{folder}/two:100", NACRE_NODE_DISK_BANDWIDTH="4",
                    NACRE_NODE_NET_BANDWIDTH="10")
    try:
        yield made
    finally:
        made.close()


def seconds(lab: CloudLab, network: str, address: str, command: str) -> float:
    begin = time.monotonic()
    lab.ssh(network, address, command)
    return time.monotonic() - begin


def test_limits_are_claimed_and_felt(lab: CloudLab) -> None:
    net, folder = lab.network("slow", "192.0.2.0/24"), lab.data.parent
    free = lab.boot("free", net)
    lab.active(free)
    slow = lab.boot("slow", net, hints={"network_bandwidth": 4, "disk_shares": 50})
    for server in (free, slow):
        lab.ready(server)
    where = {path.parent.parent.name: path.name for path in folder.glob("*/nacre-servers/*") if path.is_dir()}
    assert sorted(where.values()) == sorted([free, slow]) and set(where) == {"one", "two"}  # the emptier one each time
    tune = ElementTree.fromstring(run("virsh", "dumpxml", slow)).find(".//disk[@device='disk']/iotune")
    assert tune is not None and tune.findtext("total_bytes_sec") == str(2 * MEGA)  # 50 of 100 shares of 4 MB/s
    addresses = {s: lab.show(s)["addresses"]["slow"][0]["addr"] for s in (free, slow)}

    limited, unlimited = (seconds(lab, net, addresses[s], READ) for s in (slow, free))
    assert limited > 3 and unlimited < limited / 2, (limited, unlimited)

    # 2 MB at 4 Mbit/s are 4 s, of which the first 0.8 s' worth may pass at once.
    away = "dd if=/dev/zero bs=1000 count=2000 2>/dev/null"
    limited, unlimited = (seconds(lab, net, addresses[s], away) for s in (slow, free))
    assert limited > 2.5 and unlimited < limited / 1.5, (limited, unlimited)
    limited, unlimited = (fed(lab, net, addresses[s]) for s in (slow, free))
    assert limited > 2.5 and unlimited < limited / 1.5, (limited, unlimited)

    # Claims: of 10 Mbit/s and of each directory's 100 shares.
    plan = json.loads(lab.nacre("plan", "--flavor", lab.flavor, "--hint", "network_bandwidth=7", "--json"))
    assert plan["placed"] == 0 and plan["nearest"].endswith("lacks 1 Mbit/s of network bandwidth")
    plan = json.loads(lab.nacre("plan", "--flavor", lab.flavor, "--hint", "disk_shares=60", "--count", "2", "--json"))
    assert (plan["placed"], [h["selected_dir"] for h in plan["hosts"]]) == (1, [f"{folder}/{place_of(where, free)}"])
    lab.delete(slow)
    assert json.loads(lab.nacre("plan", "--flavor", lab.flavor, "--hint", "disk_shares=60", "--count", "2", "--json"))[
        "placed"] == 2
    assert not list(folder.glob(f"*/nacre-servers/{slow}"))
    meters = ["ovs-ofctl", "-O", "OpenFlow14", "dump-meters", lab.names.bridge]
    lab.wait(lambda: "rate=" not in run(*meters), "no meters", 10)


def test_novas_quotas_are_felt(lab: CloudLab) -> None:
    """Each direction by itself: writing, what goes out, and a processor are slow; reading and what comes in are not."""
    net = lab.network("quotas", "192.0.2.0/24")
    servers = {"free": lab.boot("free", net)}
    lab.flavor = flavor(lab, {"quota:disk_write_bytes_sec": "1000000", "quota:vif_outbound_average": "250",
                              "quota:cpu_quota": "30000", "quota:cpu_period": "100000"})
    servers["slow"] = lab.boot("slow", net)
    for server in servers.values():
        lab.ready(server)
    at = {name: lab.address(server) for name, server in servers.items()}
    write = "dd if=/dev/zero of=/big bs=64k count=64 conv=fsync 2>/dev/null"  # 4.2 MB
    away = "dd if=/dev/zero bs=1000 count=1000 2>/dev/null"  # 1 MB at 2 Mbit/s are 4 s, less the first 0.8
    slow = {"write": seconds(lab, net, at["slow"], write), "read": seconds(lab, net, at["slow"], READ),
            "out": seconds(lab, net, at["slow"], away), "in": fed(lab, net, at["slow"])}
    assert slow["write"] > 3 and seconds(lab, net, at["free"], write) < slow["write"] / 2, slow
    assert slow["out"] > 2.5 and seconds(lab, net, at["free"], away) < slow["out"] / 1.5, slow
    assert slow["read"] < 10 and slow["in"] < 5, slow  # limited they would take 10.5 and, for 2 MB, 7 s

    shares = {name: busy(lab, net, server, at[name]) for name, server in servers.items()}
    print(slow, shares)
    (slowed, _), (free, beside) = shares["slow"], shares["free"]
    assert slowed < 0.4 and free > 0.6 * beside, shares  # beside: what the machine had to give just then
    assert dict(line.split("=") for line in run("virsh", "schedinfo", servers["slow"]).replace(" ", "").replace(
        ":", "=").splitlines() if line)["vcpu_quota"] == "30000"

    for specs, words in (({"quota:disk_read_bytes_sec": "fast"}, "quota:disk_read_bytes_sec must be a whole number"),
                         ({"quota:cpu_shares": "1"}, "quota:cpu_shares must be a whole number of 2 to 262144"),
                         ({"quota:disk_read_bytes_sec": "9", "nacre:disk_shares": "9"},
                          "disk_shares cannot stand beside quota:disk_read_bytes_sec")):
        lab.flavor = flavor(lab, specs)
        bad = lab.boot("bad", net)
        lab.wait(lambda server=bad: lab.show(server)["status"] == "ERROR", "an error", 30)
        assert "extra specs" in lab.show(bad)["fault"]["message"], lab.show(bad)["fault"]
        fault = Client(lab.data, "nacre").get("compute", f"/servers/{bad}")["server"]["fault"]
        assert words in fault["details"], fault


def flavor(lab: CloudLab, specs: dict[str, str]) -> str:
    """One like the lab's own, with these extra specs."""
    admin = Client(lab.data, "nacre")
    like = admin.get("compute", f"/flavors/{lab.flavor}")["flavor"]
    made = admin.post("compute", "/flavors", {"flavor": {
        "name": uuid.uuid4().hex, **{name: like[name] for name in ("ram", "vcpus", "disk")}}})["flavor"]["id"]
    admin.post("compute", f"/flavors/{made}/os-extra_specs", {"extra_specs": specs})
    return str(made)


def busy(lab: CloudLab, network: str, server: str, address: str) -> tuple[float, float]:
    """How much of a processor a guest gets that wants all of one, and how much a process beside it that does too."""
    lab.ssh(network, address, "timeout 12 sh -c 'while :; do :; done' > /dev/null 2>&1 < /dev/null &")
    time.sleep(1)
    beside = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        begin, before = time.monotonic(), (processor_time(server), own_time(beside.pid))
        time.sleep(4)
        took = time.monotonic() - begin
        return (processor_time(server) - before[0]) / took, (own_time(beside.pid) - before[1]) / took
    finally:
        beside.kill()
        beside.wait()


def own_time(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return used.user + used.system


def processor_time(server: str) -> float:
    stats = run("virsh", "domstats", "--vcpu", server)
    return sum(int(line.split("=")[1]) for line in stats.splitlines() if line.strip().startswith("vcpu.0.time")) / 1e9


def place_of(where: dict[str, str], server: str) -> str:
    return next(place for place, there in where.items() if there == server)


def fed(lab: CloudLab, network: str, address: str) -> float:
    """Seconds until a guest has got 2 MB."""
    begin = time.monotonic()
    run("ip", "netns", "exec", lab.names.namespace(network), "sh", "-c",
        f"head -c 2000000 /dev/zero | ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i {lab.key} "
        f"root@{address} 'cat > /dev/null'")
    return time.monotonic() - begin
