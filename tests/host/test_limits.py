"""What a server asked of network and disk: it lies in its directory, and the guest itself feels the limits."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nacre.node.netns import Namespaces
from tests.host.cloud_lab import CloudLab, run

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]
MEGA = 1_000_000


@pytest.fixture
def lab() -> Iterator[CloudLab]:
    folder = Path(tempfile.mkdtemp(prefix="nacre-limits-", dir="/var/tmp"))  # QEMU's own account must get in
    made = CloudLab(folder, NACRE_NODE_DISKS=f"{folder}/one:100,{folder}/two:100", NACRE_NODE_DISK_BANDWIDTH="4",
                    NACRE_NODE_NET_BANDWIDTH="10")
    try:
        yield made
    finally:
        made.delete(*made.ids())
        made.nacre("down")
        shutil.rmtree(folder, ignore_errors=True)


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

    read = "sync; echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/vda of=/dev/null bs=64k count=160 2>/dev/null"
    limited, unlimited = (seconds(lab, net, addresses[s], read) for s in (slow, free))  # 10.5 MB
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
    meters = ["ovs-ofctl", "-O", "OpenFlow14", "dump-meters", "br-int"]
    lab.wait(lambda: "rate=" not in run(*meters), "no meters", 10)


def place_of(where: dict[str, str], server: str) -> str:
    return next(place for place, there in where.items() if there == server)


def fed(lab: CloudLab, network: str, address: str) -> float:
    """Seconds until a guest has got 2 MB."""
    begin = time.monotonic()
    run("ip", "netns", "exec", Namespaces().names(network)[0], "sh", "-c",
        f"head -c 2000000 /dev/zero | ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i {lab.key} "
        f"root@{address} 'cat > /dev/null'")
    return time.monotonic() - begin
