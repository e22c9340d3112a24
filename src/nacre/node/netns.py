"""Network namespaces and the veth pairs that join them to the bridge (a bridge's internal ports would be orphaned in
there when vswitchd restarts). Everything is idempotent, and only this cloud's names are ever touched."""

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from nacre.base.shell import run
from nacre.node.names import Names

T = TypeVar("T")

RUN = Path("/run/netns")
INNER = "dhcp0"
_CLONE_NEWNET = 0x40000000
_NODAD = 0x02
_UNIVERSE, _LINK = 0, 253
#: Set inside, before the link comes up: the same addresses live on every host, and routers' words are not for us.
_SYSCTLS = {"accept_ra": "0", "accept_dad": "0", "autoconf": "0"}


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace wanted: one link into it with this MAC, MTU and these addresses (with prefix length)."""

    namespace: str
    outer: str  # the veth's end on the host, a port of the bridge
    mac: str
    mtu: int
    addresses: tuple[str, ...]


class Namespaces:
    """Makes and removes the places of one cloud's networks."""

    def __init__(self, names: Names):
        self.names = names

    async def ensure(self, place: Place) -> bool:
        """The place exists as described. True if the veth is new (the bridge must take it anew)."""
        made = await asyncio.to_thread(_ensure, place)
        if made:  # checksums must be complete in frames that a userspace datapath carries
            await run(["ip", "netns", "exec", place.namespace, "ethtool", "-K", INNER, "tx", "off"])
        return made

    async def remove(self, network_id: str) -> None:
        """The network's namespace and veth are gone."""
        await asyncio.to_thread(_remove, self.names.namespace(network_id), self.names.veth(network_id))

    async def networks(self) -> list[str]:
        """The ids of the networks that have a namespace of this cloud here."""
        prefix = self.names.namespaces
        return await asyncio.to_thread(lambda: sorted(p.name.removeprefix(prefix) for p in RUN.glob(f"{prefix}*")))


async def inside(namespace: str, work: Callable[[], T]) -> T:
    """The result of `work()`, run by a thread that lives in the namespace and ends with it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def body() -> None:
        try:
            enter(namespace)
            outcome: tuple[Any, BaseException | None] = (work(), None)
        except BaseException as error:
            outcome = (None, error)
        loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=body, name=f"netns-{namespace}", daemon=True).start()
    return await future


def enter(namespace: str) -> None:
    """Moves the calling thread into the namespace, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(RUN / namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(handle, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace} failed")
    finally:
        os.close(handle)


def _ensure(place: Place) -> bool:
    from pyroute2 import IPRoute, NetNS, netns

    if place.namespace not in netns.listnetns():
        netns.create(place.namespace)
    with IPRoute() as host, NetNS(place.namespace) as inner:
        made = not (host.link_lookup(ifname=place.outer) and inner.link_lookup(ifname=INNER))
        if made:
            for index in host.link_lookup(ifname=place.outer):
                host.link("del", index=index)
            host.link("add", ifname=place.outer, kind="veth",
                      peer={"ifname": INNER, "net_ns_fd": place.namespace})
        outer = host.link_lookup(ifname=place.outer)[0]
        host.link("set", index=outer, mtu=place.mtu, state="up")
        _sysctls(place.namespace)
        index = inner.link_lookup(ifname=INNER)[0]
        for loopback in inner.link_lookup(ifname="lo"):
            inner.link("set", index=loopback, state="up")
        current = dict(inner.get_links(index)[0]["attrs"])
        if current.get("IFLA_ADDRESS") != place.mac.lower():
            inner.link("set", index=index, address=place.mac)
        inner.link("set", index=index, mtu=place.mtu, state="up")
        _addresses(inner, index, place.addresses)
    return made


def _addresses(inner: Any, index: int, wanted: tuple[str, ...]) -> None:
    have: dict[str, Mapping[str, Any]] = {}
    for message in inner.get_addr(index=index):
        have[f"{dict(message['attrs'])['IFA_ADDRESS']}/{message['prefixlen']}"] = message
    for text in wanted:
        if text not in have:
            address, _, length = text.partition("/")
            flags = {"flags": _NODAD} if ":" in address else {}
            inner.addr("add", index=index, address=address, prefixlen=int(length), **flags)
    for text, message in have.items():
        automatic = text.startswith("fe80:")
        if text not in wanted and not automatic:
            inner.addr("del", index=index, address=text.partition("/")[0], prefixlen=message["prefixlen"])


def _sysctls(namespace: str) -> None:
    def write() -> None:
        enter(namespace)
        for name, value in _SYSCTLS.items():
            path = Path(f"/proc/sys/net/ipv6/conf/{INNER}/{name}")
            if path.exists():  # a host without IPv6
                path.write_text(value)

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()


def _remove(namespace: str, outer: str) -> None:
    from pyroute2 import IPRoute, netns

    with IPRoute() as host:
        for index in host.link_lookup(ifname=outer):
            host.link("del", index=index)
    if namespace in netns.listnetns():
        netns.remove(namespace)
