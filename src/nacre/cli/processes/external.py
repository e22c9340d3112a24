"""`--external` of `nacre up`: what joins this machine's part of the public network to the outside, chosen and looked at
before anything is started. The node makes it and keeps it up (node/routing/external.py)."""

import asyncio
import os
import time
from typing import Any

import msgspec

from nacre.base.errors import Conflict, NacreError
from nacre.cli.processes.membership import membership
from nacre.config import External, Settings, kept_external
from nacre.config.sections import Network
from nacre.node.names import Names

#: Seconds that the host may take for it.
PATIENCE = 5.0


class NotJoined(NacreError):
    """The public network cannot be joined to the outside so; the message says what to do."""


def wanted(settings: Settings, told: str | None) -> External:
    """What the command line says, beside what the folder's cloud was started with last."""
    before = kept_external(settings.data)
    if told is None:
        return before
    if told in ("nat", "none"):
        return External(kind="nat" if told == "nat" else "none", cidr=before.cidr)
    return External(kind="interface", cidr=before.cidr, interface=told)


def settle(settings: Settings, told: str | None) -> External:
    """What is to be kept for this start and later ones; the range is chosen, and the machine's end of it made, so that
    no other cloud takes it. What was before is taken away where it is another. What is refused changes nothing. Raises
    NotJoined, NacreError."""
    before, now = kept_external(settings.data), wanted(settings, told)
    if settings.hypervisor == "fake":
        if told not in (None, "none"):
            raise NotJoined("Simulated guests have no way out: --external is for real ones.")
        return before
    if not now.leads and not before.leads:
        return now
    names = names_of(settings)
    if now.leads:
        _refuse(settings, now, names)
    try:
        return asyncio.run(_changed(settings, before, now, names))
    except Conflict as error:
        raise NotJoined(error.message) from None


def _refuse(settings: Settings, now: External, names: Names) -> None:
    from nacre.node.routing.external import PHYSICAL

    mapped = settings.node.bridge_mappings.get(PHYSICAL)
    if mapped is None:
        raise NotJoined(f"--external: node.bridge_mappings has no physical network `{PHYSICAL}`, which is what "
                        "would be joined to the outside.")
    if mapped:
        raise NotJoined(f"--external: node.bridge_mappings gives `{PHYSICAL}` the bridge {mapped}, which is yours: "
                        f"plug into it what you want (`ovs-vsctl add-port {mapped} INTERFACE`), or map `{PHYSICAL}` to "
                        "nothing, which means a bridge of the cloud's own.")
    if names.former:
        raise NotJoined("--external: this host has servers of an earlier release, whose bridge may be yours too: "
                        "rebuild or delete them first.")
    if now.kind == "nat" and membership(settings.data) is not None:
        raise NotJoined("--external nat is for the machine where the cloud's first control runs. A host that joined "
                        "may be given an interface: --external IFACE.")


async def _changed(settings: Settings, before: External, now: External, names: Names) -> External:
    from nacre.node.ovs.service import ensure_services
    from nacre.node.routing import external

    other = before.leads and (before.kind, before.interface) != (now.kind, now.interface)
    if other:
        await ensure_services(external.RUNDIR)
    async with external.alone():
        now = await _checked(settings, now, names)
        if other:
            await external.take_away(names)
        if now.kind == "nat":
            await external.link(names, now.cidr)
    return now


async def _checked(settings: Settings, now: External, names: Names) -> External:
    """With its range, if it has one. Raises Conflict."""
    from nacre.node.routing import external, nat

    if now.kind == "interface" and (
            why := nat.unfit(await external.machine(external.RUNDIR), now.interface, names.provider)):
        raise Conflict(f"--external {now.interface}: {why}.")
    if now.kind != "nat":
        return now
    own, links = nat.range_of(settings.network.public_cidr), await external.machine()
    cidr = nat.choose(links, names.nat[0], now.cidr or own, only=bool(now.cidr) or own != Network().public_cidr)
    nat.check(links, names.nat, cidr)
    return msgspec.structs.replace(now, cidr=cidr)


def names_of(settings: Settings) -> Names:
    """What the things of the folder's cloud are called here. Raises NotJoined: there is none."""
    from nacre.cli.supervisor import cloud_id
    from nacre.cloud.node import guests_folder
    from nacre.node.hypervisor.libvirt.places import host_names

    member = membership(settings.data)
    try:
        cloud = member.cloud if member is not None else cloud_id(settings.data)
    except FileNotFoundError:
        raise NotJoined(f"No cloud was ever started in {settings.data}.") from None
    return host_names(cloud, guests_folder(settings.data), tuple(settings.node.disks))


def state(settings: Settings) -> dict[str, Any] | None:
    """For people and programs: what joins the public network to the outside, and what is wrong with it; None: nothing
    does."""
    told = kept_external(settings.data)
    if not told.leads or settings.hypervisor == "fake":
        return None
    found: dict[str, Any] = {"kind": told.kind, "cidr": told.cidr if told.kind == "nat" else None,
                             "interface": told.interface or None, "forwarding": [], "wrong": []}
    try:
        names = names_of(settings)
        found |= asyncio.run(_looked(told, names))
        if told.kind == "nat":
            found["interface"] = names.nat[0]
    except (NacreError, OSError) as error:
        found["wrong"] = [str(error)]
    return found


async def _looked(told: External, names: Names) -> dict[str, Any]:
    from nacre.node.routing.external import Uplink, forwarding, missing

    own = Uplink(names=names, cidr=told.cidr if told.kind == "nat" else "",
                 interface=told.interface if told.kind == "interface" else "")
    return {"wrong": await missing(own), "forwarding": await forwarding(names)}


def sentence(found: dict[str, Any]) -> str:
    """What `state` found, in words."""
    if found["kind"] == "interface":
        return f"The network `public` leaves this machine by {found['interface']}."
    also = f"; {', '.join(found['forwarding'])} forwards for it" if found["forwarding"] else ""
    return f"The network `public` is {found['cidr']}, behind this machine's address, by {found['interface']}{also}."


def said(settings: Settings) -> str:
    """What `nacre up` says of it, once the host that was just started has made it; "": there is nothing to say."""
    end = time.monotonic() + PATIENCE
    while (found := state(settings)) is not None and found["wrong"] and time.monotonic() < end:
        time.sleep(0.2)
    return "" if found is None else "\n".join((sentence(found), *found["wrong"]))


def purge(settings: Settings) -> list[str]:
    """All that this machine's network has of a cloud that is down: answers what was taken away, and what was not.
    Raises NacreError."""
    if os.geteuid() != 0:
        raise NotJoined("What the cloud has of this machine's network is taken away by root: use `sudo`.")
    return asyncio.run(_purge(settings, names_of(settings)))


async def _purge(settings: Settings, names: Names) -> list[str]:
    from nacre.node.journal import Journal
    from nacre.node.ovs.agent import decommission
    from nacre.node.ovs.service import ensure_services
    from nacre.node.routing import external

    await ensure_services(external.RUNDIR)
    done, file = await external.remove(names), settings.data / "node" / "journal.db"
    if file.exists():
        journal = Journal(file)
        held = len(journal.all())
        await journal.close()
        if held:
            return [*done, f"{held} servers are still on this machine, and keep its bridges: delete them, and purge "
                           "once more"]
    await decommission(names)
    return [*done, f"bridges {names.bridge} and {names.provider}, with what was on them"]
