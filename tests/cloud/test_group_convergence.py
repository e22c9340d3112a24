"""Messages about members of security groups, and about ports of networks, come late, twice, in another order or not at
all; hosts and controls start anew, and databases are put back: once a host has had a beat answered, it has those that
the database has."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nacre.base.clock import VirtualClock, settle
from nacre.base.context import service_context
from nacre.base.durable import changes, eras
from nacre.base.durable.tables import changes as rows_of_changes
from nacre.base.errors import Unavailable
from nacre.identity.policy import PolicyEngine
from nacre.network import tables as t
from nacre.network.contract import (
    Differences,
    GroupFacts,
    GroupMembers,
    Have,
    HostWiring,
    NetworkPorts,
    PortFacts,
    Routing,
    RuleFacts,
    Versions,
)
from nacre.network.hosts import notifications, wiring
from nacre.network.hosts.members import MEMBERS
from nacre.network.hosts.placed import PLACED
from nacre.network.work import NetworkSettings, Work
from nacre.node.ovs.client import WiringClient
from nacre.node.ovs.contract import Standing
from nacre.node.ovs.groups.peers import PeerFlows
from tests import schema

NOW, GROUPS, PORTS = datetime(2026, 1, 1), ("g0", "g1"), tuple(f"p{n}" for n in range(3))
NET = "n"
HOME = "home"  # the group of the host's port, whose rules name the others
STANDARD = {"project_id": "p", "description": "", "created_at": NOW, "updated_at": NOW, "revision_number": 1,
            "tags": []}
HERE = PortFacts(id="here", name="", project_id="p", network_id="n", network_name="n", device_id="d",
                 mac_address="fa:16:3e:00:00:ff", fixed_ips=(), security_groups=(HOME,))
FACTS = GroupFacts(id=HOME, stateful=True, rules=tuple(
    RuleFacts(direction="ingress", ethertype="IPv4", remote_group=group) for group in GROUPS))


def prepare(connection: sa.Connection) -> None:
    """Groups, rules, and ports without a group or an address."""
    ports = [{**STANDARD, "id": p, "name": "", "network_id": "n", "mac_address": f"fa:16:3e:00:00:{i:02x}",
              "admin_state_up": True, "status": "ACTIVE", "device_id": "d", "device_owner": "compute:nova",
              "port_security_enabled": True, "allowed_address_pairs": [], "extra_dhcp_opts": [], "dns_name": "",
              "preserve": False, "position": 0} for i, p in enumerate((*PORTS, HERE.id))]
    rows: dict[sa.Table, list[dict[str, Any]]] = {
        t.networks: [{**STANDARD, "id": "n", "name": "", "admin_state_up": True, "mtu": 1450,
                      "port_security_enabled": True, "external": False, "is_default": False, "dns_domain": "",
                      "availability_zone_hints": []}],
        t.subnets: [{**STANDARD, "id": "s", "name": "", "network_id": "n", "ip_version": 4, "cidr": "10.0.0.0/24",
                     "enable_dhcp": True, "allocation_pools": [], "dns_nameservers": [], "host_routes": [],
                     "service_types": []}],
        t.security_groups: [{**STANDARD, "id": g, "name": g, "stateful": True} for g in (*GROUPS, HOME)],
        t.security_group_rules: [{**STANDARD, "id": f"r-{g}", "security_group_id": HOME, "direction": "ingress",
                                  "ethertype": "IPv4", "remote_group_id": g} for g in GROUPS],
        t.ports: ports,
        t.bindings: [{"port_id": HERE.id, "host": "h", "network_id": "n", "active": True, "wired": True,
                      "vnic_type": "normal", "vif_type": "ovs", "vif_details": {}, "profile": {}}],
        t.binding_groups: [{"group_id": HOME, "host": "h", "port_id": HERE.id}]}
    for table, these in rows.items():
        connection.execute(sa.insert(table), these)
    begin(connection)


def begin(connection: sa.Connection) -> None:
    """A control process starts."""
    changes.number(connection, NOW, "process")
    eras.begin(connection)


class Control:
    """The control side over one database, in the words of `Network`; an answer waits until it is let go."""

    def __init__(self) -> None:
        self.engine = schema.in_memory().engine
        with self.engine.begin() as connection:
            prepare(connection)
        self.backup = self._copy(sqlite3.connect(":memory:"), out=True)
        self.due: dict[notifications.Thing, int] = {}
        self.waiting: list[asyncio.Future[None]] = []
        self.lost = 0  # the first number of a history that went, unnoticed so far

    def _copy(self, other: sqlite3.Connection, *, out: bool) -> sqlite3.Connection:
        with self.engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            raw.backup(other) if out else other.backup(raw)
        return other

    def run(self, unit: Callable[[sa.Connection], Any]) -> Any:
        with self.engine.begin() as connection:
            return unit(connection)

    def move(self, port: str, groups: Collection[str], address: int) -> None:
        """The port is in these groups now, with this address (negative: none), on a host by that (0: on none)."""
        def unit(connection: sa.Connection) -> dict[notifications.Thing, int]:
            work = Work(connection, service_context(), VirtualClock(), NetworkSettings(), PolicyEngine([]),
                        lambda *_: None)
            before = connection.execute(sa.select(t.port_groups.c.group_id).where(t.port_groups.c.port_id == port))
            work.changes.moved(port, {*before.scalars(), *groups})
            work.changes.placed(NET, port)
            for table in (t.port_groups, t.addresses, t.bindings):
                connection.execute(sa.delete(table).where(table.c.port_id == port))
            if groups:
                connection.execute(sa.insert(t.port_groups), [{"port_id": port, "group_id": g} for g in groups])
            if address >= 0:
                connection.execute(sa.insert(t.addresses).prefix_with("OR IGNORE"), {
                    "port_id": port, "subnet_id": "s", "ip_address": f"10.0.0.{address}", "position": 0})
            connection.execute(sa.insert(t.bindings), {
                "port_id": port, "host": f"h{address % 3}" if address > 0 else "", "network_id": NET, "active": True,
                "wired": True, "vnic_type": "normal", "vif_type": "ovs", "vif_details": {}, "profile": {}})
            return notifications.note(work)

        for thing, before in self.run(unit).items():
            self.due[thing] = min(before, self.due.get(thing, before))

    def news(self) -> list[GroupMembers | NetworkPorts]:
        """What hosts are told of what changed since the last time."""
        due, self.due = self.due, {}
        groups, networks = ({id: n for (kind, id), n in due.items() if kind == each}
                            for each in (notifications.GROUP, notifications.NETWORK))
        return self.run(lambda c: [*MEMBERS.news(c, groups), *PLACED.news(c, networks)])  # type: ignore[no-any-return]

    def reply(self, numbers: tuple[dict[str, int], dict[str, int], int]) -> Standing:
        """To a beat."""
        def newer(last: dict[str, int], known: dict[str, int]) -> dict[str, int]:
            return {id: last[id] for id, n in known.items() if last.get(id, 0) > n}

        return Standing(trusted=True, era=self.run(eras.position).era,
                        members=newer(self.run(MEMBERS.newer), numbers[0]),
                        placed=newer(self.run(PLACED.newer), numbers[1]))

    def trim(self, keep: int) -> None:
        def unit(connection: sa.Connection) -> None:
            n = changes.position(connection)
            connection.execute(sa.delete(rows_of_changes).where(rows_of_changes.c.n < n - keep))
            for things in (MEMBERS, PLACED):
                things.trim(connection, things.going(connection))

        self.run(unit)

    def restore(self) -> None:
        """The last backup is the database, and a control starts with it. (Not what sqlite counts: as PostgreSQL's.)"""
        self._copy(self.backup, out=False)
        self.due, self.lost = {}, 0
        self.run(begin)

    def swap(self) -> None:
        """The last backup is the database, and no control has noticed it yet."""
        self._copy(self.backup, out=False)
        self.lost = self.run(changes.position) + 1

    def look(self) -> None:
        """As `Changes.look`: from what was lost on it is another history."""
        def unit(connection: sa.Connection) -> None:
            changes.number(connection, NOW, "era")
            eras.cut(connection, self.lost)

        if self.lost:
            self.run(unit)
        self.lost = 0

    def save(self) -> None:
        self.look()
        self._copy(self.backup, out=True)

    async def _answer(self, make: Callable[[sa.Connection], Any]) -> Any:
        found, gate = self.run(make), asyncio.get_running_loop().create_future()
        self.waiting.append(gate)
        await gate
        return found

    async def wiring(self, host: str, port_ids: tuple[str, ...] = (), have: Versions | None = None,
                     known: Have | None = None) -> HostWiring:
        def make(connection: sa.Connection) -> HostWiring:
            assert known is not None
            return HostWiring(whole=not port_ids, n=1, ports=(HERE,), groups=(FACTS,),
                              members=MEMBERS.read(connection, GROUPS, known.groups),
                              placed=PLACED.read(connection, [NET], known.networks))

        return await self._answer(make)  # type: ignore[no-any-return]

    async def differences(self, host: str, groups: tuple[str, ...], networks: tuple[str, ...],
                          known: Have) -> Differences:
        return await self._answer(lambda c: wiring.differences(c, host, (groups, networks), known))  # type: ignore[no-any-return]

    async def routing(self, host: str) -> Routing:
        return Routing()

    def truth(self) -> dict[str, Any]:
        def unit(connection: sa.Connection) -> dict[str, Any]:
            rows = connection.execute(sa.select(t.port_groups.c.group_id, t.addresses.c.ip_address).join(
                t.addresses, t.addresses.c.port_id == t.port_groups.c.port_id)).all()
            b, a = t.bindings.c, t.addresses.c
            places = connection.execute(sa.select(b.port_id, b.host, a.ip_address).where(b.host != "").outerjoin_from(
                t.bindings, t.addresses, a.port_id == b.port_id)).all()
            return {g: {f"{address}/32" for group, address in rows if group == g} for g in GROUPS} | {
                NET: {port: (host, (address,) if address else ()) for port, host, address in places}}

        return self.run(unit)  # type: ignore[no-any-return]


class Run:
    """A control, a host, and what is on its way."""

    def __init__(self) -> None:
        self.control = Control()
        self.wire: list[GroupMembers | NetworkPorts | Standing] = []
        self.asking: asyncio.Task[Any] | None = None
        self.start()

    def start(self) -> None:
        """The host, for the first time or again."""
        if self.asking:
            self.asking.cancel()
        self.control.waiting.clear()
        self.host, self.flows = WiringClient("h", self.control), PeerFlows()  # type: ignore[arg-type]
        self.host.follow(Standing(trusted=True, n=1))
        self.asking = None

    async def greet(self) -> None:
        """The host knows all that there is."""
        self.ask()
        for _ in range(3):
            await self.answered()

    def ask(self) -> None:
        if self.asking is None or self.asking.done():
            self.asking = asyncio.get_running_loop().create_task(self.host.ask())

    async def answered(self, well: bool = True) -> None:
        await settle(3)
        if self.control.waiting and not (gate := self.control.waiting.pop(0)).done():
            gate.set_result(None) if well else gate.set_exception(Unavailable("lost"))
        await settle(3)
        if self.asking and self.asking.done() and not self.asking.cancelled():
            self.asking.exception()

    def deliver(self, which: int, keep: bool) -> None:
        if self.wire:
            message = self.wire[which % len(self.wire)] if keep else self.wire.pop(which % len(self.wire))
            if isinstance(message, Standing):
                self.host.follow(message)
            elif isinstance(message, NetworkPorts):
                self.host.differ(Differences(placed=(message,)))
            else:
                self.host.differ(Differences(members=(message,)))

    def beat(self) -> None:
        self.wire.append(self.control.reply(self.host.versions()))

    async def step(self, name: str, *what: Any) -> None:
        control = self.control
        match name:
            case "move":
                control.move(*what)
            case "change":
                control.move(*what)
                self.wire += control.news()
            case "tell":
                self.wire += control.news()
            case "deliver":
                self.deliver(*what)
            case "lose" if self.wire:
                self.wire.pop(what[0] % len(self.wire))
            case "beat":
                self.beat()
            case "ask":
                self.ask()
            case "answer":
                await self.answered(*what)
            case "host":
                self.start()
            case "control":
                control.due = {}
                control.look()  # within POLL seconds: hardly later than another starts
                control.run(begin)
            case "trim":
                control.trim(*what)
            case "save" | "restore" | "swap" | "look":
                getattr(control, name)()

    async def finish(self) -> None:
        """All that is late comes, and then a beat is answered."""
        self.control.look()
        while self.wire:
            self.deliver(len(self.wire) // 2, False)
        self.beat()
        self.deliver(0, False)
        for _ in range(6):
            self.ask()
            for _ in range(4):
                await self.answered()

    def known(self) -> dict[str, Any]:
        return {group: self.host.members.cidrs(group) for group in GROUPS} | {
            NET: {id: (port.host, port.addresses) for id, port in self.host.places.of(NET).items()}}


_MOVE = st.tuples(st.sampled_from(PORTS), st.sets(st.sampled_from(GROUPS)), st.integers(-1, 6))
#: What happens to members, and to messages about them: mostly in time, sometimes not.
_NEWS = st.one_of(
    _MOVE.map(lambda what: ("move", *what)), _MOVE.map(lambda what: ("change", *what)),
    _MOVE.map(lambda what: ("change", *what)), st.just(("tell",)),
    st.tuples(st.just("deliver"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("deliver"), st.integers(0, 9), st.just(True)))
_STEP = st.one_of(
    _NEWS, _NEWS, _NEWS, st.tuples(st.just("lose"), st.integers(0, 9)), st.just(("beat",)), st.just(("ask",)),
    st.tuples(st.just("answer"), st.booleans()), st.just(("answer", True)), st.sampled_from([("host",), ("control",)]),
    st.tuples(st.just("trim"), st.integers(0, 4)), st.sampled_from([
        ("save",), ("restore",), ("swap",), ("look",)]))


#: The host is answered by a database that lost something, before its control notices.
_UNNOTICED = [("save",), ("change", "p0", {"g0"}, 1), ("change", "p1", {"g0"}, 2), ("deliver", 0, False),
              ("deliver", 0, False), ("swap",), ("move", "p2", {"g0"}, 3), ("move", "p2", {"g0"}, 4), ("move", "p2", {
                  "g0"}, 5), ("beat",), ("deliver", 0, False), ("ask",), ("answer", True), ("answer", True), ("look",)]


#: What is to be told is trimmed before it is told, as by another control while the machine slept.
_TRIMMED = [("move", "p0", {"g0"}, 1), ("move", "p1", {"g0"}, 2), ("trim", 0), ("tell",), ("deliver", 0, False)]


@pytest.mark.timeout(600)
@example(_UNNOTICED)
@example(_TRIMMED)
@settings(max_examples=300, deadline=None)
@given(st.lists(_STEP, min_size=10, max_size=50))
def test_whatever_becomes_of_messages_the_host_has_the_databases_members_in_the_end(
        steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        story = Run()
        await story.greet()
        for step in steps:
            await story.step(*step)
        await story.finish()
        assert story.known() == story.control.truth()
        assert not any(story.host.outdated())
        await asyncio.gather(*filter(None, [story.asking]), return_exceptions=True)
        story.control.engine.dispose()
        story.control.backup.close()

    asyncio.run(run())


@settings(max_examples=200, deadline=None)
@given(st.lists(_NEWS, min_size=8, max_size=30))
def test_when_nothing_is_lost_no_removed_member_stays_once_all_is_delivered(steps: list[tuple[Any, ...]]) -> None:
    """No beat is needed, nor an answer, unless something came in another order."""
    async def run() -> None:
        story = Run()
        await story.greet()
        for step in steps:
            await story.step(*step)
        story.wire += story.control.news()
        while story.wire:
            story.deliver(0, False)
        lacking, known, truth = set().union(*story.host.outdated()), story.known(), story.control.truth()
        assert all(known[id] == truth[id] for id in (*GROUPS, NET) if id not in lacking)
        story.ask()
        for _ in range(3):
            await story.answered()
        assert story.known() == truth and not any(story.host.outdated())
        story.control.engine.dispose()
        story.control.backup.close()

    asyncio.run(run())
