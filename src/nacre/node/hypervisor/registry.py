"""The hypervisors there are, by the name that the configuration uses."""

from collections.abc import Callable

import msgspec

from nacre.image.contract import Images
from nacre.node.hypervisor.driver import Hypervisor, HypervisorSettings
from nacre.node.hypervisor.fake import CAPABILITIES, FakeHypervisor
from nacre.node.ovs.contract import Wiring

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
