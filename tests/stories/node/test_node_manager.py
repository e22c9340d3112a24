"""What the conductor can rely on: claims, joined orders, fences, and nothing left behind; and that what nobody ordered
to end goes on."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.stories.node.orders import Controls, ControlSide, build_order, done, end_order, power_order, spawn_order

from nacre.base.errors import Barred, BuildFailed, NotFound, Refused, Unavailable
from nacre.conductor.contract import ControlAddress, NodeHello, Welcome
from nacre.node.contract import EndOrder
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
        self.controls = Controls(control=self.control)
        self.faults = Faults()
        self.services: list[NodeService] = []
        self.capabilities, self.offer = CAPABILITIES, dict[str, Any]()

    async def start(self, *, greet: bool = True) -> NodeManager:
        self.hypervisor = FakeHypervisor(self.capabilities, folder=self.folder / "guests", faults=self.faults)
        self.wiring = FakeWiring("h1", self.control)  # type: ignore[arg-type]
        settings = NodeSettings(host="h1", shutdown_timeout=0.3, heartbeat=0.2, **self.offer)
        self.node = NodeManager(settings, Journal(self.folder / "node" / "journal.db"), self.hypervisor, self.wiring)
        self.service = NodeService(self.node, self.controls)
        self.services.append(self.service)
        await self.service.start()
        if greet:
            await asyncio.wait_for(self.service.greeted.wait(), 5)
        return self.node

    async def build(self, order=None, ports: int = 1):  # type: ignore[no-untyped-def]
        order = order or build_order()
        spawn = self.control.show(spawn_order(order, ports))
        await self.node.prepare(order)
        await self.node.spawn(spawn)
        return order, spawn

    async def guests(self) -> dict[str, str]:
        return {held.server_id: held.power for held in await self.node.held()}

    async def beat(self) -> None:
        """Until the control side has heard of what is now."""
        count = len(self.control.beats)
        async with asyncio.timeout(5):
            while len(self.control.beats) < count + 2:
                await asyncio.sleep(0.02)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    await host.start()
    yield host
    for service in host.services[-1:]:
        await service.stop()


async def test_a_server_runs_and_goes_without_a_trace(host: Host) -> None:
    order, spawn = await host.build()
    work = await host.node.spawn(spawn)
    assert work.done and work.guest is not None and work.guest.power == "running"
    assert [s.name for s in work.guest.steps] == ["claim", "disks", "domain", "wiring", "boot"]
    assert host.wiring.up == {spawn.ports[0].id}
    assert "READY" in await host.node.console(order.server_id, 10)
    assert (await host.node.end(end_order(order))).done
    assert await host.node.held() == ()
    assert host.hypervisor.servers == {} and host.wiring.up == set() and host.node.here.tracker.used.memory_mb == 0
    assert (await host.node.end(end_order(order))).done


async def test_a_claim_over_the_limit_is_refused_with_its_reason(host: Host) -> None:
    await host.node.prepare(build_order(memory_mb=3584))
    with pytest.raises(Refused, match="memory: 2048 MB wanted, 512 MB free of 4096"):
        await host.node.prepare(build_order(memory_mb=2048))
    assert len(await host.node.held()) == 1


async def test_limits_that_no_host_can_hold_are_said_before_anything_is_taken(host: Host) -> None:
    with pytest.raises(BuildFailed, match="quota:vif_inbound_peak must be a whole number"):
        await host.node.prepare(build_order(extra_specs={"quota:vif_inbound_peak": "fast"}))
    assert await host.node.held() == () and not host.node.here.tracker.allocations


async def test_a_server_whose_limits_cannot_be_read_keeps_no_host_from_starting(host: Host) -> None:
    await host.build(build_order(net_bandwidth=4))
    await host.service.stop()
    journal = host.node.here.journal
    [entry] = journal.all()
    assert entry.order is not None
    again = Journal(host.folder / "node" / "journal.db")
    await again.write(msgspec.structs.replace(entry, order=msgspec.structs.replace(
        entry.order, extra_specs={"quota:vif_inbound_average": "fast"})))
    await again.close()
    await host.start()
    assert list((await host.guests()).values()) == ["running"] and host.wiring.rates == {}


async def test_limits_of_interfaces_outlive_a_restart(host: Host) -> None:
    order, spawn = await host.build(build_order(net_bandwidth=4))
    assert host.wiring.rates == {spawn.ports[0].id: Rate(4000, 4000)}
    await host.service.stop()
    await host.start()
    assert host.wiring.rates == {spawn.ports[0].id: Rate(4000, 4000)}
    await host.node.end(end_order(order))
    assert host.wiring.rates == {}


async def test_a_report_has_what_is_offered_and_what_is_taken_of_it(tmp_path: Path) -> None:
    host, sizes = Host(tmp_path), {"/one": 10240, "/two": 30720}
    host.capabilities = msgspec.structs.replace(CAPABILITIES, directories_mb=sizes)
    host.offer = {"disks": {"/one": 100, "/two": 0}, "disk_bandwidth": 50, "net_bandwidth": 1000}
    await host.start()
    await host.build(build_order("a", selected_dir="/one", root_gb=2, disk_shares=30, net_bandwidth=40,
                                 disk_bandwidth=6))
    await host.node.prepare(build_order("b", selected_dir="/two", root_gb=3, net_bandwidth=2))
    await host.service.stop()
    for _ in range(2):  # the second time from the journal
        report = await host.service.report()
        assert report.disks == (
            DiskReport(path="/one", total_mb=10240, used_mb=2048, shares=100, shares_used=30, bandwidth=50),
            DiskReport(path="/two", total_mb=30720, used_mb=3072, shares=0, shares_used=0, bandwidth=50))
        assert (report.disk_gb, report.disk_gb_used) == (40, 5)
        assert (report.disk_bandwidth, report.disk_bandwidth_used) == (100, 6)
        assert (report.net_bandwidth, report.net_bandwidth_used) == (1000, 42)
        assert {held.server_id for held in report.held} == {"a", "b"}
        await host.start()
        await host.service.stop()


async def test_a_server_that_runs_here_is_not_built_by_another_order(host: Host) -> None:
    order, _ = await host.build()
    with pytest.raises(Refused, match="already runs on this host"):
        await host.node.prepare(build_order(order.server_id, epoch=2))


async def test_repeated_and_simultaneous_orders_have_one_effect(host: Host) -> None:
    host.faults.delay["*"] = 0.02
    order = build_order()
    spawn = host.control.show(spawn_order(order))
    await asyncio.gather(*(host.node.prepare(order) for _ in range(5)))
    works = await asyncio.gather(*(host.node.spawn(spawn) for _ in range(5)))
    assert {w.guest.power for w in works if w.guest} == {"running"} and len({w.guest for w in works}) == 1
    assert (await host.node.spawn(spawn)).done
    assert host.node.here.tracker.used.memory_mb == 512


async def test_long_work_is_answered_before_it_is_done_and_its_failure_is_kept(
        host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nacre.node.servers.works.ANSWER", 0.05)
    host.faults.delay["prepare"], host.faults.fail["prepare"] = 0.3, 1
    order = build_order()
    work = await host.node.prepare(order)
    assert not work.done and work.step == "image and disks"
    await host.beat()
    assert ("prepare", "image and disks") in {(w.verb, w.step) for b in host.control.beats for w in b.works}
    async with asyncio.timeout(5):
        while host.node.here.works.busy(order.server_id):
            await asyncio.sleep(0.02)
    with pytest.raises(BuildFailed, match="a fault was asked for"):  # though nobody waited when it failed
        await host.node.prepare(order)


async def test_who_asks_while_a_start_fails_hears_why(host: Host) -> None:
    order = build_order()
    spawn = host.control.show(spawn_order(order, 1))
    await host.node.prepare(order)
    host.faults.delay["define"], host.faults.fail["define"] = 0.2, 1
    dead = asyncio.create_task(host.node.spawn(spawn))
    await asyncio.sleep(0.05)
    dead.cancel()
    with pytest.raises(BuildFailed, match="a fault was asked for"):
        await host.node.prepare(order)


async def test_who_takes_an_attempt_up_again_hears_why_its_start_failed(host: Host) -> None:
    """A control process that died before it heard of it is followed by one that asks from the beginning."""
    order = build_order()
    spawn = host.control.show(spawn_order(order, 1))
    await host.node.prepare(order)
    host.faults.delay["define"], host.faults.fail["define"] = 0.1, 1
    dead = asyncio.create_task(host.node.spawn(spawn))
    await asyncio.sleep(0.05)
    dead.cancel()
    async with asyncio.timeout(5):
        while host.node.here.works.busy(order.server_id):
            await asyncio.sleep(0.02)
    with pytest.raises(BuildFailed, match="a fault was asked for"):
        await host.node.prepare(order)
    with pytest.raises(Refused, match="taken back"):
        await host.node.prepare(order)


@pytest.mark.parametrize("verb", ["prepare", "define", "resume"])
async def test_a_failed_build_takes_everything_back(host: Host, verb: str) -> None:
    host.faults.fail[verb] = 1
    order = build_order()
    with pytest.raises(BuildFailed, match="a fault was asked for"):
        await host.build(order)
    assert await host.node.held() == () and host.hypervisor.servers == {} and host.wiring.up == set()
    assert host.node.here.tracker.used.memory_mb == 0
    with pytest.raises(Refused):
        await host.node.prepare(order)
    await host.build(build_order(order.server_id, epoch=2))


async def test_wiring_that_fails_takes_everything_back(host: Host) -> None:
    host.wiring.faults.fail = 1
    with pytest.raises(BuildFailed, match="wiring"):
        await host.build()
    assert host.hypervisor.servers == {} and not host.node.here.tracker.allocations


async def test_an_end_stops_a_build_that_hangs_and_fences_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nacre.node.servers.works.ANSWER", 0.05)
    host.faults.hang.add("define")
    order = build_order()
    spawn = host.control.show(spawn_order(order))
    await host.node.prepare(order)
    assert not (await host.node.spawn(spawn)).done
    async with asyncio.timeout(2):
        while not (await host.node.end(end_order(order))).done:
            pass
    with pytest.raises(Refused):
        await host.node.spawn(spawn)
    assert host.hypervisor.servers == {} and not host.node.here.tracker.allocations


async def test_an_end_of_what_never_came_refuses_it_later(host: Host) -> None:
    order = build_order(epoch=3)
    await host.node.end(end_order(order))
    with pytest.raises(Refused):
        await host.node.prepare(order)
    await host.node.prepare(build_order(order.server_id, epoch=4))


async def test_orders_of_a_lower_epoch_are_refused(host: Host) -> None:
    order, _spawn = await host.build(build_order(epoch=5))
    old = build_order(order.server_id, epoch=4)
    for call in (host.node.prepare(old), host.node.spawn(spawn_order(old)),
                 host.node.power(power_order(order, "stop", epoch=4))):
        with pytest.raises(Refused):
            await call
    await host.node.end(end_order(old))  # of an attempt that is not here: nothing happens
    assert await host.guests() == {order.server_id: "running"}


async def test_a_later_attempt_takes_the_place_of_one_that_got_nowhere(host: Host) -> None:
    order = build_order()
    await host.node.prepare(order)
    await host.build(build_order(order.server_id, epoch=2))
    assert host.node.here.tracker.used.memory_mb == 512
    assert [held.epoch for held in await host.node.held()] == [2]


async def test_power_actions_bring_about_the_wanted_state(host: Host) -> None:
    order, _spawn = await host.build()
    for action, wanted in (("stop", "shutdown"), ("stop", "shutdown"), ("start", "running"), ("start", "running"),
                           ("reboot-soft", "running"), ("reboot-hard", "running")):
        work = await host.node.power(power_order(order, action))
        assert work.guest is not None and work.guest.power == wanted
    host.faults.deaf = True
    work = await host.node.power(power_order(order, "stop"))
    assert work.guest is not None and work.guest.power == "shutdown"
    with pytest.raises(NotFound):
        await host.node.power(power_order(build_order(), "start"))


async def test_a_guest_that_cannot_be_wired_when_it_starts_again_is_halted_not_left_paused(host: Host) -> None:
    order, _ = await host.build()
    host.wiring.faults.fail = 1
    with pytest.raises(BuildFailed):
        await host.node.power(power_order(order, "reboot-hard"))
    assert await host.guests() == {order.server_id: "shutdown"}
    await host.node.power(power_order(order, "start"))
    assert await host.guests() == {order.server_id: "running"}


async def test_a_guest_that_stops_by_itself_is_in_the_next_beat(host: Host) -> None:
    order, _ = await host.build()
    await host.beat()
    await host.hypervisor.crash_guest(order.server_id)
    await host.beat()
    assert host.control.powers() == {order.server_id: "shutdown"}


async def test_an_answer_is_numbered_after_every_report_that_does_not_know_of_it(host: Host) -> None:
    order, _ = await host.build()
    work = await host.node.power(power_order(order, "stop"))
    assert work.guest is not None
    await host.beat()
    for report in host.control.reports:
        for held in report.held:
            assert held.power == "shutdown" or report.number < work.guest.number
    assert host.control.reports[-1].number > work.guest.number


async def test_a_look_that_began_before_an_order_was_done_says_less_than_its_answer(host: Host) -> None:
    order, _ = await host.build()
    guests, looked, go = host.hypervisor.guests, asyncio.Event(), asyncio.Event()

    async def slow() -> dict[str, str]:
        found = await guests()
        looked.set()
        await go.wait()
        return found

    host.hypervisor.guests = slow  # type: ignore[method-assign]
    looking = asyncio.create_task(host.service.report())
    await looked.wait()
    host.hypervisor.guests = guests  # type: ignore[method-assign]
    work = await host.node.power(power_order(order, "stop"))
    go.set()
    late, after = await looking, await host.service.report()
    assert work.guest is not None
    assert late.held[0].power == "running" and (late.incarnation, late.held[0].since) < work.guest.number
    assert late.number < work.guest.number < after.number
    assert (after.held[0].power, after.held[0].since) == ("shutdown", work.guest.number[1])
    again = await host.service.report()
    assert again.held[0].since == after.held[0].since and again.number > after.number


async def test_a_killed_node_finds_its_guests_and_claims_again(host: Host) -> None:
    order, spawn = await host.build()
    half = build_order()
    await host.node.prepare(half)
    before = host.control.hellos[-1].beat.report
    await host.service.stop()
    await host.start()
    assert await host.guests() == {order.server_id: "running", half.server_id: "missing"}
    after = host.control.hellos[-1].beat.report
    assert after.memory_mb_used == 1024 and after.number > before.number
    work = await host.node.spawn(spawn)
    assert work.guest is not None and work.guest.power == "running"


async def test_what_the_database_does_not_know_is_kept(host: Host) -> None:
    order, _ = await host.build()
    await host.service.stop()
    host.control.welcome = Welcome(cloud="cloud", position=5, orphans=(order.allocation,))
    await host.start()
    await host.beat()
    assert await host.guests() == {order.server_id: "running"}
    [orphan] = await host.node.describe((order.allocation,))
    assert (orphan.server_id, orphan.power) == (order.server_id, "running")
    assert orphan.order is not None and orphan.order.guest.name == "web" and len(orphan.ports) == 1


async def test_a_guest_that_the_journal_lost_is_kept_and_can_be_ended(host: Host) -> None:
    order, _ = await host.build()
    await host.service.stop()
    (host.folder / "node" / "journal.db").unlink()
    for rest in (host.folder / "node").glob("journal.db-*"):
        rest.unlink()
    await host.start()
    assert await host.guests() == {order.server_id: "running"}
    with pytest.raises(Refused, match="already exists on this host"):
        await host.node.prepare(order)
    await host.node.end(EndOrder(cloud="cloud", allocation=order.server_id, server_id=order.server_id, epoch=9))
    assert await host.guests() == {}


@pytest.mark.parametrize("welcome", [
    Welcome(cloud="another", position=100), Welcome(cloud="cloud", position=3, era="b", older=True),
    Welcome(cloud="cloud", position=100, era="b", older=True)], ids=["another cloud", "restored", "restored long ago"])
async def test_a_host_with_servers_takes_no_orders_of_another_state(host: Host, welcome: Welcome) -> None:
    order, _ = await host.build()
    host.control.welcome = Welcome(cloud="cloud", position=7, era="a")
    await host.service.stop()
    await host.start()
    await host.service.stop()
    host.control.welcome = welcome
    await host.start()
    await host.beat()
    for call in (host.node.end(msgspec.structs.replace(end_order(order), cloud=welcome.cloud)),
                 host.node.power(msgspec.structs.replace(power_order(order, "stop"), cloud=welcome.cloud)),
                 host.node.prepare(build_order(cloud=welcome.cloud))):
        with pytest.raises(Barred):
            await call
    assert await host.guests() == {order.server_id: "running"}
    host.control.welcome = msgspec.structs.replace(welcome, accepted=True)
    async with asyncio.timeout(5):
        while host.node.here.barred:
            await asyncio.sleep(0.02)
    facts = host.node.here.journal.facts
    assert (facts.position, facts.era) == (welcome.position, welcome.era)
    await host.node.end(msgspec.structs.replace(end_order(order), cloud=welcome.cloud))
    assert await host.guests() == {}


async def test_an_order_that_comes_during_a_hello_makes_no_database_older(host: Host) -> None:
    """Its position is later than the one that control read for its answer."""
    await host.build(build_order(position=50, era="a"))
    hello, waits, go_on = host.control.hello, asyncio.Event(), asyncio.Event()

    async def slow(said: NodeHello) -> Welcome:
        await hello(said)
        waits.set()
        await go_on.wait()
        return Welcome(cloud="cloud", position=51, era="a")

    host.control.hello, host.control.again = slow, True  # type: ignore[method-assign]
    await asyncio.wait_for(waits.wait(), 5)
    host.control.again = False
    await done(lambda: host.node.prepare(build_order(position=60, era="a")))
    go_on.set()
    await host.beat()
    assert host.node.here.barred == "" and host.node.here.journal.facts.position == 60


async def test_a_judgement_of_what_was_seen_before_another_database_was_accepted_does_not_count(host: Host) -> None:
    await host.build(build_order(position=50, era="a"))
    hello, waits, go_on = host.control.hello, asyncio.Event(), asyncio.Event()

    async def slow(said: NodeHello) -> Welcome:
        await hello(said)
        waits.set()
        await go_on.wait()
        return Welcome(cloud="cloud", position=20, era="b", older=said.era == "a")

    host.control.hello, host.control.again = slow, True  # type: ignore[method-assign]
    await asyncio.wait_for(waits.wait(), 5)
    host.control.again = False
    await host.node.here.journal.learn(position=19, era="b")  # another control process said that it is accepted
    go_on.set()
    async with asyncio.timeout(5):
        while host.node.here.journal.facts.position != 20:
            assert host.node.here.barred == ""
            await asyncio.sleep(0.02)


async def test_a_host_without_servers_joins_whatever_cloud_it_is_given_to(host: Host) -> None:
    host.control.welcome = Welcome(cloud="another", position=1)
    await host.service.stop()
    await host.start()
    await host.node.prepare(build_order(cloud="another"))


async def test_orders_before_the_first_welcome_are_to_be_given_again(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.control.away = True
    await host.start(greet=False)
    with pytest.raises(Unavailable):
        await host.node.prepare(build_order())
    await host.service.stop()


async def test_every_control_process_is_told_and_a_dead_one_holds_up_none(host: Host) -> None:
    other = ControlSide()
    other.away = True
    host.controls.sides["other"] = other
    host.control.again = True
    host.control.welcome = Welcome(cloud="cloud", position=1, controls=(
        ControlAddress("control", "", ""), ControlAddress("other", "", "")))
    async with asyncio.timeout(5):
        while "other" not in host.controls.listed:
            await asyncio.sleep(0.02)
    host.control.again = False
    await host.beat()
    assert other.hellos == [] and other.beats == []
    other.away = False
    async with asyncio.timeout(5):
        while not other.beats:
            await asyncio.sleep(0.02)
    assert other.hellos and other.beats[-1].report.number <= host.control.beats[-1].report.number


async def test_what_could_not_be_taken_back_is_tried_again(host: Host) -> None:
    order, _ = await host.build()
    host.faults.fail["destroy"] = 1
    with pytest.raises(BuildFailed):
        await host.node.end(end_order(order))
    assert host.node.here.tracker.used.memory_mb == 512
    for _ in range(40):
        await asyncio.sleep(0.05)
        if not host.node.here.tracker.allocations:
            break
    assert host.hypervisor.servers == {} and not host.node.here.tracker.allocations


async def test_usage_is_reported_on_change_and_as_a_heartbeat(host: Host) -> None:
    await host.build()
    await asyncio.sleep(0.3)
    assert host.control.reports[-1].memory_mb_used == 512 and host.control.reports[-1].running == 1
    before = len(host.control.reports)
    await asyncio.sleep(0.5)
    assert len(host.control.reports) > before


async def test_regular_beats_come_as_seldom_as_the_busiest_control_process_wants(host: Host) -> None:
    await host.beat()
    host.control.period = 60.0
    await host.beat()
    await asyncio.sleep(0.1)
    before = len(host.control.beats)
    await asyncio.sleep(0.6)
    assert len(host.control.beats) == before
    await host.build()  # news comes at once
    async with asyncio.timeout(5):
        while len(host.control.beats) == before:
            await asyncio.sleep(0.02)


async def test_a_beat_without_an_answer_makes_no_hello(host: Host) -> None:
    """A control process without time for a beat has less for a hello. Who does not know the host any more says so."""
    await host.beat()
    host.control.away = True
    await asyncio.sleep(0.5)
    host.control.away = False
    await host.beat()
    assert len(host.control.hellos) == 1
    host.control.again = True
    async with asyncio.timeout(5):
        while len(host.control.hellos) < 2:
            await asyncio.sleep(0.02)


async def test_a_console_has_lines_as_nova_counts_them(host: Host) -> None:
    order, _ = await host.build()
    whole = await host.node.console(order.server_id, None)
    assert whole.count("\n") >= 3
    assert await host.node.console(order.server_id, 3) == "\n".join(whole.split("\n")[-3:])
    assert await host.node.console(order.server_id, 0) == ""


async def test_a_busy_host_has_its_regular_beat_all_the_same(host: Host) -> None:
    before = len(host.control.beats)
    for _ in range(20):  # news more often than the heartbeat
        host.node.here.changed.set()
        await asyncio.sleep(0.05)
    assert len(host.control.beats) >= before + 4


async def test_secrets_never_reach_the_disk(host: Host) -> None:
    await host.build()
    await host.service.stop()
    for file in host.folder.rglob("*"):
        assert not file.is_file() or b"sesame-7731" not in file.read_bytes()
