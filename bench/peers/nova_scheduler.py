"""What one decision of Nova's own filter scheduler costs, in this process, on hosts like those of bench/scheduler.py.

    DIR/bin/python bench/peers/nova_scheduler.py [--hosts 100,1000] [--seconds S]     DIR: see README.md beside this

A decision here is Nova's own code from the point where placement has named the candidates: the default filters, every
default weigher, the sort and the shuffle of the best (SchedulerManager._get_sorted_hosts), then the chosen host's use
in memory (_consume_selected_host, which calls HostState.consume_from_request). Hosts are HostState objects, filled by
their own update() from ComputeNode objects; requests are RequestSpec objects, made before the clock starts.

This flatters Nova. Left out: placement's query and claim over HTTP, the reading of every candidate's compute node,
service, aggregates and instances from the database (each request does it anew), the search for alternates, RPC, and
log lines (logging stands at WARNING; Nova's default is INFO). Hosts are in no aggregate and the image asks for nothing:
the cheapest case. Against Nova counts only that it sees all hosts: placement would name 1,000 (max_placement_results).

Memory, processors and disk are placement's to check: none of Nova's default filters looks at them. So `nothing` asks
for a hypervisor that no host has, which the second filter refuses at every host. A request too large for every host
would end in placement's query, and this code would not run.
"""

from __future__ import annotations  # nova.objects gets its names when it registers them, at run time

import argparse
import gc
import itertools
import json
import math
import platform
import random
import statistics
import time
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import nova.conf
from nova import objects
from nova.scheduler.host_manager import HostManager, HostState
from nova.scheduler.manager import SchedulerManager
from oslo_utils import timeutils

VCPUS, MEMORY_MB, DISK_GB, CPU_RATIO = 64, 262144, 4096, 4.0
#: The servers that fill a host for full90: (memory in MB, vcpus), each with a disk of 20 GB.
SIZES = ((2048, 1), (4096, 2), (8192, 4), (16384, 8))
FULL, GROUP, SEED = 0.9, 10, 3
SCENARIOS = ("empty", "full90", "nothing", "anti_affinity")
#: Decisions that do not count; then the most that do, by the most hosts they are for.
WARM_UP, DECISIONS = 2, ((100, 200), (1000, 100), (math.inf, 20))


class Hosts(HostManager):  # type: ignore[misc]
    """Nova's host manager, its filters and weighers, without the cells, aggregates and instances of a database."""

    def refresh_cells_caches(self) -> None:
        self.cells: dict[str, Any] = {}
        self.enabled_cells: list[Any] = []

    def _init_aggregates(self) -> None:
        pass

    def _init_instance_info(self, computes_by_cell: Any = None) -> None:
        pass


class Scheduler(SchedulerManager):  # type: ignore[misc]
    """Nova's scheduler without its RPC and placement clients."""

    def __init__(self) -> None:
        self.host_manager = Hosts()

    def decide(self, hosts: list[HostState], spec: objects.RequestSpec) -> HostState | None:
        if not (found := self._get_sorted_hosts(spec, hosts, 0)):
            return None
        self._consume_selected_host(found[0], spec, instance_uuid=spec.instance_uuid)
        return found[0]


def configure() -> None:
    """Nova's defaults, whatever the machine's nova.conf says; only services stay up, for nobody reports here."""
    nova.conf.CONF([], project="nova", default_config_files=[], default_config_dirs=[])
    nova.conf.CONF.set_override("service_down_time", 7 * 86400)
    objects.register_all()


def new_uuid(dice: random.Random) -> str:
    return str(uuid.UUID(int=dice.getrandbits(128), version=4))


def fill(dice: random.Random) -> list[tuple[int, int]]:
    """Servers of random sizes until the next one would pass FULL of the memory."""
    servers, size = list[tuple[int, int]](), dice.choice(SIZES)
    while sum(memory for memory, _ in servers) + size[0] <= FULL * MEMORY_MB:
        servers.append(size)
        size = dice.choice(SIZES)
    return servers


def host(number: int, servers: list[tuple[int, int]], dice: random.Random) -> HostState:
    name, memory, disk = f"host{number}", sum(one for one, _ in servers), 20 * len(servers)
    node = objects.ComputeNode(
        uuid=new_uuid(dice), host=name, hypervisor_hostname=name, host_ip="192.0.2.1", mapped=1,
        vcpus=VCPUS, memory_mb=MEMORY_MB, local_gb=DISK_GB,
        vcpus_used=sum(one for _, one in servers), memory_mb_used=memory, local_gb_used=disk,
        free_ram_mb=MEMORY_MB - memory, free_disk_gb=DISK_GB - disk, disk_available_least=DISK_GB - disk,
        current_workload=0, running_vms=len(servers), stats={"num_instances": str(len(servers)), "failed_builds": "0"},
        hypervisor_type="QEMU", hypervisor_version=7002000, cpu_info='{"arch": "x86_64"}', metrics="[]",
        supported_hv_specs=[objects.HVSpec(arch="x86_64", hv_type="qemu", vm_mode="hvm")],
        pci_device_pools=objects.PciDevicePoolList(objects=[]), numa_topology=None,
        cpu_allocation_ratio=CPU_RATIO, ram_allocation_ratio=1.0, disk_allocation_ratio=1.0,
        created_at=timeutils.utcnow(), updated_at=timeutils.utcnow(),
    )  # fmt: skip
    service = {"host": name, "disabled": False, "forced_down": False, "last_seen_up": timeutils.utcnow()}
    # Filters and weighers read only the keys: one object stands for all of a host's servers.
    instances = dict.fromkeys((new_uuid(dice) for _ in servers), objects.Instance())
    state = HostState(name, name, str(uuid.UUID(int=1)))
    state.update(compute=node, service=service, aggregates=[], inst_dict=instances)
    return state


def requests(scenario: str, dice: random.Random) -> Iterator[objects.RequestSpec]:
    """One server after the other; in anti_affinity each group has GROUP of them, asked one by one."""
    extra = {"capabilities:hypervisor_type": "none"} if scenario == "nothing" else {}
    group: Any = None
    for number in itertools.count():
        instance = new_uuid(dice)
        if scenario == "anti_affinity":
            if number % GROUP == 0:
                rule = {"policy": "anti-affinity", "policies": ["anti-affinity"]}
                group = objects.InstanceGroup(uuid=new_uuid(dice), members=[], hosts=[], **rule)
            group.members.append(instance)
        yield objects.RequestSpec(
            instance_uuid=instance, num_instances=1, instance_group=group, is_bfv=False,
            flavor=objects.Flavor(name="bench", memory_mb=512, vcpus=1, root_gb=1, ephemeral_gb=0, swap=0,
                                  extra_specs=extra),
            image=objects.ImageMeta(id=instance, properties=objects.ImageMetaProps()),
            pci_requests=objects.InstancePCIRequests(requests=[]), numa_topology=None, availability_zone=None,
            ignore_hosts=None, force_hosts=None, force_nodes=None, requested_destination=None, retry=None,
            limits=objects.SchedulerLimits(), scheduler_hints={}, project_id="bench", user_id="bench",
        )  # fmt: skip


def check(scenario: str, spec: objects.RequestSpec, chosen: HostState | None) -> None:
    """A figure counts only when the answer is right."""
    if (chosen is None) != (scenario == "nothing"):
        raise SystemExit(f"{scenario}: Nova chose {chosen}")
    if spec.instance_group is not None and len(set(spec.instance_group.hosts)) != len(spec.instance_group.members):
        raise SystemExit(f"{scenario}: two members of a group on one host: {spec.instance_group.hosts}")


def measure(scheduler: Scheduler, scenario: str, count: int, seconds: float) -> dict[str, Any]:
    dice = random.Random(SEED)
    hosts = [host(number, fill(dice) if scenario == "full90" else [], dice) for number in range(count)]
    most = next(decisions for up_to, decisions in DECISIONS if count <= up_to)
    times, processor = list[float](), list[float]()
    gc.collect()
    gc.freeze()  # as in our half: the collector does not walk the hosts
    until = time.perf_counter() + seconds
    for number, spec in enumerate(itertools.islice(requests(scenario, dice), WARM_UP + most)):
        started, used = time.perf_counter(), time.process_time()
        chosen = scheduler.decide(hosts, spec)
        took, used = time.perf_counter() - started, time.process_time() - used
        check(scenario, spec, chosen)
        times.append(took)
        processor.append(used)
        if number >= WARM_UP and time.perf_counter() > until:
            break
    gc.unfreeze()
    times, processor = times[WARM_UP:], processor[WARM_UP:]
    return {
        "hosts": count, "scenario": scenario, "decisions": len(times),
        "median_ms": round(statistics.median(times) * 1000, 3),
        "p99_ms": round(sorted(times)[math.ceil(0.99 * len(times)) - 1] * 1000, 3),
        "per_second": round(len(times) / sum(times), 2),
        "median_cpu_ms": round(statistics.median(processor) * 1000, 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Nova's filter scheduler, decision by decision. Prints JSON.")
    parser.add_argument("--hosts", default="100,1000,10000", help="how many, several by commas")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="several by commas")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each scenario and number of hosts, at most")
    given = parser.parse_args()
    configure()
    random.seed(SEED)
    scheduler = Scheduler()
    pairs = itertools.product(given.hosts.split(","), given.scenarios.split(","))
    results = [measure(scheduler, scenario, int(count), given.seconds) for count, scenario in pairs]
    print(json.dumps({
        "nova": version("nova"),
        "python": platform.python_version(),
        "filters": [type(one).__name__ for one in scheduler.host_manager.enabled_filters],
        "weighers": [type(one).__name__ for one in scheduler.host_manager.weighers],
        "results": results,
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
