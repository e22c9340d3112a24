"""The cloud's own provider bridge, joined to the outside: by a link to this machine, which translates what comes by it
to its own address, or by an interface of the machine's that is given to the cloud.

Everything is idempotent, carries the cloud's id in its name, and goes with `remove`. Of what is the machine's own one
thing is changed: an interface by which packets leave must forward, for the answers. Who needs that is written down, so
that the last cloud that goes takes it back; where the machine forwards by itself nothing is touched.
"""

import asyncio
import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from nacre.base.clock import Clock
from nacre.base.errors import Conflict, NacreError
from nacre.base.locks import file_lock
from nacre.base.shell import CommandFailed, run
from nacre.node.names import RUN, Names
from nacre.node.ovs.ovsdb import MARK
from nacre.node.ovs.seal import quiet
from nacre.node.routing import nat
from nacre.node.routing.nat import Link

log = structlog.get_logger()

#: The physical network.
PHYSICAL = "public"
#: Interfaces that forward since clouds need it: a folder each, with a file for each cloud.
FORWARDING = RUN / "forwarding"
#: Seconds that another cloud of this machine may take for the same; between looks whether all is as it was made.
PATIENCE, LOOK = 20.0, 30.0
#: On a plugged interface that was down before.
WAS_DOWN = "nacre-was-down"
RUNDIR = Path("/run/openvswitch")
_CONF, _CONF6 = Path("/proc/sys/net/ipv4/conf"), Path("/proc/sys/net/ipv6/conf")
_NAME = re.compile(r"[A-Za-z0-9_.@:-]{1,15}", re.ASCII)


class Uplink(msgspec.Struct, frozen=True, kw_only=True):
    """What joins a cloud to the outside: the range behind this machine's address, or an interface."""

    names: Names
    cidr: str = ""
    interface: str = ""
    rundir: Path = RUNDIR


def alone() -> "contextlib.AbstractAsyncContextManager[None]":
    """For one cloud of this machine at a time: what is free for one is not for the next."""
    return file_lock(RUN / "external.lock", PATIENCE)


class Outside:
    """Keeps one cloud's uplink."""

    def __init__(self, uplink: Uplink):
        self.uplink = uplink
        self._made = ("", "")  # what nft was given last, and what it says of that: it has words of its own

    async def ensure(self) -> None:
        """It is there. Raises Conflict where something else has its place, CommandFailed."""
        async with alone():
            if self.uplink.interface:
                await _plug(self.uplink)
            else:
                await self._join()

    async def keep(self, clock: Clock) -> None:
        """For ever: who loads a firewall anew may flush all tables, and a machine may get another way out."""
        said = ""
        while True:
            try:
                await self.ensure()
                said = ""
            except (NacreError, OSError) as error:
                if said != (said := str(error)):
                    log.error("guests do not reach the outside by the public network", why=said)
            await clock.sleep(LOOK)

    async def _join(self) -> None:
        names, rundir, (here, there) = self.uplink.names, self.uplink.rundir, self.uplink.names.nat
        fresh = await link(names, self.uplink.cidr)
        if fresh or there not in await _ports(rundir, names):  # a port of a link of the same name before is dead
            await _vsctl(rundir, "--if-exists", "del-port", names.provider, there)
            await _vsctl(rundir, "add-port", names.provider, there, "--", "set", "Interface", there,
                         f"external_ids:{MARK}={names.cloud}")
        if "netdev" in await _vsctl(rundir, "get", "Bridge", names.provider, "datapath_type"):
            await run(["ethtool", "-K", here, "tx", "off"])  # frames are carried as they are, with their checksums
        ways = {name for name, each in (await machine()).items()
                if each.default and name not in names.nat and _NAME.fullmatch(name)}
        opened = await asyncio.to_thread(_open, names.short, ways)
        wanted = nat.rules(names.nat_table, here, self.uplink.cidr, opened)
        if self._made != (wanted, await _table(names.nat_table)):
            await run(["nft", "-f", "-"], stdin=wanted.encode())
            self._made = wanted, await _table(names.nat_table)


async def remove(names: Names, rundir: Path = RUNDIR) -> list[str]:
    """`take_away`, while no other cloud of this machine does the like."""
    async with alone():
        return await take_away(names, rundir)


async def take_away(names: Names, rundir: Path = RUNDIR) -> list[str]:
    """Nothing of it is left, whatever it was. Answers what was taken away, for people. Raises CommandFailed; where Open
    vSwitch does not say what is on the bridge, before anything is changed. (Within `alone`.)"""
    ports, done, (here, there) = await _ports(rundir, names), [], names.nat
    done += [f"{way} does not forward any more" for way in await asyncio.to_thread(_release, names.short, ())]
    if await _table(names.nat_table):
        await run(["nft", "-f", "-"], stdin=nat.none(names.nat_table).encode())
        done.append(f"nftables table {names.nat_table}")
    for port, ids in ports.items():
        await _vsctl(rundir, "--if-exists", "del-port", names.provider, port)
        if port != there:
            done.append(f"{port} is not in {names.provider} any more")
            if WAS_DOWN in ids:
                await run(["ip", "link", "set", port, "down"], ok=(0, 1))
    if here in await machine():
        await run(["ip", "link", "del", here])
        done.append(f"link {here}")
    return done


async def link(names: Names, cidr: str) -> bool:
    """The link's two ends are there, and the machine has its address. True if they are new. Raises Conflict, also where
    the range is not free any more. (Within `alone`.)"""
    links, (here, there) = await machine(), names.nat
    nat.check(links, names.nat, cidr)
    if made := here not in links:
        await run(["ip", "link", "add", here, "type", "veth", "peer", "name", there])
    if why := await asyncio.to_thread(quiet, there):  # of what the bridge reads there the machine hears, too
        raise Conflict(f"{there} cannot be kept apart from this machine: {why}")
    if (_CONF6 / here).is_dir():  # nobody on the network tells this machine of routes
        (_CONF6 / here / "disable_ipv6").write_text("1")
    (_CONF / here / "forwarding").write_text("1")
    wanted = f"{nat.gateway(cidr)}/{cidr.rpartition('/')[2]}"
    for address in (links[here].addresses if here in links else ()):
        if address != wanted:
            await run(["ip", "address", "del", address, "dev", here])
    await run(["ip", "address", "replace", wanted, "dev", here])
    for end in (here, there):
        await run(["ip", "link", "set", end, "up"])
    return made


async def _plug(uplink: Uplink) -> None:
    names, name = uplink.names, uplink.interface
    on = await _ports(uplink.rundir, names)
    links = await machine(uplink.rundir)
    if name in on:  # also after a reboot: Open vSwitch keeps its ports, and nobody else sets this link up
        if name in links and links[name].addresses:
            log.warning("the public network's interface was given an address, which nobody reaches", interface=name,
                        address=links[name].addresses[0])
        if name in links and not links[name].up:
            await run(["ip", "link", "set", name, "up"])
        return
    if why := nat.unfit(links, name, names.provider):
        raise Conflict(f"The public network cannot have {name}: {why}.")
    ids = [f"external_ids:{MARK}={names.cloud}", *([] if links[name].up else [f"external_ids:{WAS_DOWN}=true"])]
    await _vsctl(uplink.rundir, "--may-exist", "add-port", names.provider, name, "--", "set", "Interface", name, *ids)
    await run(["ip", "link", "set", name, "up"])


async def missing(uplink: Uplink) -> list[str]:
    """What is not as it should be, a sentence each; nothing is changed."""
    names, links = uplink.names, await machine()
    here, there = names.nat
    port = uplink.interface or there
    found = [] if port in await _ports(uplink.rundir, names) else [f"{port} is no port of {names.provider}"]
    if uplink.interface:
        if port not in links:
            return [*found, f"there is no interface {port}"]
        return found + ([] if links[port].up else [f"{port} is down"])
    own, wanted = links.get(here, Link()), f"{nat.gateway(uplink.cidr)}/{uplink.cidr.rpartition('/')[2]}"
    if wanted not in own.addresses or not own.up:
        found.append(f"this machine has no link {here} with {wanted}")
    if holder := nat.overlapped(links, here, uplink.cidr):
        found.append(f"{uplink.cidr} is not this network's alone: {holder}")
    if not await _table(names.nat_table):
        found.append(f"nftables has no table {names.nat_table}")
    ways = [name for name, each in links.items() if each.default and name != here]
    found += [f"{way} does not forward" for way in (here, *ways) if way in links and not _forwards(way)]
    if not ways:
        found.append("this machine has no default route: guests reach the machine only")
    return found + [f"nftables chain {chain} drops what is forwarded, unless a rule of it lets {here} through"
                    for chain in await _closed(names.nat_table)]


async def forwarding(names: Names) -> list[str]:
    """The interfaces that forward as this cloud needs it."""
    return await asyncio.to_thread(lambda: sorted(
        folder.name for folder in _users() if (folder / names.short).exists()))


async def machine(rundir: Path | None = None) -> dict[str, Link]:
    """The machine's links, as far as they matter here. rundir: Open vSwitch is asked for its bridges, too."""
    links = await asyncio.to_thread(_links)
    if rundir is None:
        return links
    for name, each in links.items():
        with contextlib.suppress(CommandFailed):
            if not each.bridge or each.bridge == "ovs-system":
                links[name] = msgspec.structs.replace(
                    each, bridge=(await _vsctl(rundir, "iface-to-br", name)).strip())
    return links


def _links() -> dict[str, Link]:
    from pyroute2 import IPRoute

    addresses, networks, default = defaultdict[int, list[str]](list), defaultdict[int, list[str]](list), set[int]()
    with IPRoute() as host:
        for each in host.get_addr():
            own = each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS")
            if not own.startswith("fe80:"):
                addresses[each["index"]].append(f"{own}/{each['prefixlen']}")
        for each in host.get_routes(family=2):
            ways = [hop["oif"] for hop in each.get_attr("RTA_MULTIPATH") or ()] or [each.get_attr("RTA_OIF") or 0]
            if each["dst_len"] <= 1:  # two halves of everything are everything
                default |= set(ways) if each["type"] == 1 else set()
                continue
            for way in ways:
                networks[way].append(f"{each.get_attr('RTA_DST')}/{each['dst_len']}")
        found = list(host.get_links())
    names = {each["index"]: each.get_attr("IFLA_IFNAME") for each in found} | {0: "a route to nowhere"}
    links = {names[each["index"]]: Link(
        kind=_kind(each), addresses=tuple(addresses[each["index"]]), networks=tuple(networks[each["index"]]),
        default=each["index"] in default, bridge=names.get(each.get_attr("IFLA_MASTER") or -1, ""),
        loopback=bool(each["flags"] & 8), up=bool(each["flags"] & 1)) for each in found}
    return links | ({names[0]: Link(networks=tuple(networks[0]))} if networks[0] else {})


def _kind(each: Any) -> str:
    info = each.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND") or "") if info else ""


# --- interfaces that forward --------------------------------------------------------------------------------------


def _users() -> Iterable[Path]:
    return sorted(FORWARDING.iterdir()) if FORWARDING.is_dir() else ()


def _held(users: Path) -> set[str]:
    """The clouds that need this interface to forward."""
    return {each.name for each in users.iterdir()} if users.is_dir() else set()


def _forwards(way: str) -> bool:
    try:
        return (_CONF / way / "forwarding").read_text().strip() == "1"
    except OSError:
        return False


def _open(short: str, ways: Iterable[str]) -> list[str]:
    """These forward, and others do not for this cloud's sake. With none all stays as it is: a default route may be away
    for a moment. Answers which did not forward before any cloud needed it."""
    wanted = list(ways)
    if wanted:
        _release(short, wanted)
    for way in wanted:
        users = FORWARDING / way
        if _held(users) or not _forwards(way):
            users.mkdir(parents=True, exist_ok=True)
            (users / short).touch()
            (_CONF / way / "forwarding").write_text("1")
    return [] if _forwards("all") else [users.name for users in _users() if (users / short).exists()]


def _release(short: str, wanted: Iterable[str]) -> list[str]:
    """Answers those that forward no longer: no cloud needs it, and the machine does not forward by itself. A process
    may end after each step, so a name goes after what it stands for: where a folder has none, how the interface is, is
    the machine's own business."""
    closed = []
    for users in _users():
        if users.name not in set(wanted) and (users / short).exists():
            if _held(users) == {short} and not _forwards("all") and (_CONF / users.name).is_dir():
                (_CONF / users.name / "forwarding").write_text("0")
                closed.append(users.name)
            (users / short).unlink()
        if not _held(users):
            users.rmdir()
    if FORWARDING.is_dir() and not any(FORWARDING.iterdir()):
        FORWARDING.rmdir()
    return closed


# --- programs -----------------------------------------------------------------------------------------------------


async def _vsctl(rundir: Path, *args: str) -> str:
    return (await run(["ovs-vsctl", f"--db=unix:{rundir}/db.sock", "--timeout=10", *args])).decode()


async def _ports(rundir: Path, names: Names) -> Mapping[str, dict[str, str]]:
    """The ports that were given to the provider bridge here, with what is noted of them. Raises CommandFailed: a port
    that is not seen would stay for ever."""
    if names.provider not in (await _vsctl(rundir, "list-br")).split():
        return {}
    on = set((await _vsctl(rundir, "list-ports", names.provider)).split())
    told = json.loads(await _vsctl(rundir, "--format=json", "--columns=name,external_ids", "find", "Interface",
                                   f"external_ids:{MARK}={names.cloud}"))
    return {name: dict(ids[1]) for name, ids in told["data"] if name in on}


async def _table(name: str) -> str:
    """What nft says of it; "": it is not there."""
    return (await run(["nft", "list", "table", "ip", name], ok=(0, 1))).decode()


async def _closed(own: str) -> list[str]:
    """Chains of others that forward nothing unless a rule of theirs says so."""
    told = json.loads(await run(["nft", "-j", "list", "chains"]) or b"{}")
    return sorted(f"{c['family']} {c['table']} {c['name']}" for each in told.get("nftables", ()) if (
        c := each.get("chain")) and c.get("hook") == "forward" and c.get("policy") == "drop" and c["table"] != own)
