"""One host's report can hold up nothing: what no code could reckon with is refused where it is read, and a row of a
host that cannot be read counts as unheard."""

import ast
import asyncio
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

import nacre
from nacre.base.errors import BadRequest, NoValidHost, Unavailable
from nacre.base.rpc.codec import MOST_SAID, Answer, Failure, decode_answer, encode, error_from, verbs
from nacre.base.rpc.link import DEFAULTS
from nacre.cloud.control import CONDUCTOR_ALLOW, IMAGE_ALLOW, NETWORK_ALLOW
from nacre.conductor.contract import Beat, Conductor, NodeHello, WorkState
from nacre.image.contract import Images
from nacre.network.contract import (
    MOST_ERAS,
    MOST_GROUPS,
    AgentReport,
    Differences,
    GroupMembers,
    Network,
    NetworkPorts,
    PlacedPort,
)
from nacre.network.hosts.notifications import MOST_IN_ONE, News
from nacre.node.contract import MOST_CONSOLE, Guest, Node, Orphan, Step, Work
from nacre.scheduler.contract import DiskReport, Held, HostReport, TooEarly
from nacre.scheduler.hosts import SPARE
from nacre.scheduler.tables import compute_hosts
from tests.cloud.test_host_reports import Lab
from tests.pure.scheduler_lab import ask, report

AGENT = AgentReport(host="evil", tunnel_ip=None, bridge_mappings={}, tunnel_types=())
#: What the stubs of those contracts are called in the host's code.
OWNERS: dict[Any, set[str]] = {Network: {"network"}, Conductor: {"conductor"}, Images: {"images", "source", "image"}}
HELD = Held(allocation="a", server_id="s", epoch=1)


def sent(given: HostReport) -> Beat:
    """As a control process reads it."""
    data = msgspec.Raw(msgspec.msgpack.encode({"beat": Beat(report=given, agent=AGENT)}))
    got: Beat = verbs(Conductor)["beat"].unpack(data)["beat"]
    return got


@pytest.mark.parametrize("more", [
    {"ram_ratio": math.nan}, {"cpu_ratio": math.inf}, {"disk_ratio": -1.0}, {"disk_gb_used": math.inf},
    {"disk_gb_used": math.nan}, {"memory_mb": 2**64 - 1}, {"memory_mb_used": -2**62}, {"vcpus": 2**60},
    {"hypervisor_type": "Q" * 1000}, {"host_ip": "1.2.3.4\x00"}, {"queue_name": "kvm\n"}, {"architecture": "\x1b[2J"},
    {"cpu_info": "x" * 70_000}, {"cpu_info": '{"a":' * 5000 + "1" + "}" * 5000}, {"cpu_info": "no JSON"},
    {"disks": (DiskReport(path="/a", total_mb=-1, used_mb=0),)}, {"disks": (DiskReport(
        path="/a", total_mb=1, used_mb=0),) * 101},
    {"held": (msgspec.structs.replace(HELD, epoch=2**31 - 1),)}, {"held": (HELD,) * 10_001},
    {"held": (msgspec.structs.replace(HELD, server_id="s" * 37),)}, {"n": -1}])
def test_what_is_beyond_all_bounds_is_left_out_where_it_is_read_and_the_rest_is_heard(more: dict[str, Any]) -> None:
    good, (name,) = report("evil"), more
    assert sent(good) == Beat(report=good, agent=AGENT)
    found = said(more)
    assert set(found.wrong) == {f"report.{name}"}
    left = {each: getattr(found.report, each) for each in good.__struct_fields__ if each != name}
    assert left == {each: getattr(good, each) for each in left}
    assert sent(found.report).report == found.report  # which is within them


def said(more: dict[str, Any], **beside: Any) -> Beat:
    """A beat as a control process reads it, with this in its report, or beside."""
    plain = msgspec.to_builtins(report("evil")) | {k: msgspec.to_builtins(v) for k, v in more.items()}
    data = msgspec.Raw(msgspec.msgpack.encode({"beat": {"report": plain, "agent": AGENT, **beside}}))
    found: Beat = verbs(Conductor)["beat"].unpack(data)["beat"]
    return found


def test_a_row_that_cannot_be_is_left_out_alone() -> None:
    broken = msgspec.to_builtins(msgspec.structs.replace(HELD, allocation="b", power="p" * 17))
    found = said({"held": [broken, HELD, 3]}, works=[{"verb": "spawn"}], agent={"host": "evil", "tunnel_ip": 5},
                 members=[], wrong={"nothing": "is"})
    assert found.report.held == (HELD,) and found.works == () and found.members == {}
    assert set(found.wrong) >= {"report.held", "works", "members", "agent.tunnel_ip", "agent.bridge_mappings"}
    assert "nothing" not in found.wrong


@pytest.mark.parametrize("data", [
    b"\x81", b"\xff" * 10, msgspec.msgpack.encode({}), msgspec.msgpack.encode({"beat": 1}),
    msgspec.msgpack.encode({"beat": {}}), b"\x91" * 100_000 + b"\x01"])
def test_what_is_no_beat_at_all_is_refused_or_nobodys(data: bytes) -> None:
    try:
        found = verbs(Conductor)["beat"].unpack(msgspec.Raw(data))["beat"]
    except BadRequest:
        return
    assert found.host == ""  # and so not for its sender to say


def test_a_hello_is_bounded_too() -> None:
    hello = msgspec.to_builtins(NodeHello(endpoint="", public_key="", journal="j", cloud="", position=0,
                                          beat=Beat(report=report("evil"), agent=AGENT)))
    for more in ({"version": "9" * 33}, {"endpoint": "tcp://" + "1" * 300}, {"position": -1}, {"journal": "j" * 65}):
        with pytest.raises(BadRequest, match=next(iter(more))):
            verbs(Conductor)["hello"].unpack(msgspec.Raw(msgspec.msgpack.encode({"hello": hello | more})))
    spoilt = hello | {"beat": hello["beat"] | {"works": [1]}}
    found = verbs(Conductor)["hello"].unpack(msgspec.Raw(msgspec.msgpack.encode({"hello": spoilt})))["hello"]
    assert found == msgspec.structs.replace(found, journal="j", beat=Beat(
        report=report("evil"), agent=AGENT, wrong=found.beat.wrong)) and set(found.beat.wrong) == {"works"}


async def test_a_row_that_cannot_be_read_holds_up_no_start_and_no_news_of_others() -> None:
    lab = Lab()
    await lab.start()
    for name in ("evil", "good"):
        await lab.manager.report(report(name))
    await lab.registry.records.flush(lab.registry.states)
    spoilt = msgspec.to_builtins(report("evil")) | {"disk_gb_used": None}
    await lab.db.run(lambda c: c.execute(sa.update(compute_hosts).where(
        compute_hosts.c.host == "evil").values(report=spoilt)))

    again = Lab(lab.db, lab.clock)
    await again.start()
    await again.manager.report(report("good", 8192))
    assert [p.host for p in await again.manager.select(ask())] == ["good"]
    with pytest.raises(TooEarly):  # it is known, as one that has not reported
        await again.manager.select(ask(host="evil"))
    await lab.registry.set_service("evil", disabled=True)
    await lab.registry.set_service("good", disabled=True)
    await again.changes.look()
    assert again.registry.states["good"].disabled and again.registry.states["evil"].disabled
    await again.manager.report(report("evil", 4096))
    assert again.free("evil") == 4096


async def test_a_host_that_cannot_be_counted_keeps_no_other_from_it() -> None:
    lab = Lab()
    await lab.start()
    for name in ("a", "evil", "z"):
        await lab.manager.report(report(name, 4096))
    broken = msgspec.structs.replace(report("evil"), memory_mb="much")
    lab.registry.states["evil"] = msgspec.structs.replace(lab.registry.states["evil"], report=broken)
    for name in ("a", "z"):  # as a report that was not counted yet
        lab.registry.states[name] = msgspec.structs.replace(lab.registry.states[name], report=report(name, 8192))
    await lab.manager.build_queue()
    assert (lab.free("a"), lab.free("z")) == (8192, 8192)


async def test_numbers_that_are_none_keep_no_host_from_being_chosen() -> None:
    lab = Lab()
    await lab.start()
    for name in ("a", "evil", "z"):
        await lab.manager.report(report(name, 4096))
    for n in range(5):
        await lab.manager.report(msgspec.structs.replace(report("evil", 4096), ram_ratio=math.nan, n=n + 1))
        await lab.manager.report(msgspec.structs.replace(report("a", 4096 + n), n=n + 1))
    async with asyncio.timeout(5):
        assert (await lab.manager.select(ask()))[0].host == "a"


async def test_kinds_and_queues_that_no_host_has_any_more_are_forgotten() -> None:
    lab = Lab()
    await lab.start()
    await lab.manager.report(report("good", 4096))
    for n in range(1, 200):
        await lab.manager.report(msgspec.structs.replace(
            report("evil", 4096), n=n, cpu_info=f'{{"model": "m{n}"}}', queue_name=f"q{n}"))
        if n % 50 == 0:
            await lab.manager.build_queue()
            assert (await lab.manager.select(ask()))[0].host == "good"
    await lab.manager.build_queue()
    assert len(lab.manager._kinds._known) == 2 and len(lab.chooser._queues) == 2
    assert sum(len(queue.seen) for queue in lab.chooser._queues.values()) == 2
    assert max(kind.number for kind in lab.manager._kinds._known.values()) <= 51


async def test_a_host_that_is_another_kind_in_each_report_fills_no_memory() -> None:
    lab = Lab()
    await lab.start()
    await lab.manager.report(report("good", 4096))
    for n in range(1, 500):
        await lab.manager.report(msgspec.structs.replace(
            report("evil", 4096), n=n, cpu_info=f'{{"model": "m{n}"}}', queue_name=f"q{n}"))
        assert len(lab.manager._kinds._known) <= 2 * 2 + SPARE + 1 and len(lab.chooser._queues) <= 2
        assert sum(len(queue.seen) for queue in lab.chooser._queues.values()) <= 2 * 2 + SPARE + 1
    assert (await lab.manager.select(ask()))[0].host == "good"
    assert (await lab.manager.select(ask(queue_name="q499")))[0].host == "evil"
    with pytest.raises(NoValidHost):
        await lab.manager.select(ask(queue_name="q498"))
    assert all(len(str(key)) < 300 for key in lab.manager._kinds._known)


LONG = "x" * 256
MANY_ERAS = {f"e{n}": {"g": 1} for n in range(MOST_ERAS + 1)}
MANY_GROUPS = {"e": {f"g{n}": 1 for n in range(MOST_GROUPS + 1)}}
FEW: tuple[tuple[type, str, dict[str, Any]], ...] = (
    (Network, "wired", {"host": "evil", "port_ids": ["p"] * 1001, "up": True}),
    (Network, "wired", {"host": "evil", "port_ids": ["p" * 37], "up": True}),
    (Network, "wiring", {"host": "evil", "port_ids": ["p"] * 1001}), (Network, "wiring", {"host": LONG}),
    (Network, "wiring", {"host": "evil", "have": MANY_ERAS}),
    (Network, "wiring", {"host": "evil", "have": MANY_GROUPS}),
    (Network, "members", {"host": "evil", "groups": ["g"] * (MOST_GROUPS + 1), "have": {}}),
    (Network, "members", {"host": "evil", "groups": ["g" * 37], "have": {}}),
    (Network, "members", {"host": LONG, "groups": [], "have": {}}),
    (Network, "members", {"host": "evil", "groups": [], "have": MANY_ERAS}),
    (Network, "members", {"host": "evil", "groups": [], "have": MANY_GROUPS}),
    (Network, "members", {"host": "evil", "groups": [], "have": {"e" * 65: {}}}),
    (Network, "members", {"host": "evil", "groups": [], "have": {"e": {"g" * 37: 1}}}),
    (Network, "members", {"host": "evil", "groups": [], "have": {"e": {"g": -1}}}),
    (Network, "wiring", {"host": "evil", "known": {"groups": MANY_ERAS}}),
    (Network, "wiring", {"host": "evil", "known": {"networks": MANY_GROUPS}}),
    *((Network, "differences", {"host": "evil", "groups": [], "networks": [], "known": {}} | more) for more in (
        {"groups": ["g"] * (MOST_GROUPS + 1)}, {"networks": ["n"] * (MOST_GROUPS + 1)}, {"networks": ["n" * 37]},
        {"host": LONG}, {"known": {"networks": MANY_ERAS}}, {"known": {"networks": {"e": {"n": -1}}}})),
    (Conductor, "guest_facts", {"host": LONG, "server_id": "s"}),
    (Conductor, "guest_facts", {"host": "evil", "server_id": "s" * 37}),
    (Images, "read", {"image_id": "i" * 37, "offset": 0, "length": 1}),
    (Images, "read", {"image_id": "i", "offset": -1, "length": 1}))


@pytest.mark.parametrize(("contract", "name", "args"), FEW)
def test_every_list_and_text_that_a_host_sends_is_bounded(contract: type, name: str, args: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=f"{name}: Expected"):
        verbs(contract)[name].unpack(msgspec.Raw(msgspec.msgpack.encode(args)))


@pytest.mark.parametrize("more", [
    {"tunnel_types": ["vxlan"] * 33}, {"agents": ["DHCP agent"] * 33}, {"takes": ["differences"] * 33},
    {"takes": [LONG]}, {"tunnel_types": [LONG]}, {"tunnel_ip": LONG},
    {"bridge_mappings": {str(n): "b" for n in range(1001)}}, {"bridge_mappings": {LONG: "b"}}, {"bridge": LONG},
    {"bridge_mappings": {"p": LONG}}, {"datapath_type": LONG}, {"host": LONG}])
def test_what_an_agent_says_is_bounded_where_it_is_read(more: dict[str, Any]) -> None:
    assert set(said({}, agent=msgspec.to_builtins(AGENT) | more).wrong) == {f"agent.{next(iter(more))}"}


@pytest.mark.parametrize("more", [MANY_GROUPS["e"], {"g" * 37: 1}, {"g": -1}, {"g": 1 << 54}])
@pytest.mark.parametrize("name", ["members", "placed"])
def test_the_numbers_of_differences_in_a_beat_are_bounded(name: str, more: dict[str, int]) -> None:
    found = said({}, **{name: more})
    assert (set(found.wrong), getattr(found, name)) == ({name}, {})


def test_news_of_members_are_no_longer_than_a_host_takes() -> None:
    """Of what is too much only the number goes: the host asks."""
    large = GroupMembers(id="large", n=9, era="e", since=3, ports={
        f"{n:036d}": ("2001:db8:1111:2222:3333:4444:5555:6666/128",) for n in range(MOST_IN_ONE)})
    small = msgspec.structs.replace(large, id="small", ports={"p": ("10.0.0.1/32",)})
    told = News("h", {"large": large, "small": small}, {}, {}).message()
    assert told == Differences(members=(msgspec.structs.replace(large, since=9, ports={}), small))
    port = PlacedPort(mac="fa:16:3e:00:00:01", addresses=("10.0.0.1",) * 9, host="h")
    ports = NetworkPorts(id="n", n=9, era="e", since=8, ports={f"{n:036d}": port for n in range(MOST_IN_ONE // 10)})
    more = msgspec.structs.replace(ports, ports={**ports.ports, "p": port})
    assert News("h", {}, {"n": ports}, {}).message().placed == (ports,)
    told = News("h", {"small": small}, {"n": more}, {}).message()
    assert told == Differences(members=(small,), placed=(msgspec.structs.replace(more, since=9, ports={}),))
    most = msgspec.structs.replace(large, ports=dict(list(large.ports.items())[:MOST_IN_ONE // 2]))
    many = {f"{n:036d}": msgspec.structs.replace(most if n == 0 else small, id=f"{n:036d}", ports=(
        most.ports if n == 0 else {})) for n in range(2 * MOST_GROUPS)}
    said = verbs(Node)["differ"].pack(News("h", many, {}, {}).message())
    assert len(verbs(Node)["differ"].unpack(msgspec.Raw(said))["news"].members) == MOST_GROUPS
    assert len(verbs(Node)["differ"].pack(Differences(members=(most,)))) + len(said) < DEFAULTS.request / 2


STEP = Step(name="s", started=1.0, finished=2.0)
GUEST = Guest(server_id="s", power="running", steps=(STEP,))


@pytest.mark.parametrize(("name", "answer"), [
    ("spawn", Work(done=True, guest=msgspec.structs.replace(GUEST, steps=(STEP,) * 101))),
    ("spawn", Work(done=True, guest=msgspec.structs.replace(GUEST, power="p" * 17))),
    ("spawn", Work(done=True, guest=msgspec.structs.replace(GUEST, steps=(msgspec.structs.replace(
        STEP, name="s" * 65),)))), ("spawn", Work(done=True, guest=msgspec.structs.replace(GUEST, steps=(
            msgspec.structs.replace(STEP, started=math.inf),)))),
    ("prepare", Work(done=False, step="s" * 65)), ("end", Work(done=False, moved=-1)),
    ("console", "x" * (MOST_CONSOLE + 1)), ("describe", (Orphan(
        allocation="a", server_id="s", power="running", order=None),) * 10_001)])
def test_what_a_host_answers_is_bounded(name: str, answer: Any) -> None:
    good = msgspec.msgpack.encode(Work(done=True, guest=GUEST))
    assert verbs(Node)["spawn"].result(msgspec.Raw(good)).guest == GUEST
    with pytest.raises(Unavailable) as refused:
        verbs(Node)[name].result(msgspec.Raw(msgspec.msgpack.encode(answer)))
    assert "breaks the contract" in refused.value.details


def test_what_a_host_says_of_a_failure_is_cut() -> None:
    said = encode(Answer(b"x" * 16, Failure(("BuildFailed", "NacreError"), "y" * 1_000_000, "BuildFailed",
                                            details="z" * 1_000_000)))
    answer = decode_answer(said)
    assert answer.error is not None
    error = error_from(answer.error)
    assert len(error.message) == len(error.details) == MOST_SAID


def test_the_largest_word_of_a_host_is_well_below_what_is_taken() -> None:
    """With as much of everything as a report may have: some 3.7 MiB, of which the guests are two thirds."""
    full = msgspec.structs.replace(report("h" * 64), cpu_info='{"model": "' + "m" * 65_000 + '"}', held=tuple(
        Held(allocation="a" * 36, server_id="s" * 36, epoch=1 << 30, power="running", since=1 << 53)
        for _ in range(10_000)), disks=tuple(
            DiskReport(path="/d" * 50, total_mb=1 << 40, used_mb=1 << 40) for _ in range(100)))
    works = tuple(WorkState(server_id="s" * 36, verb="prepare", step="s" * 60, moved=1 << 40, total=1 << 40)
                  for _ in range(10_000))
    beat = Beat(report=full, agent=AGENT, works=works, **{
        name: {f"{n:036d}": 1 << 53 for n in range(MOST_GROUPS)} for name in ("members", "placed")})
    hello = NodeHello(endpoint="", public_key="", journal="j", cloud="", position=0, beat=beat)
    for name, said in (("beat", beat), ("hello", hello)):
        args = verbs(Conductor)[name].pack(said)
        assert verbs(Conductor)[name].unpack(msgspec.Raw(args))[name] == said
        assert len(args) < DEFAULTS.request * 0.9, len(args)


@pytest.mark.parametrize(("contract", "allowed"), [(Network, NETWORK_ALLOW), (Conductor, CONDUCTOR_ALLOW),
                                                   (Images, IMAGE_ALLOW)])
def test_every_verb_that_a_hosts_code_calls_is_one_that_hosts_may_call(
        contract: Any, allowed: dict[str, tuple[str, ...]]) -> None:
    """By the names of the calls in it. One that is not would be refused on every host, and nowhere in a process."""
    root = Path(nacre.__file__).parent / "node"
    named = {word for file in root.rglob("*.py") for node in ast.walk(ast.parse(file.read_text()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and (owner := node.func.value)
             for word in [node.func.attr] if (isinstance(owner, ast.Name | ast.Attribute) and (
                 owner.id if isinstance(owner, ast.Name) else owner.attr).strip("_") in OWNERS[contract])}
    called = named & verbs(contract).keys()
    assert called and called <= {verb for verb, roles in allowed.items() if "node" in roles}
    if contract is Network:
        assert {"wiring", "differences", "wired", "routing", "routed"} <= called
