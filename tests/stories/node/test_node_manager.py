"""What the conductor can rely on: claims, joined calls, fences, and nothing left behind."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.stories.node.orders import ControlSide, build_order, spawn_order

from nacre.base.errors import BuildFailed, NotFound, Refused
from nacre.node.hypervisor.fake import CAPABILITIES, FakeHypervisor, Faults
from nacre.node.journal import Journal
from nacre.node.manager import NodeManager, NodeSettings
from nacre.node.ovs.fake import FakeWiring
from nacre.node.servers.limits import Rate
from nacre.node.service import NodeService
from nacre.scheduler.contract import DiskReport


class Host:
    """One simulated host that may be killed and started again."""

    def __init__(self, folder: Path):
        self.folder, self.control = folder, ControlSide()
        self.faults = Faults()
        self.services: list[NodeService] = []
        self.capabilities, self.offer = CAPABILITIES, dict[str, Any]()

    async def start(self, *, greet: bool = True) -> NodeManager:
        self.hypervisor = FakeHypervisor(self.capabilities, folder=self.folder / "guests", faults=self.faults)
        self.wiring = FakeWiring("h1", self.control)  # type: ignore[arg-type]
        settings = NodeSettings(host="h1", folder=self.folder / "node", shutdown_timeout=0.3, heartbeat=0.2,
                                **self.offer)
        self.node = NodeManager(settings, self.hypervisor, self.wiring)
        self.service = NodeService(self.node, self.control, self.control)  # type: ignore[arg-type]
        self.services.append(self.service)
        await self.service.start()
        if greet:
            await asyncio.wait_for(self.service.greeted.wait(), 5)
        return self.node

    async def build(self, order=None, ports: int = 1):  # type: ignore[no-untyped-def]
        order = order or build_order()
        spawn = self.control.show(spawn_order(order, ports))
        await self.node.claim(order)
        await self.node.prepare(order.server_id, order.epoch)
        await self.node.spawn(spawn)
        return order, spawn


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    await host.start()
    yield host
    for service in host.services[-1:]:
        await service.stop()


async def test_a_server_runs_and_goes_without_a_trace(host: Host) -> None:
    order, spawn = await host.build()
    [guest] = await host.node.inventory()
    assert guest.power == "running" and guest.claimed and guest.epoch == 1
    assert [s.name for s in guest.steps] == ["disks", "domain", "wiring", "boot"]
    assert host.wiring.up == {spawn.ports[0].id}
    assert "READY" in await host.node.console(order.server_id, 10)
    await host.node.destroy(order.server_id, 1)
    assert await host.node.inventory() == ()
    assert host.hypervisor.servers == {} and host.wiring.up == set() and host.node.here.tracker.used.memory_mb == 0
    await host.node.destroy(order.server_id, 1)


async def test_a_claim_over_the_limit_is_refused_with_its_reason(host: Host) -> None:
    await host.node.claim(build_order(memory_mb=3584))
    with pytest.raises(Refused, match="memory: 2048 MB wanted, 512 MB free of 4096"):
        await host.node.claim(build_order(memory_mb=2048))
    assert len(await host.node.inventory()) == 1


async def test_limits_that_no_host_can_hold_are_said_before_anything_is_taken(host: Host) -> None:
    with pytest.raises(BuildFailed, match="quota:vif_inbound_peak must be a whole number"):
        await host.node.claim(build_order(extra_specs={"quota:vif_inbound_peak": "fast"}))
    assert await host.node.inventory() == () and not host.node.here.tracker.servers


async def test_a_server_whose_limits_cannot_be_read_keeps_no_host_from_starting(host: Host) -> None:
    await host.build(build_order(net_bandwidth=4))
    await host.service.stop()
    journal = host.node.here.journal
    [entry] = journal.all()
    assert entry.order is not None
    again = Journal(host.folder / "node" / "journal")
    await again.write(msgspec.structs.replace(entry, order=msgspec.structs.replace(
        entry.order, extra_specs={"quota:vif_inbound_average": "fast"})))
    await again.close()
    await host.start()
    assert [guest.power for guest in await host.node.inventory()] == ["running"] and host.wiring.rates == {}


async def test_limits_of_interfaces_outlive_a_restart(host: Host) -> None:
    order, spawn = await host.build(build_order(net_bandwidth=4))
    assert host.wiring.rates == {spawn.ports[0].id: Rate(4000, 4000)}
    await host.service.stop()
    await host.start()
    assert host.wiring.rates == {spawn.ports[0].id: Rate(4000, 4000)}
    await host.node.destroy(order.server_id, 1)
    assert host.wiring.rates == {}


async def test_a_report_has_what_is_offered_and_what_is_taken_of_it(tmp_path: Path) -> None:
    host, sizes = Host(tmp_path), {"/one": 10240, "/two": 30720}
    host.capabilities = msgspec.structs.replace(CAPABILITIES, directories_mb=sizes)
    host.offer = {"disks": {"/one": 100, "/two": 0}, "disk_bandwidth": 50, "net_bandwidth": 1000}
    await host.start()
    await host.build(build_order("a", selected_dir="/one", root_gb=2, disk_shares=30, net_bandwidth=40,
                                 disk_bandwidth=6))
    await host.node.claim(build_order("b", selected_dir="/two", root_gb=3, net_bandwidth=2))
    await host.service.stop()
    for _ in range(2):  # the second time from the journal
        report = await host.service.report()
        assert report.disks == (
            DiskReport(path="/one", total_mb=10240, used_mb=2048, shares=100, shares_used=30, bandwidth=50),
            DiskReport(path="/two", total_mb=30720, used_mb=3072, shares=0, shares_used=0, bandwidth=50))
        assert (report.disk_gb, report.disk_gb_used) == (40, 5)
        assert (report.disk_bandwidth, report.disk_bandwidth_used) == (100, 6)
        assert (report.net_bandwidth, report.net_bandwidth_used, report.servers) == (1000, 42, ("a", "b"))
        await host.start()
        await host.service.stop()


async def test_another_amount_is_another_build(host: Host) -> None:
    order, _ = await host.build(build_order(net_bandwidth=4))
    await host.node.claim(msgspec.structs.replace(order, epoch=2))
    for change in ({"net_bandwidth": 5}, {"disk_bandwidth": 1}, {"disk_shares": 1}):
        with pytest.raises(Refused, match="already runs on this host, built from another order"):
            await host.node.claim(msgspec.structs.replace(order, epoch=3, **change))


async def test_repeated_and_simultaneous_calls_have_one_effect(host: Host) -> None:
    host.faults.delay["*"] = 0.02
    order = build_order()
    spawn = host.control.show(spawn_order(order))
    await asyncio.gather(*(host.node.claim(order) for _ in range(5)))
    await asyncio.gather(*(host.node.prepare(order.server_id, 1) for _ in range(5)))
    guests = await asyncio.gather(*(host.node.spawn(spawn) for _ in range(5)))
    assert {g.power for g in guests} == {"running"} and len({g.steps for g in guests}) == 1
    assert (await host.node.spawn(spawn)).power == "running"
    assert host.node.here.tracker.used.memory_mb == 512


@pytest.mark.parametrize("verb", ["prepare", "define", "resume"])
async def test_a_failed_build_takes_everything_back(host: Host, verb: str) -> None:
    host.faults.fail[verb] = 1
    order = build_order()
    with pytest.raises(BuildFailed, match="a fault was asked for"):
        await host.build(order)
    assert await host.node.inventory() == () and host.hypervisor.servers == {} and host.wiring.up == set()
    assert host.node.here.tracker.used.memory_mb == 0
    with pytest.raises(Refused):
        await host.node.claim(order)
    await host.build(build_order(order.server_id, epoch=2))


async def test_wiring_that_fails_takes_everything_back(host: Host) -> None:
    host.wiring.faults.fail = 1
    with pytest.raises(BuildFailed, match="wiring"):
        await host.build()
    assert host.hypervisor.servers == {} and not host.node.here.tracker.servers


async def test_an_abort_ends_a_build_that_hangs_and_fences_it(host: Host) -> None:
    host.faults.hang.add("define")
    order = build_order()
    spawn = host.control.show(spawn_order(order))
    await host.node.claim(order)
    await host.node.prepare(order.server_id, 1)
    running = asyncio.ensure_future(host.node.spawn(spawn))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(host.node.abort(order.server_id, 1), 2)
    with pytest.raises(Refused):
        await running
    with pytest.raises(Refused):
        await host.node.spawn(spawn)
    assert host.hypervisor.servers == {} and not host.node.here.tracker.servers


async def test_an_abort_of_what_never_came_refuses_it_later(host: Host) -> None:
    order = build_order(epoch=3)
    await host.node.abort(order.server_id, 3)
    with pytest.raises(Refused):
        await host.node.claim(order)


async def test_a_lower_epoch_is_refused_in_every_verb(host: Host) -> None:
    order, _spawn = await host.build(build_order(epoch=5))
    old = build_order(order.server_id, epoch=4)
    for call in (host.node.claim(old), host.node.prepare(order.server_id, 4), host.node.abort(order.server_id, 4),
                 host.node.destroy(order.server_id, 4), host.node.power(order.server_id, 4, "stop"),
                 host.node.spawn(spawn_order(old))):
        with pytest.raises(Refused):
            await call
    assert (await host.node.inventory())[0].power == "running"


async def test_a_later_attempt_goes_on_with_what_is_here(host: Host) -> None:
    order = build_order()
    await host.node.claim(order)
    await host.node.prepare(order.server_id, 1)
    await host.build(build_order(order.server_id, epoch=2))
    assert host.node.here.tracker.used.memory_mb == 512
    assert (await host.node.inventory())[0].epoch == 2


async def test_power_actions_bring_about_the_wanted_state(host: Host) -> None:
    order, _spawn = await host.build()
    for action, wanted in (("stop", "shutdown"), ("stop", "shutdown"), ("start", "running"), ("start", "running"),
                           ("reboot-soft", "running"), ("reboot-hard", "running")):
        assert (await host.node.power(order.server_id, 1, action)).power == wanted
    host.faults.deaf = True
    assert (await host.node.power(order.server_id, 1, "stop")).power == "shutdown"
    with pytest.raises(NotFound):
        await host.node.power("nobody", 1, "start")
    assert host.control.power == []


async def test_a_guest_that_stops_by_itself_is_told_of(host: Host) -> None:
    order, _ = await host.build()
    await host.hypervisor.crash_guest(order.server_id)
    assert host.control.power == [(order.server_id, "shutdown")]


async def test_a_killed_node_finds_its_guests_and_claims_again(host: Host) -> None:
    order, spawn = await host.build()
    half = build_order()
    await host.node.claim(half)
    await host.service.stop()
    await host.start()
    assert {g.server_id: (g.power, g.claimed) for g in await host.node.inventory()} == {
        order.server_id: ("running", True), half.server_id: ("missing", True)}
    assert host.control.hellos[-1].report.memory_mb_used == 1024
    assert (await host.node.spawn(spawn)).power == "running"


async def test_what_is_not_wanted_any_more_is_taken_away_at_the_start(host: Host) -> None:
    order, _ = await host.build()
    await host.service.stop()
    host.control.unwanted = (order.server_id,)
    await host.start()
    assert await host.node.inventory() == () and host.hypervisor.servers == {}


async def test_a_taking_back_that_fails_is_tried_again(host: Host) -> None:
    order, _ = await host.build()
    host.faults.fail["destroy"] = 1
    with pytest.raises(BuildFailed):
        await host.node.destroy(order.server_id, 1)
    assert host.node.here.tracker.used.memory_mb == 512
    for _ in range(40):
        await asyncio.sleep(0.05)
        if not host.node.here.tracker.servers:
            break
    assert host.hypervisor.servers == {} and not host.node.here.tracker.servers


async def test_usage_is_reported_on_change_and_as_a_heartbeat(host: Host) -> None:
    await host.build()
    await asyncio.sleep(0.3)
    assert host.control.reports[-1].memory_mb_used == 512 and host.control.reports[-1].running == 1
    before = len(host.control.reports)
    await asyncio.sleep(0.5)
    assert len(host.control.reports) > before


async def test_a_console_has_lines_as_nova_counts_them(host: Host) -> None:
    order, _ = await host.build()
    whole = await host.node.console(order.server_id, None)
    assert whole.count("\n") >= 3
    assert await host.node.console(order.server_id, 3) == "\n".join(whole.split("\n")[-3:])
    assert await host.node.console(order.server_id, 0) == ""


async def test_a_busy_host_keeps_its_network_agent_alive(host: Host) -> None:
    before = host.control.agent_reports
    for _ in range(20):  # news more often than the heartbeat
        host.node.here.changed.set()
        await asyncio.sleep(0.05)
    assert host.control.agent_reports >= before + 3


async def test_secrets_do_not_stay_in_the_journal_of_a_running_server(host: Host) -> None:
    order, _ = await host.build()
    entry = host.node.here.journal.get(order.server_id)
    assert entry is not None and entry.order is not None and entry.order.guest.admin_password is None
