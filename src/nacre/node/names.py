"""What a cloud's things on a host are called. All names carry the cloud's id, so several clouds share a machine without
meeting; who looks at a bridge, a link or a namespace sees whose it is.

The kernel takes 15 characters for the name of a link, and a bridge is one too.
"""

import base64
import hashlib
from pathlib import Path

import msgspec

#: The integration bridge of releases whose names did not carry the cloud's id.
FORMER_BRIDGE = "br-int"
RUN = Path("/run/nacre")


class Names(msgspec.Struct, frozen=True):
    """cloud: its id, a uuid. former: this host has servers that an earlier release plugged into FORMER_BRIDGE; bridges,
    namespaces and veths keep their names of then, until the last such server is gone."""

    cloud: str
    former: bool = False

    @property
    def short(self) -> str:
        """The cloud's short id: 8 hexadecimal digits."""
        return self.cloud[:8]

    @property
    def bridge(self) -> str:
        """The integration bridge."""
        return FORMER_BRIDGE if self.former else f"br-int-{self.short}"

    @property
    def provider(self) -> str:
        """The bridge of a physical network that is mapped to none: the cloud's own."""
        return "br-ex" if self.former else f"br-ex-{self.short}"

    @property
    def tunnel(self) -> str:
        """The integration bridge's one vxlan port: its peers are chosen by flows."""
        return f"vx-{self.short}"

    def patches(self, physical: str) -> tuple[str, str]:
        """The patch ports between the integration bridge and a physical network's: (on ours, on theirs)."""
        return f"int-{self.short}-{physical}"[:60], f"phy-{self.short}-{physical}"[:60]

    def tap(self, port_id: str) -> str:
        """A guest's interface."""
        return f"t{self.short}{_few(port_id)}"

    def veth(self, network_id: str) -> str:
        """The bridge's end of the link into a network's namespace."""
        return f"nd{network_id.replace('-', '')}"[:15] if self.former else f"d{self.short}{_few(network_id)}"

    def namespace(self, network_id: str) -> str:
        """Where a network's DHCP and metadata are served."""
        return f"nacre-{network_id.replace('-', '')[:12]}" if self.former else f"{self.namespaces}{network_id}"

    @property
    def namespaces(self) -> str:
        """What `namespace` puts before a network's id."""
        return f"nacre-{self.short}-"

    @property
    def table(self) -> str:
        """The nftables table that keeps the host's stack out of guests' links."""
        return f"nacre_{'br_int' if self.former else self.short}"

    @property
    def nat(self) -> tuple[str, str]:
        """The link between the machine and the cloud's own provider bridge: (the machine's end, the bridge's end)."""
        return f"nat-{self.short}", f"ext-{self.short}"

    @property
    def nat_table(self) -> str:
        """The nftables table that translates what comes by it."""
        return f"nacre_nat_{self.short}"

    @property
    def datapath(self) -> str:
        """What is made for a moment to see whether the kernel has Open vSwitch's datapath."""
        return f"nacre-{self.short}"

    @property
    def run(self) -> Path:
        """Files that matter as long as the machine is up."""
        return RUN / self.short


def _few(id: str) -> str:
    """Six characters, 30 bits, of an id that may be any text."""
    return base64.b32encode(hashlib.blake2b(id.encode(), digest_size=4).digest()).decode().lower()[:6]
