"""Keeps the host's own network stack out of guests' links.

A userspace datapath reads a link by a packet socket, and the kernel sees every frame as well: the host would answer a
guest's ARP for any of its addresses, and take its packets, past every flow. So what comes in by these links ends in an
nftables ingress hook, which packet sockets come before. (The kernel datapath takes frames off the link itself, and
such a hook would come before it: there it is not used.) IPv6 is off on the host's end: the host has nothing to say.
"""

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path

import structlog

from nacre.base.errors import NacreError
from nacre.base.shell import CommandFailed, run

log = structlog.get_logger()

_LINK = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)
#: Where the hook is missing these help: no answer to ARP, no packet from a source that is not routed there.
_SYSCTLS = {"ipv6/conf/{}/disable_ipv6": "1", "ipv4/conf/{}/arp_ignore": "8", "ipv4/conf/{}/rp_filter": "1"}


class Seal:
    """The sealed links of one bridge."""

    def __init__(self, bridge: str):
        self.table = "nacre_" + re.sub(r"[^A-Za-z0-9]", "_", bridge)
        self._sealed: set[str] | None = None

    async def close(self, links: Iterable[str], *, hook: bool) -> None:
        """Exactly these links are sealed; hook: the datapath is the userspace one."""
        wanted = {link for link in links if _LINK.fullmatch(link)}
        if wanted == self._sealed:
            return
        await asyncio.to_thread(_write, wanted - (self._sealed or set()))
        if hook:
            try:
                await run(["nft", "-f", "-"], stdin=ruleset(self.table, wanted).encode())
            except (CommandFailed, OSError) as error:
                log.error("guests' links are not sealed by nftables", why=str(error))
        self._sealed = wanted

    async def open(self) -> None:
        """Forgets it all (decommissioning, tests)."""
        self._sealed = None
        try:
            await run(["nft", "-f", "-"], stdin=ruleset(self.table, ()).encode())
        except (NacreError, OSError) as error:
            log.info("nothing to unseal", why=str(error))


def ruleset(table: str, links: Iterable[str]) -> str:
    """nft's input that makes the table seal exactly these links (none: no table)."""
    chains = "".join(
        f'  chain c{number} {{\n    type filter hook ingress device "{link}" priority 0; policy drop;\n  }}\n'
        for number, link in enumerate(sorted(links)))
    start = f"table netdev {table}\ndelete table netdev {table}\n"
    return start + (f"table netdev {table} {{\n{chains}}}\n" if chains else "")


def _write(links: Iterable[str]) -> None:
    for link in links:
        for pattern, value in _SYSCTLS.items():
            path = Path("/proc/sys/net") / pattern.format(link)
            if path.exists():
                path.write_text(value)
