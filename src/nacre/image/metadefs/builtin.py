"""The vocabularies that a new cloud has: what its hosts and its scheduler obey, for the forms of dashboards. Those that
Glance has too are called as there."""

from collections.abc import Mapping
from typing import Any

IMAGE, FLAVOR, AGGREGATE = "OS::Glance::Image", "OS::Nova::Flavor", "OS::Nova::Aggregate"
#: A server has two sets of keys: its own metadata, and what is asked of the scheduler. A slash sets the set apart here.
METADATA, HINTS = "OS::Nova::Server/metadata", "OS::Nova::Server/scheduler_hints"


def _one(title: str, description: str, *enum: str) -> dict[str, Any]:
    return {"title": title, "description": description, "type": "string", **({"enum": list(enum)} if enum else {})}


def _number(title: str, description: str, minimum: int = 0, maximum: int | None = None) -> dict[str, Any]:
    return {"title": title, "description": description, "type": "integer", "minimum": minimum,
            **({} if maximum is None else {"maximum": maximum})}


def _namespace(name: str, title: str, description: str, types: tuple[str, ...], **inside: Any) -> Mapping[str, Any]:
    return {"namespace": name, "display_name": title, "description": description, "visibility": "public",
            "protected": True, "resource_type_associations": [_association(*one.split("/")) for one in types], **inside}


def _association(name: str, target: str = "") -> dict[str, str]:
    return {"name": name, **({"properties_target": target} if target else {})}


def _limits(kind: str, unit: str) -> dict[str, Any]:
    return {f"quota:disk_{way}_{kind}_sec": _number(f"Disk: {words}, {unit} a second", "Of each disk of the server.")
            for way, words in (("read", "read"), ("write", "written"), ("total", "read and written"))}


NAMESPACES: tuple[Mapping[str, Any], ...] = (
    _namespace("OS::OperatingSystem", "Common Operating System Properties",
               "What system an image holds or a server runs, for people and for tools.", (IMAGE, METADATA), properties={
                   "os_distro": _one("Distribution", "Its common name in lower case: debian, fedora, ubuntu ..."),
                   "os_version": _one("Version", "As its maker calls it: 12, 24.04 ..."),
                   "os_admin_user": _one("Administrator", "The user whom its keys let in.")}),
    _namespace("OS::Glance::CommonImageProperties", "Common Image Properties",
               "Properties that images of every kind may have.", (IMAGE,), properties={
                   "kernel_id": _one("Kernel", "The id of the image of the kernel that boots this one."),
                   "ramdisk_id": _one("Ramdisk", "The id of the image of its initial memory disk."),
                   "architecture": _one("Architecture", "The processor that it is for.", "x86_64", "aarch64"),
                   "description": _one("Description", "What it is good for, in words.")}),
    _namespace("OS::Compute::LibvirtImage", "libvirt Driver Options for Images",
               "The devices that a server of an image gets.", (IMAGE,), properties={
                   "hw_disk_bus": _one("Bus of the disks", "How the guest sees its disks.", "virtio", "scsi", "ide",
                                       "sata", "usb"),
                   "hw_cdrom_bus": _one("Bus of the config drive", "How the guest sees its config drive.", "virtio",
                                        "scsi", "ide", "sata"),
                   "hw_scsi_model": _one("SCSI controller", "Where disks are on SCSI.", "virtio-scsi", "lsilogic"),
                   "hw_vif_model": _one("Network card", "The kind of all of the guest's network cards.", "virtio",
                                        "e1000", "e1000e", "rtl8139"),
                   "hw_video_model": _one("Graphics card", "What the console shows.", "virtio", "vga", "cirrus",
                                          "none"),
                   "hw_firmware_type": _one("Firmware", "What boots the guest.", "bios", "uefi"),
                   "hw_machine_type": _one("Machine", "QEMU's name of the board: pc, q35 ..."),
                   "hw_qemu_guest_agent": _one("Guest agent", "Whether the guest runs one.", "yes", "no"),
                   "os_command_line": _one("Kernel's command line", "For images that name their kernel.")}),
    _namespace("OS::Compute::InstanceData", "Instance Config Data",
               "How a server is told about itself.", (IMAGE,), properties={
                   "img_config_drive": _one("Config drive", "Whether the guest needs one.", "optional", "mandatory")}),
    _namespace("OS::Compute::Quota", "Flavor Quota",
               "How much of processors, disks and networks a server of a flavor may use.", (FLAVOR,), objects=[
                   {"name": "CPU Limits", "description": "Of each processor of the server.", "properties": {
                       "quota:cpu_shares": _number("CPU: shares", "Its weight beside other servers.", 2, 262144),
                       "quota:cpu_period": _number("CPU: period", "Microseconds.", 1000, 1000000),
                       "quota:cpu_quota": _number("CPU: quota", "Microseconds that it may use in each period.", 1000)}},
                   {"name": "Disk QoS", "description": "Of each disk of the server.", "properties": {
                       **_limits("bytes", "bytes"), **_limits("iops", "requests")}},
                   {"name": "Virtual Interface QoS", "description": "Of each network card of the server.",
                    "properties": {f"quota:vif_{way}_{what}": _number(f"Network {way}: {what}", unit)
                                   for way in ("inbound", "outbound") for what, unit in (
                                       ("average", "Kilobytes a second."), ("burst", "Kilobytes at once."))}}]),
    _namespace("Nacre::Compute::Flavor", "Shares of Hosts",
               "What of a host's network and disks a server of a flavor gets, and no host gives away twice.", (FLAVOR,),
               properties={
                   "nacre:network_bandwidth": _number("Network", "Mbit a second, each way, of the whole server."),
                   "nacre:disk_bandwidth": _number("Disks", "MB a second, of all disks together."),
                   "nacre:disk_shares": _number("Shares of a disk directory", "Of those that the host divides it into.")
               }),
    _namespace("Nacre::Compute::Aggregate", "Who Uses the Hosts of an Aggregate",
               "What keeps a server from the hosts of an aggregate. aggregate_instance_extra_specs:KEY of a flavor "
               "asks for any other key.", (AGGREGATE,), properties={
                   "filter_tenant_id": _one("Projects", "Ids with commas between them: these projects' servers only."),
                   "os_distro": _one("Distribution", "Servers of images that say this, or nothing, of themselves.")}),
    _namespace("Nacre::Compute::SchedulerHints", "Scheduler Hints",
               "What may be asked of the choice of a host for one server.", (HINTS,), properties={
                   "different_host": _one("Not with", "The id of a server whose host is not taken."),
                   "same_host": _one("With", "The id of a server whose host is taken."),
                   "scheduler_host_match": _one("Host's name", "A regular expression that its name has a match of."),
                   "queue_name": _one("Queue", "The queue of hosts to look in."),
                   "query": _one("Query", 'A filter in JSON: [">=", "$free_ram_mb", 1024].'),
                   "network_bandwidth": _number("Network", "Mbit a second, each way, of the whole server."),
                   "disk_bandwidth": _number("Disks", "MB a second, of all disks together."),
                   "disk_shares": _number("Shares of a disk directory", "Of those that the host divides it into.")}),
)
