"""Domains of ours in libvirt. Every function blocks and is run by `Host.call`; the connection comes first."""

from typing import Any
from xml.etree import ElementTree

import libvirt
import msgspec

from nacre.base.errors import BuildFailed
from nacre.node.hypervisor.libvirt.xml import NAMESPACE

POWERS = {
    libvirt.VIR_DOMAIN_RUNNING: "running", libvirt.VIR_DOMAIN_BLOCKED: "running", libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "running", libvirt.VIR_DOMAIN_SHUTOFF: "shutdown",
    libvirt.VIR_DOMAIN_CRASHED: "crashed", libvirt.VIR_DOMAIN_PMSUSPENDED: "paused",
}


def find(connection: Any, server_id: str) -> Any | None:
    """The domain of this server, or None."""
    try:
        return connection.lookupByUUIDString(server_id)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


class Owner(msgspec.Struct, frozen=True):
    """Whose domains are ours: those of this cloud. folders: where servers' folders lie; they tell of a domain that was
    made before domains named their cloud."""

    cloud: str
    folders: frozenset[str]


def belongs(domain: Any, owner: Owner) -> bool:
    """Whether it is ours: other domains of the machine, other clouds' among them, are none of our business."""
    try:
        text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
        found = ElementTree.fromstring(text)  # noqa: S314 - libvirt's own, less prefixes
    except (libvirt.libvirtError, ElementTree.ParseError):
        return False
    cloud = found.findtext("{*}cloud")
    if cloud is not None:
        return cloud == owner.cloud
    return (found.findtext("{*}folder") or "").rpartition("/")[0] in owner.folders


def powers(connection: Any, owner: Owner) -> dict[str, str]:
    """The power of every domain of ours."""
    found = {}
    for domain in connection.listAllDomains():
        try:
            if belongs(domain, owner):
                found[domain.UUIDString()] = power(domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # gone while we looked
                raise
    return found


def power(domain: Any) -> str:
    return POWERS.get(domain.state()[0], "shutdown")


def define_paused(connection: Any, server_id: str, xml: str, owner: Owner) -> None:
    """Defined, so that it outlives a shutdown, and started without a single instruction run; in place of one of ours
    that is there. Raises BuildFailed: one of another's is, which libvirt would replace."""
    old = find(connection, server_id)
    if old is not None:
        if not belongs(old, owner):
            raise BuildFailed(f"libvirt has a domain {server_id} that is not this cloud's")
        remove(old)
    connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE).createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)


def boot(domain: Any) -> None:
    if not domain.isActive():
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)


def resume(domain: Any) -> None:
    if power(domain) == "paused":
        domain.resume()


def halt(domain: Any) -> None:
    """Off, by force. One that went by itself meanwhile is fine."""
    if domain.isActive():
        try:
            domain.destroy()
        except libvirt.libvirtError:
            if domain.isActive():
                raise


def shutdown(domain: Any) -> None:
    """The power button. A guest that went by itself meanwhile is fine."""
    if power(domain) == "paused":
        domain.resume()
    try:
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    except libvirt.libvirtError:
        if domain.isActive():
            raise


def remove(domain: Any) -> None:
    """Off, and forgotten by libvirt with all it kept for it."""
    halt(domain)
    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                         | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
