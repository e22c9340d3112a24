"""The hypervisors there are, by the name that the configuration uses."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from nacre.image.contract import Images
from nacre.node.hypervisor.driver import Hypervisor
from nacre.node.hypervisor.fake import CAPABILITIES, FakeHypervisor
from nacre.node.names import Names
from nacre.node.ovs.contract import Wiring


class HypervisorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """folder: disks, images and state of this host's guests. names: whose guests they are, and where interfaces are
    plugged. virt_type: kvm, qemu, or auto (a trial guest decides). cache_gb: images kept that no guest uses. disks:
    directories for guests' disks; none: `folder`."""

    folder: Path
    names: Names
    virt_type: str = "auto"
    uri: str = "qemu:///system"
    cache_gb: int = 20
    disks: tuple[str, ...] = ()


Maker = Callable[[HypervisorSettings, Images, Wiring], Hypervisor]


def _libvirt(settings: HypervisorSettings, images: Images, wiring: Wiring) -> Hypervisor:
    from nacre.node.hypervisor.libvirt.driver import LibvirtHypervisor  # libvirt-python is wanted on such hosts only

    return LibvirtHypervisor(settings, images, lambda: wiring.report().datapath_type)


def _fake(settings: HypervisorSettings, images: Images, wiring: Wiring) -> Hypervisor:
    settings.folder.mkdir(parents=True, exist_ok=True)
    capabilities = msgspec.structs.replace(
        CAPABILITIES, directories_mb=dict.fromkeys(settings.disks, CAPABILITIES.disk_gb * 1024))
    return FakeHypervisor(capabilities, folder=settings.folder / "fake-guests")


HYPERVISORS: dict[str, Maker] = {"libvirt": _libvirt, "fake": _fake}
