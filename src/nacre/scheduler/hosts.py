"""One host as the scheduler sees it: what is free under its ratios, and what it may hold in all."""

from dataclasses import dataclass, field

from nacre.scheduler.contract import HostLimits, HostReport, PlacementRequest


@dataclass(slots=True)
class Host:
    """Free amounts move with every placement and release; a rebuild replaces the whole object."""

    name: str
    queue_name: str
    free_vcpus: float
    free_memory_mb: float
    free_disk_mb: float
    limits: HostLimits
    zone: str = "nova"
    up: bool = True
    disabled: bool = False
    architecture: str = "x86_64"
    hypervisor_type: str = "QEMU"
    servers: set[str] = field(default_factory=set)

    def take(self, request: PlacementRequest, server_id: str) -> None:
        """A server was placed here."""
        self.free_vcpus -= request.vcpus
        self.free_memory_mb -= request.memory_mb
        self.free_disk_mb -= request.disk_mb
        self.servers.add(server_id)


def host_of(report: HostReport, *, up: bool, disabled: bool, zone: str = "nova") -> Host:
    """The host of a report: free = total * ratio - (total - reported free); vcpus: total * ratio - used (FLOW A6)."""
    memory = report.memory_mb * report.ram_ratio - report.reserved_memory_mb
    disk = report.disk_gb * report.disk_ratio * 1024
    vcpus = report.vcpus * report.cpu_ratio
    return Host(
        name=report.host, queue_name=report.queue_name, free_vcpus=vcpus - report.vcpus_used,
        free_memory_mb=memory - report.memory_mb_used, free_disk_mb=disk - report.disk_gb_used * 1024,
        limits=HostLimits(vcpus=vcpus, memory_mb=memory, disk_mb=disk), up=up, disabled=disabled, zone=zone,
        architecture=report.architecture, hypervisor_type=report.hypervisor_type)
