"""Which disk sits on which bus under which name: a pure function of the order and the image's properties."""

from collections.abc import Mapping

import msgspec

from nacre.base.errors import BuildFailed
from nacre.node.contract import BuildOrder

#: Bus -> prefix of its device names, and how many it takes.
BUSES = {"virtio": ("vd", 26), "scsi": ("sd", 26), "sata": ("sd", 6), "ide": ("hd", 4), "usb": ("sd", 26)}
#: Which properties say the bus of which kind of device, first wins.
PROPERTIES = {"disk": ("hw_disk_bus",), "cdrom": ("hw_cdrom_bus",)}


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of a guest. file: its name in the server's folder; size in bytes (None: as large as its content)."""

    file: str
    device: str  # disk, cdrom
    bus: str
    target: str
    size: int | None = None
    format: str = "qcow2"
    boot: bool = False


def disk_info(order: BuildOrder) -> tuple[Disk, ...]:
    """The guest's disks in order: root, ephemeral, swap, config drive. Raises BuildFailed: a bus that is not known, or
    full."""
    properties = order.image.properties if order.image else {}
    iso = order.image is not None and order.image.disk_format == "iso"
    disk_bus, cd_bus = _bus(properties, "disk"), _bus(properties, "cdrom")
    wanted: list[tuple[str, str, int | None, str]] = [
        ("disk", "cdrom" if iso else "disk", order.root_gb << 30 or None, "qcow2")]
    if order.ephemeral_gb:
        wanted.append(("disk.local", "disk", order.ephemeral_gb << 30, "qcow2"))
    if order.swap_mb:
        wanted.append(("disk.swap", "disk", order.swap_mb << 20, "raw"))
    if needs_drive(order):
        wanted.append(("disk.config", "cdrom", None, "raw"))
    taken: dict[str, int] = {}
    disks = []
    for file, device, size, form in wanted:
        bus = disk_bus if device == "disk" else cd_bus
        prefix, room = BUSES[bus]
        index = taken.get(prefix, 0)
        if index >= room:
            raise BuildFailed(f"bus {bus} has no room for {file}")
        taken[prefix] = index + 1
        disks.append(Disk(file=file, device=device, bus=bus, target=f"{prefix}{chr(97 + index)}", size=size,
                          format=form, boot=file == "disk"))
    return tuple(disks)


def needs_drive(order: BuildOrder) -> bool:
    """Files make one necessary, too: the order says so."""
    return order.config_drive or (
        order.image is not None and order.image.properties.get("img_config_drive") == "mandatory")


def _bus(properties: Mapping[str, str], kind: str) -> str:
    default = {"disk": "virtio", "cdrom": "ide"}[kind]
    bus = next((properties[name] for name in PROPERTIES[kind] if properties.get(name)), default)
    if bus not in BUSES:
        raise BuildFailed(f"hw_{kind}_bus: {bus[:40]} is not one of {', '.join(BUSES)}")
    return bus
