"""Neighbours of routers, and who joins networks, kept by differences; next hops outside; what is told of it."""

import re
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.base.shell import CommandFailed
from nacre.network.contract import NetworkPorts, PlacedPort
from nacre.node.ovs.flows import CLASSIFY, Flow
from nacre.node.ovs.groups.elsewhere import ElsewhereFlows, Here
from nacre.node.ovs.groups.members import Places
from nacre.node.routing.hops import AGAIN, AT_ONCE, DOUBT, MISSES, MOST, TIMES, Hops, arp_request, heard
from nacre.node.routing.near import Joined, Joint, Near, NearFlows, near_flows
from nacre.node.routing.pipeline import network_word
from nacre.node.routing.plan import Out

HOSTS = ("me", "h1", "h2", "")
HERE = Here(host="me", vxlan=2, networks={"a": (1, 71), "b": (2, 72)},
            tunnels={"me": "172.31.0.1", "h1": "172.31.0.2", "h2": "172.31.0.3", "g": "172.31.0.4"})
placed = st.builds(PlacedPort, mac=st.sampled_from(("fa:16:3e:00:00:01", "fa:16:3e:00:00:02", "nonsense")),
                   addresses=st.lists(st.sampled_from(("10.0.0.5", "10.0.0.6", "2001:db8::5", "nonsense")),
                                      unique=True, max_size=2).map(tuple),
                   host=st.sampled_from(HOSTS), prepared=st.sampled_from(((), ("h2",))))
nears = st.builds(Near, number=st.just(1), inside=st.booleans(), wire=st.booleans(),
                  outside=st.sampled_from(("", "output:5")))
joints = st.frozensets(st.builds(Joint, mac=st.sampled_from(("m1", "m2")), networks=st.sampled_from((
    frozenset({"b"}), frozenset({"a", "b"}))), host=st.sampled_from(("", "g"))), max_size=2)
joined = st.builds(Joined, host=st.just("me"), near=st.dictionaries(st.sampled_from("ab"), nears, max_size=2),
                   joints=st.dictionaries(st.sampled_from("ab"), joints, max_size=2))
step = st.one_of(joined, st.tuples(st.sampled_from("ab"), st.sampled_from("pq"), placed), st.none())


def beside(places: Places, now: Joined, known: tuple[ElsewhereFlows, NearFlows], here: Here = HERE) -> list[str]:
    """As the bridge's table does it."""
    touched = frozenset(places.changed)
    known[0].lines(places, here)
    return known[1].lines(places, touched, now, (here, known[0].hosts))


def applied(table: dict[str, str], lines: list[str]) -> None:
    for line in lines:
        verb, _, rest = line.partition(" ")
        if verb == "delete_strict":
            del table[rest]
        else:
            match = re.fullmatch(r"cookie=\w+,(.*),actions=(.*)", rest)
            assert match
            table[match[1]] = match[2]


@settings(deadline=None, max_examples=150)
@given(st.lists(step, max_size=12))
def test_differences_come_to_what_all_at_once_would_be(steps: list[object]) -> None:
    """Each port has an address of its own, as the network service gives it."""
    places, now, n, table = Places(), Joined(), 1, dict[str, str]()
    places.apply([NetworkPorts(id=id, n=1, era="e") for id in "ab"])
    known = ElsewhereFlows(), NearFlows()
    for each in steps:
        if isinstance(each, Joined):
            now = each
        elif isinstance(each, tuple):
            network, port, place = each
            n += 1
            mine = tuple(f"10.{'ab'.index(network)}.{'pq'.index(port)}.{address[-1]}" if "10." in address else address
                         for address in place.addresses)
            place = PlacedPort(mac=place.mac, addresses=mine, host=place.host, prepared=place.prepared)
            places.apply_news([NetworkPorts(id=network, n=n, era="e", since=n - 1, ports={port: place})])
            for other in "ab":
                places.apply_news([NetworkPorts(id=other, n=n, era="e", since=1)])
        applied(table, beside(places, now, known))
        fresh = ElsewhereFlows(), NearFlows()
        again = dict[str, str]()
        copy = Places()
        copy.apply([NetworkPorts(id=id, n=n, era="e", ports=dict(places.of(id))) for id in "ab"])
        applied(again, beside(copy, now, fresh))
        assert table == again == {flow.key: flow.actions for flow in known[1].all()} and len(known[1]) == len(table)


def test_from_hosts_that_are_merely_joined_only_routed_frames_are_taken() -> None:
    places, flows = Places(), (ElsewhereFlows(), NearFlows())
    places.apply([NetworkPorts(id="a", n=1, era="e", ports={"p": PlacedPort(mac="fa:16:3e:00:00:01", host="me"),
                                                           "q": PlacedPort(mac="fa:16:3e:00:00:02", host="h1")}),
                  NetworkPorts(id="b", n=1, era="e", ports={"r": PlacedPort(mac="fa:16:3e:00:00:03", host="h1"),
                                                           "s": PlacedPort(mac="fa:16:3e:00:00:04", host="h2")})])
    now = Joined(host="me", near={"a": Near(number=1, inside=True)}, joints={
        "a": frozenset({Joint("fa:16:3e:aa:00:01", frozenset({"b"}), "g")})})
    beside(places, now, flows)
    taken = {match[1]: flow.match for flow in flows[1].all() if flow.table == CLASSIFY
             and (match := re.search(r"tun_src=([\d.]+)", flow.match))}
    assert taken.keys() == {HERE.tunnels["h2"], HERE.tunnels["g"]}, "h1 has a port of the network: all of it is taken"
    assert all(match.startswith("ip,") and ",dl_src=fa:16:3e:aa:00:01,dl_dst=00:" in match for match in taken.values())
    assert beside(places, now, flows) == [], "nothing changed"


def test_a_neighbour_on_a_wire_is_one_flow_whatever_routers_there_are() -> None:
    near = Near(number=1, inside=True, wire=True)
    here, there = (PlacedPort(mac="fa:16:3e:00:00:01", addresses=("10.0.0.5",), host=host) for host in ("me", "h1"))
    assert [flow.actions for flow in near_flows(near, here, "me")] == ["mod_dl_dst:fa:16:3e:00:00:01,resubmit(,30)"]
    assert list(near_flows(near, there, "me")) == [Flow(
        71, 100, "reg6=1,reg2=0xa000005", "mod_dl_dst:fa:16:3e:00:00:01,resubmit(,77)")]


class Wire:
    """Stands for the bridge: who is outside, and what was sent. broken: networks' actions that fail."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], str] = {}
        self.sent: list[tuple[str, str]] = []
        self.broken: set[str] = set()
        self.runs = 0

    async def run(self, verb: str, *args: str) -> bytes:
        self.runs += 1
        if verb == "packet-out":
            _, send, *frames = args
            if send in self.broken:
                raise CommandFailed("no such port")
            self.sent += [(send, frame) for frame in frames]
            return b""
        return "".join(
            f" cookie=0x68656172, duration=1s, table=76, hard_timeout=8, priority=1,reg1={network_word(network):#x},"
            f"reg2={int.from_bytes(bytes(map(int, hop.split('.')))):#x} actions=load:0x{mac.replace(':', '')}"
            "->NXM_OF_ETH_DST[]\n" for (network, hop), mac in self.answers.items()).encode()


def out(send: str = "output:4", hops: tuple[str, ...] = ("203.0.113.1",), **addresses: str) -> Out:
    return Out(send=send, asks=dict.fromkeys(hops, ("203.0.113.10", "fa:16:3e:ee:00:10")),
               addresses=addresses or {"203.0.113.10": "fa:16:3e:ee:00:10"})


def asked(wire: Wire, hop: str = "203.0.113.1") -> int:
    return wire.sent.count(("output:4", arp_request("fa:16:3e:ee:00:10", "203.0.113.10", hop)))


async def test_a_next_hop_counts_while_it_answers_and_only_on_its_own_network() -> None:
    wire = Wire()
    hops = Hops(wire)
    hops.follow({"n1": out(), "n2": out("output:5")})
    assert not await hops.look(0.0) and hops.known() == {}
    wire.answers = {("n1", "203.0.113.1"): "00:00:5e:00:01:01", ("n1", "203.0.113.2"): "00:00:5e:00:01:02",
                    ("n3", "203.0.113.1"): "00:00:5e:00:01:03"}  # of all these one was asked
    assert await hops.look(0.5) and hops.known() == {"n1": {"203.0.113.1": "00:00:5e:00:01:01"}}
    assert not await hops.look(0.7) and asked(wire) == 1
    assert not await hops.look(AGAIN) and asked(wire) == 2
    assert not await hops.look(AGAIN + 1)  # confirmed
    wire.answers = {}
    now, changes = 2 * AGAIN, []
    for _ in range(MISSES + 1):
        changes.append(await hops.look(now))
        now += DOUBT + 0.1
    assert changes == [False] * MISSES + [True] and hops.known() == {}
    wire.answers = {("n1", "203.0.113.1"): "00:00:5e:00:01:09"}  # another machine has the address now
    assert await hops.look(now) and hops.known() == {"n1": {"203.0.113.1": "00:00:5e:00:01:09"}}
    hops.follow({"n2": out("output:5")})
    assert hops.known() == {}


async def test_what_cannot_be_sent_on_one_network_is_not_the_others_loss() -> None:
    wire = Wire()
    wire.broken = {"output:5"}
    hops = Hops(wire)
    many = {f"203.0.113.{number}": f"fa:16:3e:ee:00:{number:02x}" for number in range(20, 230)}
    hops.follow({"n2": out("output:5"), "n1": out(**many)})
    for now in range(0, 60, 1):
        await hops.look(float(now))
    told = [frame for _, frame in wire.sent if frame != arp_request("fa:16:3e:ee:00:10", "203.0.113.10", "203.0.113.1")]
    assert sorted(told) == sorted(arp_request(mac, address, address) for address, mac in many.items()
                                  for _ in range(TIMES))
    assert asked(wire) < 10, "who never answers is asked less and less"
    before = wire.runs
    hops.follow({"n1": out(hops=(), **many)})
    for now in range(60, 70):
        await hops.look(float(now))
    assert wire.runs == before, "nothing is due"


async def test_who_never_answers_costs_a_few_programs_a_minute_and_is_heard_once_he_does() -> None:
    wire = Wire()
    hops = Hops(wire)
    hops.follow({"n1": out(hops=tuple(f"203.0.113.{n}" for n in range(1, 100)))})
    for now in range(0, 480):
        await hops.look(now / 4)
    before = wire.runs
    for now in range(480, 960):
        await hops.look(now / 4)
    assert wire.runs - before <= 4 * 3, "four questions in two minutes, and two looks for each one's answers"
    wire.answers = {("n1", "203.0.113.7"): "00:00:5e:00:01:01"}
    assert any([await hops.look(now / 4) for now in range(960, 960 + 4 * int(AGAIN + 1))])
    assert hops.known() == {"n1": {"203.0.113.7": "00:00:5e:00:01:01"}}


async def test_very_many_are_sent_bit_by_bit() -> None:
    wire = Wire()
    hops = Hops(wire)
    hops.follow({"n1": out(hops=(), **{f"10.{n // 250}.{n % 250}.1": f"fa:16:3e:00:{n // 250:02x}:{n % 250:02x}"
                                       for n in range(1200)})})
    await hops.look(0.0)
    assert len(wire.sent) == MOST and wire.runs == MOST // AT_ONCE
    await hops.look(0.1)
    await hops.look(0.2)
    assert len(set(wire.sent)) == 1200


def test_an_answer_with_a_mac_that_nobody_has_is_none() -> None:
    def line(mac: str) -> Mapping[tuple[int, str], str]:
        return heard(f" table=76, reg1=0x5,reg2=0xcb007101 actions=load:0x{mac}->NXM_OF_ETH_DST[]")
    assert line("fa163eff0001") == {(5, "203.0.113.1"): "fa:16:3e:ff:00:01"}
    assert line("5e000101") == {(5, "203.0.113.1"): "00:00:5e:00:01:01"}
    assert not line("0") and not line("ffffffffffff") and not line("01005e000001")
