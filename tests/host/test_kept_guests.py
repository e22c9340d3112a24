"""A real guest whose database is lost: it runs on, is adopted by a new one as it runs, and is at home there."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nacre import guest
from nacre.cli import demo as steps
from nacre.cli.client import Client
from nacre.node.ovs.agent import decommission
from tests.host.cloud_lab import GUEST, CloudLab, names_of, run

pytestmark = [pytest.mark.host, pytest.mark.timeout(400)]
METADATA = "timeout 5 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json"


@pytest.fixture
def cloud() -> Iterator[CloudLab]:
    made = CloudLab(Path(tempfile.mkdtemp(prefix="nacre-kept-", dir="/var/tmp")))
    try:
        yield made
    finally:
        made.delete(*made.ids())
        made.nacre("down")
        for names in (made.names, names_of(made.data)):
            asyncio.run(decommission(names))
        shutil.rmtree(made.data.parent)


def boots(cloud: CloudLab, network: str, address: str) -> str:
    """The guest's own word that it is the same and was not started anew."""
    return cloud.ssh(network, address, "cat /proc/sys/kernel/random/boot_id")


def qemu(server: str) -> list[str]:
    """The guest's process."""
    return [line.split()[0] for line in run("ps", "-ww", "-eo", "pid,args").splitlines()
            if "qemu-system" in line and server in line]


def open_default_group(client: Client) -> None:
    """Ssh is let in, which the groups that were lost did."""
    groups = client.get("network", "/security-groups")["security_groups"]
    group = next(g["id"] for g in groups if g["name"] == "default")
    client.post("network", "/security-group-rules", {"security_group_rule": {
        "security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
        "port_range_min": 22, "port_range_max": 22}})


def test_a_guest_outlives_its_database_and_is_adopted_as_it_runs(cloud: CloudLab) -> None:
    network = cloud.network("kept", "10.97.0.0/24")
    server = cloud.boot("kept", network)
    cloud.ready(server)
    address, port = cloud.address(server), cloud.ports(server)[0]
    before, process = boots(cloud, network, address), qemu(server)
    disk = next(p for root in (cloud.data, Path("/var/lib/nacre")) if root.exists() for p in root.rglob(server))
    cloud.nacre("down")
    for file in (cloud.data / "control").glob("nacre.db*"):
        file.unlink()

    with pytest.raises(AssertionError, match="servers of another cloud"):
        cloud.up()
    assert qemu(server) == process and disk.exists()
    assert boots(cloud, network, address) == before
    [orphan] = json.loads(cloud.nacre("host", "orphans", "--json"))["orphans"]
    assert (orphan["id"], orphan["power"], orphan["ports"][0]["addresses"]) == (server, "running", [address])

    cloud.nacre("host", "accept", orphan["host"])
    adopted = json.loads(cloud.nacre("host", "adopt", server, "--project", "demo", "--name", "again", "--json"))
    assert adopted["server"]["name"] == "again" and len(adopted["lost_security_groups"]) == 1
    cloud.demo = Client(cloud.data, "demo")
    found: dict[str, Any] = cloud.active(server)
    assert found["name"] == "again" and cloud.address(server) == address
    assert cloud.ports(server)[0]["mac_address"] == port["mac_address"]
    open_default_group(cloud.demo)
    cloud.wait(lambda: boots(cloud, network, address) == before, "ssh into the guest that was adopted", 60)
    assert qemu(server) == process
    said = json.loads(steps.ssh(cloud.names.namespace(network), cloud.key, address, METADATA))
    assert (said["uuid"], said["name"]) == (server, "again")

    cloud.nacre("down")
    cloud.up()  # with the names that its guest's things have on this machine
    assert cloud.active(server)["name"] == "again" and qemu(server) == process
    cloud.act(server, {"reboot": {"type": "HARD"}})
    cloud.wait(lambda: cloud.active(server) and boots(cloud, network, address) not in ("", before), "ssh again", 90)
    cloud.image = steps.image(cloud.demo, asyncio.run(guest.build(GUEST, lambda text: None)).disk)
    steps.key_pair(cloud.demo, cloud.data)
    steps.security_group(cloud.demo)
    second = cloud.boot("second", network)  # a new one beside it, on the same network
    cloud.ready(second)
    gone = {**cloud.ports(server)[0]}
    cloud.delete(server, second)
    cloud.wait(lambda: not cloud.leftovers(server, gone), "nothing left", 30)
