"""What is written into Open vSwitch's database, by processes that know nothing of each other: in a database of the
test's own, with nobody behind it."""

import asyncio
import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nacre.base.errors import Conflict
from nacre.base.shell import run
from nacre.node.names import Names
from nacre.node.ovs.ovsdb import BridgeSettings, Ovsdb

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
pytestmark = [pytest.mark.host, pytest.mark.skipif(not SCHEMA.exists() or not shutil.which("ovsdb-server"),
                                                   reason="needs Open vSwitch's programs")]
#: Waits for a line, so that all start together; then gives one zone at a time.
GIVE = """
import json, sys
from pathlib import Path
from nacre.node.names import Names
from nacre.node.ovs.ovsdb import BridgeSettings, Ovsdb
db, ports = Ovsdb(BridgeSettings(names=Names(sys.argv[1]), rundir=Path(sys.argv[2]))), sys.argv[3:]
db.interfaces()
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps([db.zones(frozenset([port]))[0][port] for port in ports]), flush=True)
db.stop()
"""
PORTS = 25


@pytest.fixture
async def rundir(tmp_path: Path) -> AsyncIterator[Path]:
    await run(["ovsdb-tool", "create", f"{tmp_path}/conf.db", str(SCHEMA)])
    server = await asyncio.create_subprocess_exec(
        "ovsdb-server", f"{tmp_path}/conf.db", f"--remote=punix:{tmp_path}/db.sock", "-vconsole:off",
        f"--unixctl={tmp_path}/ctl")
    await run(["ovs-vsctl", f"--db=unix:{tmp_path}/db.sock", "--no-wait", "--retry", "--timeout=10", "init", "--",
               "set", "Open_vSwitch", ".", "cur_cfg=1000000"])  # as if all that comes were done already
    yield tmp_path
    server.terminate()
    await server.wait()


async def vsctl(rundir: Path, *words: str) -> str:
    return (await run(["ovs-vsctl", f"--db=unix:{rundir}/db.sock", "--no-wait", *words])).decode()


async def bridge(rundir: Path, names: Names) -> list[str]:
    """A cloud's bridge with some guests' ports: their ids."""
    ports = [str(uuid.uuid4()) for _ in range(PORTS)]
    command = ["add-br", names.bridge]
    for port in ports:
        tap = names.tap(port)
        command += ["--", "add-port", names.bridge, tap, "--", "set", "Interface", tap, f"external_ids:iface-id={port}"]
    await vsctl(rundir, *command)
    return ports


async def test_no_two_ports_of_a_machine_ever_share_a_zone(rundir: Path) -> None:
    clouds = {str(uuid.uuid4()): ["?"] for _ in range(4)}
    for cloud in clouds:
        clouds[cloud] = await bridge(rundir, Names(cloud))
    givers = [await asyncio.create_subprocess_exec(
        sys.executable, "-c", GIVE, cloud, str(rundir), *ports, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE) for cloud, ports in clouds.items()]
    for giver in givers:
        assert giver.stdout is not None and await giver.stdout.readline() == b"ready\n"
    said = await asyncio.gather(*(giver.communicate(b"go\n") for giver in givers))
    given = [zone for out, _ in said for zone in out.decode().strip("[]\n").split(", ")]
    assert len(given) == len(set(given)) == 4 * PORTS


async def test_a_zone_is_kept_as_long_as_its_interface(rundir: Path) -> None:
    cloud = Names(str(uuid.uuid4()))
    ports = await bridge(rundir, cloud)
    settings = BridgeSettings(names=cloud, rundir=rundir)
    db = Ovsdb(settings)
    zones, given = await asyncio.to_thread(db.zones, frozenset(ports))
    assert set(zones) == set(ports) == given and len(set(zones.values())) == PORTS
    await asyncio.to_thread(db.stop)
    again = Ovsdb(settings)  # the node comes back, and did not say yet that they are flushed
    assert await asyncio.to_thread(again.zones, frozenset(ports)) == (zones, given)
    await asyncio.to_thread(again.used, given)
    await asyncio.to_thread(again.stop)
    again = Ovsdb(settings)
    assert await asyncio.to_thread(again.zones, frozenset(ports)) == (zones, set())

    tap = cloud.tap(ports[0])
    await vsctl(rundir, "del-port", tap, "--", "add-port", cloud.bridge, tap, "--", "set", "Interface", tap,
                f"external_ids:iface-id={ports[0]}")  # the guest was started anew
    for _ in range(100):
        after, given = await asyncio.to_thread(again.zones, frozenset(ports))
        if given:
            break
        await asyncio.sleep(0.05)
    assert given == {ports[0]} and after[ports[0]] not in zones.values()
    await asyncio.to_thread(again.stop)


async def test_an_unplugged_port_has_no_interface_also_where_its_link_is_gone(rundir: Path) -> None:
    """After a power cut nobody took the guests' interfaces off; they would keep their zones for ever."""
    cloud = Names(str(uuid.uuid4()))
    ports = await bridge(rundir, cloud)
    await vsctl(rundir, "set", "Interface", cloud.tap(ports[0]), "ofport=-1")
    db = Ovsdb(BridgeSettings(names=cloud, rundir=rundir))
    for _ in range(2):
        await asyncio.to_thread(db.unplug, frozenset([*ports[:2], "never-seen"]))
    left = (await vsctl(rundir, "list-ports", cloud.bridge)).split()
    assert sorted(left) == sorted(map(cloud.tap, ports[2:]))
    await asyncio.to_thread(db.stop)


async def ensure(settings: BridgeSettings) -> Ovsdb:
    db = Ovsdb(settings)
    await asyncio.to_thread(db.ensure, "netdev")
    return db


async def test_a_bridge_has_the_ways_out_that_are_wanted_and_no_others(rundir: Path) -> None:
    names = Names(str(uuid.uuid4()))
    settings = BridgeSettings(names=names, rundir=rundir, tunnel_ip="192.0.2.1", vxlan_port=4790,
                              mappings={"public": "", "rack": "br-rack"})
    await ensure(settings)
    assert settings.providers == {"public": names.provider, "rack": "br-rack"}
    out = [names.patches("public")[0], names.patches("rack")[0], names.tunnel]
    assert sorted((await vsctl(rundir, "list-ports", names.bridge)).split()) == sorted(out)
    assert '"4790"' in await vsctl(rundir, "get", "Interface", names.tunnel, "options:dst_port")
    db = await ensure(BridgeSettings(names=names, rundir=rundir, tunnel_ip="127.0.0.1", mappings={"public": ""}))
    assert (await vsctl(rundir, "list-ports", names.bridge)).split() == [names.patches("public")[0]]
    assert await vsctl(rundir, "list-ports", "br-rack") == ""
    await asyncio.to_thread(db.remove)
    assert (await vsctl(rundir, "list-br")).split() == ["br-rack"]  # an operator's own stays


async def test_a_tunnel_that_leads_nowhere_is_said_with_the_reason(rundir: Path) -> None:
    await vsctl(rundir, "add-br", "br-under", "--", "set", "Bridge", "br-under", "datapath_type=netdev", "--",
                "add-br", "br-kernel")

    def said(datapath: str, link: str, address: str | None = "192.0.2.1") -> str:
        db = Ovsdb(BridgeSettings(names=Names(str(uuid.uuid4())), rundir=rundir, tunnel_ip=address))
        try:
            return db.strayed(datapath, link)
        finally:
            db.stop()

    for datapath, link, why in (
            ("netdev", "br-under", ""), ("system", "eth0", ""), ("system", "br-kernel", ""),
            ("netdev", "eth0", "192.0.2.1 is the address of eth0"), ("netdev", "br-kernel", "wants it on a bridge"),
            ("netdev", "", "does not have the address"), ("system", "", "does not have the address")):
        text = await asyncio.to_thread(said, datapath, link)
        assert why in text and bool(why) == bool(text), (datapath, link, text)
    for address in (None, "127.0.0.1"):
        assert await asyncio.to_thread(said, "netdev", "lo", address) == ""


async def test_a_bridge_of_another_cloud_is_not_taken(rundir: Path) -> None:
    one, other = (BridgeSettings(names=Names(f"c10d0000-0000-4000-8000-00000000000{n}"), rundir=rundir) for n in (1, 2))
    await ensure(one)
    await ensure(one)
    with pytest.raises(Conflict, match="br-int-c10d0000 is not this cloud's"):
        await ensure(other)
    with pytest.raises(Conflict, match="br-int-c10d0000 is not this cloud's"):
        await asyncio.to_thread(Ovsdb(other).networks)  # the first that is asked when all of a cloud's is removed


async def test_the_bridge_of_before_goes_on_in_the_cloud_that_it_is_marked_with(rundir: Path) -> None:
    names = Names(str(uuid.uuid4()), former=True)
    mine = BridgeSettings(names=names, rundir=rundir, folder="/srv/mine", mappings={"public": ""})
    await vsctl(rundir, "add-br", "br-int", "--", "br-set-external-id", "br-int", "nacre-data", "/srv/mine", "--",
                "add-br", "br-ex", "--", "add-port", "br-int", "tap0", "--",
                "add-port", "br-int", "vx-br-int", "--", "set", "Interface", "vx-br-int", "type=vxlan", "--",
                "add-port", "br-int", "int-public-br-int", "--", "add-port", "br-ex", "phy-public-br-int", "--",
                "set", "Interface", "int-public-br-int", "type=patch", "options:peer=phy-public-br-int")
    with pytest.raises(Conflict, match="br-int is not this cloud's"):
        await ensure(BridgeSettings(names=Names(str(uuid.uuid4()), former=True), rundir=rundir, folder="/srv/other"))
    db = await ensure(mine)
    here, there = names.patches("public")
    assert sorted((await vsctl(rundir, "list-ports", "br-int")).split()) == sorted(["tap0", here])
    assert (await vsctl(rundir, "list-ports", "br-ex")).split() == [there]
    assert (await vsctl(rundir, "br-get-external-id", "br-int", "nacre-cloud")).strip() == names.cloud
    await asyncio.to_thread(db.remove)
    assert (await vsctl(rundir, "list-br")).split() == ["br-ex"]  # an operator may have plugged something into it
