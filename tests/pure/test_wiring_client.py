"""What is fetched because of what a beat's answer says: nothing that may still be under way, all that never came."""

from typing import Any

import msgspec
import pytest

from nacre.base.clock import VirtualClock
from nacre.base.errors import NotFound, Unavailable
from nacre.network.contract import (
    MOST_ERAS,
    MOST_GROUPS,
    MOST_PORTS,
    Differences,
    GroupFacts,
    GroupMembers,
    Have,
    HostWiring,
    NetworkFacts,
    NetworkPorts,
    Peer,
    PlacedPort,
    PortFacts,
    RouterFacts,
    Routing,
    RuleFacts,
    Versions,
)
from nacre.node.ovs.client import PATIENCE, ControlAway, WiringClient
from nacre.node.ovs.contract import Standing

MAC = "fa:16:3e:00:00:99"
PORT = PortFacts(id="p", name="", project_id="p", network_id="n", network_name="n", device_id="d",
                 mac_address="fa:16:3e:00:00:01", fixed_ips=(), security_groups=("g",))
GROUP = GroupFacts(id="g", stateful=True, rules=(RuleFacts(direction="ingress", ethertype="IPv4", remote_group="g"),))


class Network:
    """Answers, and counts what it is asked."""

    def __init__(self) -> None:
        self.wirings, self.asked, self.n, self.away = list[tuple[str, ...]](), list[tuple[str, ...]](), 5, False
        self.have: list[Versions] = []
        self.era, self.ports = "e", (PORT,)
        self.peers = {"h1": "192.0.2.1"}
        self.groups: tuple[GroupFacts, ...] = (GROUP,)
        self.routings = 0
        self.routed: Routing | None = Routing()  # None: the question fails

    def _news(self, have: Versions) -> GroupMembers:
        known = have.get("e", {}).get("g")
        return GroupMembers(id="g", n=self.n, era="e", since=known, ports={f"p{self.n}": (f"10.0.0.{self.n}/32",)})

    def _placed(self, have: Versions) -> NetworkPorts:
        known = have.get("e", {}).get("n")
        return NetworkPorts(id="n", n=self.n, era="e", since=known, ports={
            f"p{self.n}": PlacedPort(mac=MAC, host="h1", addresses=(f"10.0.0.{self.n}",))})

    async def wiring(self, host: str, port_ids: tuple[str, ...] = (), have: Versions | None = None,
                     known: Have | None = None) -> HostWiring:
        self.wirings.append(port_ids)
        if self.away:
            raise Unavailable("away")
        assert known is not None
        self.have.append(known.groups)
        return HostWiring(whole=not port_ids, n=self.n, era=self.era, ports=self.ports, groups=self.groups, peers={
            name: Peer(tunnel_ip=ip, n=self.n, era=self.era) for name, ip in self.peers.items()},
            members=(self._news(known.groups),), placed=(self._placed(known.networks),))

    async def routing(self, host: str) -> Routing:
        self.routings += 1
        if self.away:
            raise Unavailable("away")
        if self.routed is None:
            raise ValueError("it went wrong there")
        return self.routed

    async def differences(self, host: str, groups: tuple[str, ...], networks: tuple[str, ...],
                          known: Have) -> Differences:
        self.asked.append(groups)
        if self.away:
            raise Unavailable("away")
        self.have.append(known.groups)
        return Differences(
            members=tuple(msgspec.structs.replace(self._news(known.groups), id=group) for group in groups),
            placed=tuple(msgspec.structs.replace(self._placed(known.networks), id=each) for each in networks))


def standing(**more: Any) -> Standing:
    return Standing(**{"trusted": True, "era": "e"} | more)


Made = tuple[WiringClient, Network, VirtualClock]


@pytest.fixture
async def made() -> Made:
    network, clock = Network(), VirtualClock()
    client = WiringClient("h", network, clock)  # type: ignore[arg-type]
    assert client.follow(standing())
    await client.ask()
    assert network.wirings == [()] and client.versions() == ({"g": 5}, {"n": 5}, 0)
    return client, network, clock


async def test_a_change_that_is_under_way_is_waited_for(made: Made) -> None:
    client, network, clock = made
    assert not client.follow(standing(n=7)) and not client.overdue()
    client.changed(("p",), 7, 5)
    await clock.advance(2 * PATIENCE)
    assert not client.overdue()
    await client.ask()
    assert network.wirings == [(), ("p",)]


async def test_a_change_that_never_comes_is_fetched_with_everything(
        made: Made) -> None:
    client, network, clock = made
    for n in (7, 8):
        assert not client.follow(standing(n=n))
        await clock.advance(0.6 * PATIENCE)
    assert client.overdue() and not client.overdue()
    await client.ask()
    assert network.wirings == [(), ()]


async def test_members_that_were_spoken_of_are_asked_for_once(made: Made) -> None:
    client, network, _ = made
    client.follow(standing(members={"g": 9, "not named": 50}))
    assert client.outdated()[0] == {"g"}
    network.away = True
    with pytest.raises(ControlAway):
        await client.ask_differences()
    assert client.outdated()[0] == {"g"}
    network.n, network.away = 9, False
    await client.ask_differences()
    await client.ask_differences()
    assert network.asked == [("g",), ("g",)] and network.have[-1] == {"e": {"g": 5}}
    assert client.members.cidrs("g") == {"10.0.0.5/32", "10.0.0.9/32"}
    # Another history of the database: what is here is held against it.
    client.follow(standing(era="f"))
    assert client.outdated()[0] == {"g"}


async def test_another_history_of_the_database_is_a_reason_to_ask_for_everything(
        made: Made) -> None:
    """Its numbers are others: one that is here already there may be missing here."""
    client, network, clock = made
    client.changed(("p",), 900, 5)  # of the history that is lost
    await client.ask()
    assert not client.follow(standing(n=905))
    network.n, network.era, network.ports = 3, "f", ()
    assert client.follow(standing(era="f", n=2))
    await client.ask()
    assert client.desired.ports == {} and network.wirings[2:] == [()]
    await clock.advance(2 * PATIENCE)
    assert not client.overdue()
    client.changed(("p",), 6, 4)
    await client.ask()
    assert network.wirings[3:] == [()]  # 4 was missed
    for era in ("e", "f", "e"):  # a control process that has not looked for long
        assert not client.follow(standing(era=era))


async def test_a_control_process_that_says_an_older_era_last_keeps_nothing_here(made: Made) -> None:
    """It was frozen, and its host never heard of its era: the database goes on in the one that was said before."""
    client, network, _ = made
    network.era, client.whole = "e", True
    await client.ask()
    assert client.follow(standing(era="before e"))
    network.n, network.ports = 9, ()
    await client.ask()
    assert client.desired.ports == {}


@pytest.mark.parametrize(("n", "era"), [(9, "f"), (4, "e")], ids=["of an era that nobody said", "that is behind"])
@pytest.mark.parametrize("asked", [(), ("p",)], ids=["whole", "a port"])
async def test_an_answer_of_what_may_be_a_restored_database_takes_nothing_away_before_that_is_said(
        made: Made, n: int, era: str, asked: tuple[str, ...]) -> None:
    """It lacks guests that run here; which, is said with the era."""
    client, network, _ = made
    network.era, client.whole = "e", True
    await client.ask()
    other = msgspec.structs.replace(PORT, id="q")
    network.n, network.era, network.ports, network.peers = n, era, (other,), {}
    for port in asked:
        client.changed((port,), n, 5)
    client.whole = not asked
    await client.ask()
    assert client.desired.ports == {"p": PORT, "q": other} and client.peers.keys() == {"h1"}
    network.n, network.era = 9, "f"
    assert client.follow(standing(era="f", ports=(PORT,)))
    await client.ask()
    assert client.desired.ports == {"p": PORT, "q": other}
    assert client.follow(standing(era="f"))
    await client.ask()
    assert client.desired.ports == {"q": other} and client.peers == {}


@pytest.mark.parametrize("asked", [(), ("p",)], ids=["whole", "a port"])
async def test_an_answer_of_the_lost_history_that_was_under_way_keeps_nothing_here(
        made: Made, asked: tuple[str, ...]) -> None:
    """It was asked for before the new era was said, and its number is higher than the restored database's."""
    client, network, _ = made
    network.n, network.era, network.ports = 99, "e", (PORT, lost := msgspec.structs.replace(PORT, id="lost"))
    answer = network.wiring

    async def late(*args: Any, **named: Any) -> HostWiring:
        found = await answer(*args, **named)
        assert client.follow(standing(era="f", n=50))
        return found

    client.asked, client.whole = set(asked), not asked
    network.wiring = late  # type: ignore[method-assign,assignment]
    await client.ask()
    assert client.desired.ports == {"p": PORT, "lost": lost} and client.whole
    network.wiring = answer  # type: ignore[method-assign]
    network.n, network.era, network.ports = 50, "f", (PORT,)
    assert await client.ask()
    assert client.desired.ports == {"p": PORT}


async def test_nothing_is_taken_from_those_who_are_not_trusted(made: Made) -> None:
    client, _, _ = made
    client.follow(Standing(trusted=False))
    news = GroupMembers(id="g", n=6, era="e", since=5, ports={"p5": ()})
    client.differ(Differences(members=(news,)))
    assert client.members.cidrs("g") == {"10.0.0.5/32"} and not client.outdated()[0]
    client.follow(standing())
    client.differ(Differences(members=(news,)))
    assert client.members.cidrs("g") == set()


async def test_members_of_a_group_that_no_rule_names_any_more_go(made: Made) -> None:
    client, _, _ = made
    client.forget(["p"])
    await client.ask_differences()
    assert client.members.numbers() == {} and client.members.changed == {"10.0.0.5/32"}


@pytest.mark.parametrize(("n", "since", "era", "taken", "asked"), [
    (6, 5, "e", True, False), (9, 2, "e", True, False), (8, 7, "e", False, True), (4, 3, "e", False, False),
    (5, 4, "e", False, False), (9, 5, "f", False, True), (9, None, "e", False, True)],
    ids=["next", "overlapping", "gap", "older", "again", "other history", "no difference"])
async def test_news_count_only_where_they_join_on(
        made: Made, n: int, since: int | None, era: str, taken: bool,
        asked: bool) -> None:
    client, _, _ = made
    for _ in range(2):  # twice is as once
        client.differ(Differences(members=(GroupMembers(id="g", n=n, era=era, since=since, ports={"p5": ()}),)))
        assert client.members.cidrs("g") == (set() if taken else {"10.0.0.5/32"})
        assert client.members.numbers() == {"g": n if taken else 5}
        assert client.outdated()[0] == ({"g"} if asked else set())


async def test_what_nobody_answers_is_still_to_be_asked_for_and_what_is_here_counts_on(
        made: Made) -> None:
    client, network, _ = made
    for ask in ({"p", "q"}, set[str]()):
        client.asked |= ask
        client.whole, network.away = not ask, True
        with pytest.raises(ControlAway):
            await client.ask()
        assert client.asked == {"p", "q"} and client.whole is not bool(ask)
        assert client.desired.ports == {"p": PORT} and client.members.cidrs("g") == {"10.0.0.5/32"}
    network.away = False
    assert await client.ask()
    assert network.wirings[-2:] == [(), ("q",)] and not client.asked and not client.whole


async def test_an_answer_that_was_under_way_takes_no_later_doubt_away(
        made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of the history of before; of a group that it brought, too."""
    client, network, _ = made
    answer = network.wiring

    async def wiring(*args: Any, **named: Any) -> HostWiring:
        found = await answer(*args, **named)
        if args[1] == ("q",):  # the database turns out to have another history while the answer is under way
            client.follow(standing(era="f"))
            return msgspec.structs.replace(
                found, members=(*found.members, GroupMembers(id="new", n=7, era="e", ports={})), groups=(
                    msgspec.structs.replace(GROUP, rules=(*GROUP.rules, msgspec.structs.replace(
                        GROUP.rules[0], remote_group="new"))),))
        return found

    monkeypatch.setattr(network, "wiring", wiring)
    client.asked.add("q")
    await client.ask()
    assert network.asked[-1:] == [("g", "new")] and not client.outdated()[0]


async def test_an_answer_that_is_a_refusal_is_an_answer(made: Made) -> None:
    client, network, _ = made

    async def wiring(*_: Any, **named: Any) -> HostWiring:
        raise NotFound

    network.wiring = wiring  # type: ignore[method-assign]
    client.asked.add("q")
    with pytest.raises(NotFound):
        await client.ask()


async def test_what_is_left_of_a_page_that_failed_is_still_to_be_asked_for(made: Made) -> None:
    """And however many pages an answer has, they are asked for one after the other."""
    client, network, _ = made
    names = ("g", *(f"{n:05d}" for n in range(MOST_GROUPS - 1)))
    network.groups = (msgspec.structs.replace(GROUP, rules=tuple(
        RuleFacts(direction="ingress", ethertype="IPv4", remote_group=name) for name in names)),)
    whole, pages = network.differences, 3

    async def differences(host: str, groups: tuple[str, ...], networks: tuple[str, ...], known: Have) -> Differences:
        nonlocal pages
        if pages == 0:
            raise Unavailable("away")
        pages -= 1
        return msgspec.structs.replace(await whole(host, groups[:1], networks, known), rest=groups[1:])

    client.whole = True
    await client.ask()
    assert not client.outdated()[0]
    network.differences = differences  # type: ignore[method-assign]
    network.n = 9
    client.follow(standing(members=dict.fromkeys(names, 9)))
    assert client.outdated()[0] == set(names)
    with pytest.raises(ControlAway):
        await client.ask_differences()
    left = client.outdated()[0]
    assert len(left) == len(names) - 3 and "g" in left
    pages = len(left)
    await client.ask_differences()
    assert not client.outdated()[0] and not pages


async def test_more_than_may_be_asked_for_at_once_is_asked_for_in_parts(
        made: Made) -> None:
    client, network, _ = made
    names = [f"{n:05d}" for n in range(2 * MOST_GROUPS + 1)]
    network.groups = (msgspec.structs.replace(GROUP, rules=tuple(
        RuleFacts(direction="ingress", ethertype="IPv4", remote_group=name) for name in names)),)
    client.asked |= {f"q{n}" for n in range(MOST_PORTS + 1)}
    await client.ask()
    assert [len(ports) for ports in network.wirings[1:]] == [MOST_PORTS, 1]
    assert [len(groups) for groups in network.asked] == [MOST_GROUPS, MOST_GROUPS, 1]
    assert not client.outdated()[0] and client.members.cidrs(names[-1])
    beats = [client.members.numbers() for _ in range(3)]  # each names others, until all were named
    assert [len(beat) for beat in beats] == [MOST_GROUPS] * 3 and set().union(*beats) == set(names)
    assert [len(known) for known in client.members.versions().values()] == [MOST_GROUPS]
    client.members.apply(GroupMembers(id=name, n=9, era=name) for name in names[:2 * MOST_ERAS])
    assert len(client.members.versions()) == MOST_ERAS


def routed(n: int, era: str = "e", *routers: str) -> Routing:
    return Routing(n=n, era=era, routers=tuple(RouterFacts(id=router) for router in routers))


async def test_what_is_routed_is_asked_for_when_it_changed_and_an_older_answer_changes_nothing(made: Made) -> None:
    client, network, _ = made
    network.routed = routed(7, "e", "r")
    assert network.routings == 1  # with everything
    client.differ(Differences(routing=7))
    assert client.routing_outdated()
    network.away = True
    with pytest.raises(ControlAway):
        await client.ask()
    assert client.routing_outdated()  # still
    network.away = False
    await client.ask()
    assert client.routing == network.routed and not client.routing_outdated() and client.versions()[2] == 7
    client.differ(Differences(routing=6))  # one that came late
    assert not client.routing_outdated()
    client.differ(Differences(routing=8))
    network.routed = routed(6)
    await client.ask()
    assert client.routing == routed(7, "e", "r")


async def test_ports_are_wired_though_the_question_for_what_is_routed_fails(made: Made) -> None:
    client, network, _ = made
    network.routed = routed(7, "e", "r")
    client.differ(Differences(routing=7))
    await client.ask()
    client.differ(Differences(routing=8))
    network.routed, asked = None, len(network.wirings)
    client.asked.add("p")
    await client.ask()
    assert len(network.wirings) == asked + 1 and not client.asked
    assert client.routing == routed(7, "e", "r") and client.routing_outdated()
    network.routed = routed(8)
    await client.ask()
    assert client.routing == routed(8) and not client.routing_outdated()


async def test_a_message_of_routing_that_was_lost_is_found_by_a_beat_and_another_era_is_a_reason_to_ask(
        made: Made) -> None:
    client, network, _ = made
    network.routed = routed(9, "e", "r")
    client.follow(standing(routing=9))
    assert client.routing_outdated()
    await client.ask()
    assert client.routing.n == 9 and not client.routing_outdated()
    network.routed, network.era, network.n = routed(3, "f", "q"), "f", 3
    assert client.follow(standing(era="f"))
    await client.ask()
    assert client.routing == routed(3, "f", "q") and not client.routing_outdated()


async def test_an_answer_of_an_era_that_nobody_said_takes_no_router_away(made: Made) -> None:
    client, network, _ = made
    network.routed = routed(7, "e", "r")
    client.differ(Differences(routing=7))
    await client.ask()
    network.routed = routed(8, "strange", "q")
    client.differ(Differences(routing=8))
    await client.ask()
    assert {router.id for router in client.routing.routers} == {"r", "q"} and client.routing_outdated()


async def test_a_host_asks_what_it_routes_when_its_ports_are_on_other_networks(made: Made) -> None:
    client, network, _ = made
    before = network.routings
    client.changed(("p",), 7, 5)
    await client.ask()
    assert network.routings == before  # the same networks
    network.ports = (PORT, msgspec.structs.replace(PORT, id="q", network_id="m"))
    client.changed(("q",), 8, 7)
    await client.ask()
    assert network.routings == before + 1 and not client.routing_outdated()
    client.forget(["q"])
    assert client.routing_outdated()


async def test_ports_of_networks_that_are_routed_are_kept_and_gateway_hosts_are_reached(made: Made) -> None:
    client, network, _ = made
    far = NetworkFacts(id="far", name="", project_id="", mtu=1450, network_type="vxlan", physical_network=None,
                       segmentation_id=7)
    network.routed = msgspec.structs.replace(routed(7), networks=(far,), peers={
        "g": Peer(tunnel_ip="192.0.2.9", n=7, era="e")})
    client.differ(Differences(routing=7))
    await client.ask()
    assert client.desired.at() == {"n", "far"} and client.desired.own() == {"n"}
    assert client.places.of("far") and client.tunnels() == {"h1": "192.0.2.1", "g": "192.0.2.9"}
    network.routed = routed(8)
    client.differ(Differences(routing=8))
    await client.ask()
    assert not client.places.of("far") and client.tunnels() == {"h1": "192.0.2.1"}
