"""A guest's domain XML: a pure function. Built as a tree, so that no value can become markup."""

from xml.etree.ElementTree import Element, SubElement, indent, tostring

import msgspec
from oslo_utils.strutils import bool_from_string

from nacre.network.contract import NetworkFacts, PortFacts
from nacre.node.contract import BuildOrder, SpawnOrder
from nacre.node.hypervisor.libvirt.disk_info import Disk
from nacre.node.names import Names
from nacre.node.servers.limits import Throttle, processors, throttle

#: Marks a domain as Nacre's; says to which server of which cloud it belongs, and where its folder is.
NAMESPACE = "urn:nacre:server:1"
#: Kernel's command line where an image names its kernel and no os_command_line.
COMMAND_LINE = "root=/dev/{target} console=tty0 console=ttyS0,115200"
#: In the guest's offer; on a userspace datapath they make TCP never work.
HOST_OFFLOADS = ("csum", "gso", "tso4", "tso6", "ecn", "ufo")
GUEST_OFFLOADS = ("csum", "tso4", "tso6", "ecn", "ufo")
VIF_MODELS = ("virtio", "e1000", "e1000e", "rtl8139", "ne2k_pci", "pcnet", "vmxnet3")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What of the host is in the XML. folder: the server's; kernel, ramdisk: files."""

    folder: str
    names: Names
    virt_type: str  # kvm, qemu
    offloads: bool  # the datapath copes with unfinished checksums
    kernel: str | None = None
    ramdisk: str | None = None


def domain_xml(order: BuildOrder, spawn: SpawnOrder, disks: tuple[Disk, ...], place: Place) -> str:
    """The whole domain."""
    domain = Element("domain", type=place.virt_type)
    _text(domain, "name", order.domain_name or f"nacre-{order.server_id}")
    _text(domain, "uuid", order.server_id)
    _metadata(domain, order, place)
    _text(domain, "memory", str(order.memory_mb), unit="MiB")
    _text(domain, "vcpu", str(order.vcpus))
    if limits := processors(order):
        tune = SubElement(domain, "cputune")
        for name, value in limits.items():
            _text(tune, name, str(value))
    _sysinfo(domain, order)
    _os(domain, order, disks, place)
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    _cpu(domain, order, place)
    _clock(domain)
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(domain, event, action)
    devices = SubElement(domain, "devices")
    slow = throttle(order)
    for disk in disks:
        _disk(devices, disk, place, slow if disk.device == "disk" else Throttle())
    _controllers(devices, order, disks)
    networks = {network.id: network for network in spawn.networks}
    for port in spawn.ports:
        _interface(devices, port, networks.get(port.network_id), order, place)
    _consoles(devices, order, place)
    indent(domain)
    return tostring(domain, encoding="unicode") + "\n"


def _text(parent: Element, tag: str, text: str, **attributes: str) -> Element:
    child = SubElement(parent, tag, attributes)
    child.text = text
    return child


def _property(order: BuildOrder, name: str, default: str = "") -> str:
    return order.image.properties.get(name, default) if order.image else default


def _metadata(domain: Element, order: BuildOrder, place: Place) -> None:
    server = SubElement(SubElement(domain, "metadata"), f"{{{NAMESPACE}}}server")
    for name, value in (("id", order.server_id), ("cloud", place.names.cloud), ("folder", place.folder),
                        ("project", order.guest.project_id), ("flavor", order.guest.flavor_name)):
        _text(server, f"{{{NAMESPACE}}}{name}", value)


def _sysinfo(domain: Element, order: BuildOrder) -> None:
    system = SubElement(SubElement(domain, "sysinfo", type="smbios"), "system")
    for name, value in (("manufacturer", "OpenStack Foundation"), ("product", "OpenStack Nova"),
                        ("version", "1"), ("serial", order.server_id), ("uuid", order.server_id),
                        ("family", "Virtual Machine")):
        _text(system, "entry", value, name=name)


def _os(domain: Element, order: BuildOrder, disks: tuple[Disk, ...], place: Place) -> None:
    os = SubElement(domain, "os")
    if _property(order, "hw_firmware_type") == "uefi":
        os.set("firmware", "efi")
    _text(os, "type", "hvm", arch="x86_64", machine=_property(order, "hw_machine_type", "pc"))
    if place.kernel:
        _text(os, "kernel", place.kernel)
        if place.ramdisk:
            _text(os, "initrd", place.ramdisk)
        line = _property(order, "os_command_line") or COMMAND_LINE.format(target=disks[0].target)
        _text(os, "cmdline", line)
    SubElement(os, "smbios", mode="sysinfo")


def _cpu(domain: Element, order: BuildOrder, place: Place) -> None:
    if place.virt_type == "kvm":
        cpu = SubElement(domain, "cpu", mode="host-model", check="partial")
    else:
        cpu = SubElement(domain, "cpu")
    SubElement(cpu, "topology", sockets=str(order.vcpus), cores="1", threads="1")


def _clock(domain: Element) -> None:
    clock = SubElement(domain, "clock", offset="utc")
    SubElement(clock, "timer", name="pit", tickpolicy="delay")
    SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    SubElement(clock, "timer", name="hpet", present="no")


def _disk(devices: Element, disk: Disk, place: Place, slow: Throttle) -> None:
    element = SubElement(devices, "disk", type="file", device=disk.device)
    driver = SubElement(element, "driver", name="qemu", type=disk.format, cache="writeback")
    if disk.device == "disk":
        driver.set("discard", "unmap")
    else:
        SubElement(element, "readonly")
    SubElement(element, "source", file=f"{place.folder}/{disk.file}")
    SubElement(element, "target", dev=disk.target, bus=disk.bus)
    if slow.limits:
        tune = SubElement(element, "iotune")
        for name, value in slow.limits.items():
            _text(tune, name, str(value))
        if slow.shared:
            _text(tune, "group_name", "server")  # one bucket for all its disks
    if disk.boot and not place.kernel:
        SubElement(element, "boot", order="1")


def _controllers(devices: Element, order: BuildOrder, disks: tuple[Disk, ...]) -> None:
    if any(disk.bus == "scsi" for disk in disks):
        SubElement(devices, "controller", type="scsi", index="0",
                   model=_property(order, "hw_scsi_model", "virtio-scsi"))


def _interface(devices: Element, port: PortFacts, network: NetworkFacts | None, order: BuildOrder,
               place: Place) -> None:
    interface = SubElement(devices, "interface", type="bridge")
    SubElement(interface, "mac", address=port.mac_address)
    SubElement(interface, "source", bridge=place.names.bridge)
    virtual = SubElement(interface, "virtualport", type="openvswitch")
    SubElement(virtual, "parameters", interfaceid=port.id)
    SubElement(interface, "target", dev=place.names.tap(port.id))
    model = _property(order, "hw_vif_model", "virtio")
    SubElement(interface, "model", type=model if model in VIF_MODELS else "virtio")
    if not place.offloads and model == "virtio":
        driver = SubElement(interface, "driver", name="qemu")
        SubElement(driver, "host", dict.fromkeys(HOST_OFFLOADS, "off"))
        SubElement(driver, "guest", dict.fromkeys(GUEST_OFFLOADS, "off"))
    if network is not None and network.mtu:
        SubElement(interface, "mtu", size=str(network.mtu))


def _consoles(devices: Element, order: BuildOrder, place: Place) -> None:
    for kind in ("serial", "console"):
        element = SubElement(devices, kind, type="pty")
        if kind == "serial":  # append: or a restart of the guest would lose what it said
            SubElement(element, "log", file=f"{place.folder}/console.log", append="on")
        SubElement(element, "target", {"port": "0"} if kind == "serial" else {"type": "serial", "port": "0"})
    if bool_from_string(_property(order, "hw_qemu_guest_agent")):
        channel = SubElement(devices, "channel", type="unix")
        SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    SubElement(devices, "graphics", type="vnc", port="-1", autoport="yes", listen="127.0.0.1")
    SubElement(SubElement(devices, "video"), "model", type=_property(order, "hw_video_model", "vga"))
    SubElement(SubElement(devices, "memballoon", model="virtio"), "stats", period="10")
    rng = SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
