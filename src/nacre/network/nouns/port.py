"""Ports and their bindings: what is kept of them, and what the API says of them."""

from collections.abc import Sequence
from typing import Any, ClassVar

import sqlalchemy as sa

from nacre.network import tables as t
from nacre.network.nouns import checks as c
from nacre.network.nouns import shapes
from nacre.network.nouns.attributes import BOTH, FLAG, MUTE, Resource, resource
from nacre.network.nouns.attributes import Attribute as A
from nacre.network.nouns.noun import Named, Noun, View

#: (subnet id, address) of each address of a port, in order.
Fixed = Sequence[tuple[str, str]]
FAILED = "binding_failed"
ROUTER_GATEWAY = "network:router_gateway"


class Port(Named, frozen=True):
    """device_id is what its owner says that it belongs to; server_id, whose it is by the cloud's word alone, with how
    that uses it: preserve (the user's own, kept when the server goes), device_tag, position."""

    TABLE: ClassVar[sa.FromClause] = t.ports
    network_id: str
    mac_address: str
    admin_state_up: bool
    status: str
    device_id: str
    device_owner: str
    port_security_enabled: bool
    allowed_address_pairs: list[dict[str, str]]
    extra_dhcp_opts: list[dict[str, Any]]
    dns_name: str
    server_id: str | None
    preserve: bool
    device_tag: str | None
    position: int
    qos_policy_id: str | None
    dns_domain: str

    def policy(self, of_network: str | None) -> str | None:
        """The QoS policy that counts for it: its own, else its network's, which is for no port of the cloud's own but
        a router's gateway. Which are those no project may say: not of a server's port, and of no other by a word that
        anybody may write (as "neutron:", by which Neutron lets go)."""
        inner = (self.server_id is None and self.device_owner.startswith("network:")
                 and self.device_owner != ROUTER_GATEWAY)
        return self.qos_policy_id or (None if inner else of_network)


class Binding(Noun, frozen=True):
    """Where a port is, or shall be."""

    TABLE = t.bindings
    port_id: str
    host: str
    network_id: str
    active: bool
    wired: bool
    vnic_type: str
    vif_type: str
    vif_details: dict[str, str | bool | int]
    profile: dict[str, Any]


class BindingLevel(Noun, frozen=True):
    """Which driver bound a port at a host to which segment, at this level from the top."""

    TABLE = t.levels
    port_id: str
    host: str
    level: int
    driver: str
    segment_id: str


class PortAddress(Noun, frozen=True):
    TABLE = t.addresses
    subnet_id: str
    ip_address: str
    port_id: str
    position: int


class PortGroup(Noun, frozen=True):
    """That a port is in a security group."""

    TABLE = t.port_groups
    port_id: str
    group_id: str


class Placed(Port, frozen=True):
    """A port with one of its bindings. host: "" while it is on none. wired: its agent says that it works there."""

    TABLE = t.placed
    host: str
    active: bool
    wired: bool
    vnic_type: str
    vif_type: str
    vif_details: dict[str, str | bool | int]
    profile: dict[str, Any]

    @property
    def bound(self) -> bool:
        """Whether the binding carries frames, or would if it were active."""
        return bool(self.host) and self.vif_type != FAILED

    def binding(self) -> Binding:
        """The binding alone."""
        return Binding(self.id, self.host, self.network_id, self.active, self.wired, self.vnic_type, self.vif_type,
                       self.vif_details, self.profile)


_VNIC = c.one_of("normal", "direct", "macvtap", "baremetal", "direct-physical", "virtio-forwarder", "smart-nic", "vdpa",
                 "accelerator-direct", "accelerator-direct-physical", "remote-managed")

PORT = resource("port", "ports", [
    A("network_id", c.uuid_, post=True, required=True),
    A("admin_state_up", default=True, **FLAG, **BOTH), A("status"),
    A("mac_address", c.maybe(c.mac), guard=True, convert=c.mac, **BOTH),
    A("fixed_ips", shapes.fixed_ips, guard=True, sort=False, convert=shapes.key_and_value, **BOTH),
    A("device_id", c.text(255, lines=False), default="", **BOTH),
    A("device_owner", c.text(255, lines=False), default="", guard=True, **BOTH),
    A("allowed_address_pairs", shapes.address_pairs, default=[], guard=True, **MUTE, **BOTH),
    A("extra_dhcp_opts", shapes.dhcp_options, default=[], **MUTE, **BOTH),
    A("port_security_enabled", c.boolean, guard=True, **MUTE, **BOTH),
    A("security_groups", c.groups, sort=False, **BOTH),
    A("binding:host_id", c.maybe(c.text(255, lines=False)), guard=True, secret=True, sort=False, **BOTH),
    A("binding:profile", shapes.profile, guard=True, secret=True, **MUTE, **BOTH),
    A("binding:vnic_type", _VNIC, default="normal", guard=True, **MUTE, **BOTH),
    A("binding:vif_type", secret=True, **MUTE), A("binding:vif_details", secret=True, **MUTE),
    A("dns_name", c.dns_host, default="", **MUTE, **BOTH),
    A("dns_domain", c.dns_domain, default="", **MUTE, **BOTH), A("dns_assignment", **MUTE),
    A("ip_allocation"), A("qos_policy_id", c.maybe(c.uuid_), default=None, **MUTE, **BOTH),
    A("qos_network_policy_id", **MUTE),
    A("resource_request", secret=True, **MUTE), A("trunk_details", **MUTE),
    A("tags", c.tags, post=True, default=[], guard=True, **MUTE),
])

BINDING = Resource("binding", "bindings", {a.name: a for a in (
    A("host", c.host, required=True, sort=False, **BOTH), A("vif_type", sort=False), A("vif_details", **MUTE),
    A("vnic_type", _VNIC, default="normal", sort=False, **BOTH), A("profile", shapes.profile, **MUTE, **BOTH),
    A("status", sort=False), A("project_id", c.text(64), post=True, visible=False, **MUTE),
)})

def view(port: Placed, fixed: Fixed, groups: Sequence[str], domain: str, policy: str | None) -> View:
    """domain: in which its names are. policy: its network's for QoS."""
    return port.standard() | {
        "network_id": port.network_id, "mac_address": port.mac_address, "admin_state_up": port.admin_state_up,
        "status": port.status, "device_id": port.device_id, "device_owner": port.device_owner,
        "port_security_enabled": port.port_security_enabled, "allowed_address_pairs": port.allowed_address_pairs,
        "extra_dhcp_opts": port.extra_dhcp_opts, "dns_name": port.dns_name, "dns_domain": port.dns_domain,
        "fixed_ips": [{"subnet_id": s, "ip_address": a} for s, a in fixed], "security_groups": list(groups),
        "dns_assignment": [_assignment(port.dns_name, a, domain) for _, a in fixed],
        "binding:host_id": port.host, "binding:profile": port.profile, "binding:vnic_type": port.vnic_type,
        "binding:vif_type": port.vif_type, "binding:vif_details": port.vif_details,
        "ip_allocation": "immediate" if fixed else "none", "qos_policy_id": port.qos_policy_id,
        "qos_network_policy_id": policy, "resource_request": None}


def _assignment(name: str, address: str, domain: str) -> View:
    host = name or "host-" + address.replace(".", "-").replace(":", "-")
    return {"ip_address": address, "hostname": host.split(".")[0], "fqdn": f"{host.rstrip('.')}.{domain}."}


def binding_view(port: Placed) -> View:
    """One binding of a port."""
    return {"host": port.host, "vif_type": port.vif_type, "vif_details": port.vif_details, "vnic_type": port.vnic_type,
            "profile": port.profile, "status": "ACTIVE" if port.active else "INACTIVE"}
