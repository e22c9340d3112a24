"""Keeps the host's own network stack out of guests' links.

A userspace datapath reads a link by a packet socket, and the kernel sees every frame as well: the host would answer a
guest's ARP for any of its addresses, and take its packets, past every flow. So what comes in by these links ends in an
nftables ingress hook, which packet sockets come before. (The kernel datapath takes frames off the link itself, and
such a hook would come before it: there it is not used.) IPv6 is off on the host's end: the host has nothing to say.
A link that cannot be sealed is named with the reason, its port is not wired, and it is down meanwhile: no frame comes
to the host by it. Who loads a firewall anew may flush all tables: `stands` sees that, and all links are sealed again.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog

from nacre.base.errors import NacreError
from nacre.base.shell import CommandFailed, run

log = structlog.get_logger()

#: A link's hook, in nft's words, that still drops.
_HOOK = re.compile(r"chain on-(\S+) \{\s+type filter hook ingress [^;]*; policy drop;")
_LINK = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)
#: Where the hook is missing these help: no answer to ARP, no packet from a source that is not routed there.
_SYSCTLS = {"ipv6/conf/{}/disable_ipv6": "1", "ipv4/conf/{}/arp_ignore": "8", "ipv4/conf/{}/rp_filter": "1"}


class Seal:
    """The sealed links of one bridge. table: nftables' that holds the hooks."""

    def __init__(self, table: str):
        self.table = table
        self._sealed: dict[str, int] = {}
        self._failed: dict[str, str] = {}
        self._hooked = False

    async def close(self, links: Mapping[str, str], *, hook: bool) -> dict[str, str]:
        """Exactly these links are sealed, but for those of the answer. links: what each is for (a port, a network);
        answered: of which of these -> why its link could not be. hook: the datapath is the userspace one."""
        wanted = {link: _index(link) for link in links}
        if wanted == self._sealed:
            return {}
        self._hooked = hook
        failed = {link: "it is gone" if _LINK.fullmatch(link) else "its name cannot be written in a rule"
                  for link, index in wanted.items() if not index or not _LINK.fullmatch(link)}
        sound = wanted.keys() - failed.keys()
        if hook:
            failed |= await self._hook(sound)
        for link in sound:
            if wanted[link] != self._sealed.get(link) and (why := await asyncio.to_thread(quiet, link)):
                failed[link] = why
        fresh = [link for link in sound if link not in failed and wanted[link] != self._sealed.get(link)]
        await asyncio.to_thread(_switch, failed, fresh)  # an earlier node process may have left one down
        if failed != self._failed:
            log.error("links are not sealed: they are down, and their ports get no traffic", links=failed)
        self._failed = failed
        self._sealed = {link: index for link, index in wanted.items() if link not in failed}
        return {links[link]: why for link, why in failed.items()}

    async def stands(self) -> bool:
        """Whether all that was sealed still is; if not, the next `close` does it again."""
        before = self._sealed
        if not self._hooked or not before:
            return True
        try:
            said = (await run(["nft", "list", "table", "netdev", self.table])).decode(errors="replace")
        except (CommandFailed, OSError) as error:
            said = f"({error})"
        there = set(_HOOK.findall(said))
        if (gone := before.keys() - there) and self._sealed is before:
            log.error("links are not sealed any more, as somebody changed nftables", links=sorted(gone))
            self._sealed = {}
        return not gone

    async def _hook(self, links: Iterable[str]) -> dict[str, str]:
        """All at once; if that fails each by itself, as one link's trouble is not another's."""
        try:
            await _nft(ruleset(self.table, links))
            return {}
        except (CommandFailed, OSError) as error:
            log.info("links are sealed one by one", why=str(error))
        failed = {}
        for link in sorted(links):
            try:
                await _nft(f"add table netdev {self.table}\nadd chain netdev {self.table} {_chain(link)}\n")
            except (CommandFailed, OSError) as error:
                failed[link] = str(error)
        return failed

    async def open(self) -> None:
        """Forgets it all (decommissioning)."""
        self._sealed = {}
        try:
            await _nft(ruleset(self.table, ()))
        except (NacreError, OSError) as error:
            log.info("nothing to unseal", why=str(error))


def ruleset(table: str, links: Iterable[str]) -> str:
    """nft's input that makes the table seal exactly these links (none: no table)."""
    chains = "".join(f"  chain {_chain(link)}\n" for link in sorted(links))
    start = f"table netdev {table}\ndelete table netdev {table}\n"
    return start + (f"table netdev {table} {{\n{chains}}}\n" if chains else "")


def _chain(link: str) -> str:
    return f'on-{link} {{ type filter hook ingress device "{link}" priority 0; policy drop; }}'


async def _nft(text: str) -> None:
    await run(["nft", "-f", "-"], stdin=text.encode())


def _index(link: str) -> int:
    """The link's number, which one of the same name that comes after it does not have; 0: there is none."""
    try:
        return socket.if_nametoindex(link)
    except OSError:
        return 0


def _switch(down: Iterable[str], up: Iterable[str]) -> None:
    """What is gone meanwhile needs neither."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as host:
        for state, links in (("down", down), ("up", up)):
            for index in filter(None, map(_index, links)):
                with contextlib.suppress(NetlinkError):
                    host.link("set", index=index, state=state)


def quiet(link: str) -> str:
    """The host's end says nothing. Answers why not, if it cannot be made so."""
    try:
        for pattern, value in _SYSCTLS.items():
            path = Path("/proc/sys/net") / pattern.format(link)
            if path.exists():
                path.write_text(value)
    except OSError as error:
        return str(error)
    return ""
