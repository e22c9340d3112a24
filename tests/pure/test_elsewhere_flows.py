"""Flows of ports on other hosts: whatever is told in whatever pieces, they are those of what is so in the end; frames
flood to hosts of the network only, and are taken from those only."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.network.contract import NetworkPorts, PlacedPort
from nacre.node.ovs.flows import AWAY, CLASSIFY, DELIVER
from nacre.node.ovs.groups import elsewhere
from nacre.node.ovs.groups.elsewhere import ElsewhereFlows, Here, network_flows
from nacre.node.ovs.groups.members import Places

HOSTS = {f"h{n}": f"192.0.2.{n}" for n in range(5)}
HERE = Here(host="h0", vxlan=9, networks={"n": (1, 77), "m": (2, 78)}, tunnels=HOSTS)


def told(network: str, n: int, ports: dict[str, PlacedPort], since: int | None = None) -> NetworkPorts:
    return NetworkPorts(id=network, n=n, era="e", since=since, ports=ports)


def placed(number: int, host: str, *prepared: str, address: str = "") -> PlacedPort:
    return PlacedPort(mac=f"fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}", host=host, prepared=prepared,
                      addresses=(address or f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",))


def apply(state: dict[str, str], lines: list[str]) -> None:
    """As Open vSwitch does."""
    for line in lines:
        verb, _, rest = line.partition(" ")
        if verb == "delete_strict":
            del state[rest]
        else:
            key, _, actions = rest.partition(",")[2].rpartition(",actions=")
            state[key] = actions


def hosts_of(flows: ElsewhereFlows, table: int, network: int) -> set[str]:
    """The tunnels that a network's flows of that table name."""
    numbers = {1: "0x4d", 2: "0x4e"}
    return {host for host, ip in HOSTS.items() for flow in flows.all() if flow.table == table and (
        f"reg6={network}," in f"{flow.match}," or f"tun_id={numbers[network]}," in flow.match)
        and (f"tun_src={ip}" in flow.match or f"set_field:{ip}->" in flow.actions)}


def test_a_difference_costs_what_it_changes() -> None:
    places, flows = Places(), ElsewhereFlows()
    places.apply([told("n", 1, {f"p{n}": placed(n, f"h{1 + n % 3}") for n in range(3000)}), told("m", 1, {})])
    assert len(flows.lines(places, HERE)) == len(flows) == 2 * 3000 + 1 + 3
    places.apply_news([told("n", 2, {"p7": placed(7, "h3"), "p8": PlacedPort(mac="")}, since=1)])
    lines = flows.lines(places, HERE)
    assert len(lines) == 1 + 2 and sum(line.startswith("delete_strict") for line in lines) == 2
    assert flows.lines(places, HERE) == []
    places.apply_news([told("n", 3, {"new": placed(5000, "h4")}, since=2)])
    assert len(flows.lines(places, HERE)) == 2 + 1 + 1  # the first one of a host: it floods there, and takes from it


def test_frames_flood_to_hosts_of_the_network_and_are_taken_from_no_other() -> None:
    places, flows = Places(), ElsewhereFlows()
    places.apply([told("n", 1, {"a": placed(1, "h0"), "b": placed(2, "h1", "h2")}), told("m", 1, {
        "c": placed(3, "h3")})])
    flows.lines(places, HERE)
    assert (hosts_of(flows, AWAY, 1), hosts_of(flows, CLASSIFY, 1)) == ({"h1"}, {"h1", "h2"})
    assert (hosts_of(flows, AWAY, 2), hosts_of(flows, CLASSIFY, 2)) == ({"h3"}, {"h3"})
    places.apply_news([told("n", 2, {"b": placed(2, "h2")}, since=1)])
    flows.lines(places, HERE)
    assert hosts_of(flows, AWAY, 1) == hosts_of(flows, CLASSIFY, 1) == {"h2"}
    assert {"192.0.2.0"} & {part for flow in flows.all() for part in flow.text.split("->")} == set()


def test_who_asks_for_itself_is_not_answered_here() -> None:
    """Neither a port that is here, nor one that is prepared here and may run the next moment."""
    places, flows = Places(), ElsewhereFlows()
    places.apply([told("n", 1, {"a": placed(1, "h0"), "b": placed(2, "h1", "h0"), "c": placed(3, "h1")})])
    flows.lines(places, HERE)
    answers = [flow for flow in flows.all() if flow.table == DELIVER and "arp" in flow.match]
    assert [flow.match.rpartition("=")[2] for flow in answers] == ["10.0.0.3"]


def test_a_network_on_very_many_hosts_floods_in_parts() -> None:
    many = {f"h{n}": f"10.0.{n >> 8}.{n & 255}" for n in range(1, 2502)}
    here = msgspec.structs.replace(HERE, tunnels=many)
    flows = [flow for flow in network_flows("n", many, (), here) if flow.table == AWAY]
    assert [flow.actions.count("output:") for flow in flows] == [1000, 1000, 501]
    assert [flow.match for flow in flows] == ["reg6=1", "reg6=1,reg8=1", "reg6=1,reg8=2"]
    assert [flow.actions.rpartition("output:9")[2] for flow in flows] == [
        ",load:1->NXM_NX_REG8[],resubmit(,42)", ",load:2->NXM_NX_REG8[],resubmit(,42)", ""]
    assert max(len(flow.actions) for flow in flows) < 60_000 and elsewhere.MOST_HOSTS * 40 < 60_000


_PORT = st.one_of(st.just(PlacedPort(mac="")), st.builds(
    placed, st.integers(1, 4), st.sampled_from(["", *HOSTS]), st.sampled_from(list(HOSTS))))
_STEP = st.one_of(
    st.tuples(st.just("news"), st.sampled_from(["n", "m"]), st.dictionaries(st.sampled_from("abc"), _PORT)),
    st.tuples(st.just("whole"), st.sampled_from(["n", "m"]), st.dictionaries(st.sampled_from("abc"), _PORT)),
    st.tuples(st.just("leave"), st.sampled_from(["n", "m"])),
    st.tuples(st.just("here"), st.builds(Here, st.just("h0"), st.sampled_from([9, 10, None]), st.sampled_from(
        [{}, {"n": (1, 77)}, {"n": (3, 77), "m": (2, 78)}]), st.sampled_from(
            [HOSTS, {"h1": "192.0.2.1"}, HOSTS | {"h2": "192.0.2.99"}]))))


@settings(max_examples=300, deadline=None)
@given(st.lists(_STEP, max_size=20))
def test_step_by_step_as_at_once(steps: list[tuple[str, object, object]]) -> None:
    """MACs are a port's own here, as in a network."""
    places, flows, state, here = Places(), ElsewhereFlows(), dict[str, str](), HERE

    def own(ports: dict[str, PlacedPort]) -> dict[str, PlacedPort]:
        return {id: msgspec.structs.replace(port, mac=f"fa:16:3e:00:00:0{id}" if port.mac else "", addresses=(
            f"10.0.0.{ord(id)}",)) for id, port in ports.items()}

    for n, (name, *what) in enumerate(steps, 1):
        match name:
            case "news":
                places.apply_news([told(what[0], n, own(what[1]), since=0)])  # type: ignore[arg-type]
            case "whole":
                places.apply([told(what[0], n, own(what[1]))])  # type: ignore[arg-type]
            case "leave":
                places.keep_only({"n", "m"} - {what[0]})
            case "here":
                here = what[0]  # type: ignore[assignment]
        apply(state, flows.lines(places, here))
        once, fresh = Places(), ElsewhereFlows()
        once.apply([told(network, 1, dict(places.of(network))) for network in ("n", "m")])
        fresh.lines(once, here)
        assert state == {flow.key: flow.actions for flow in fresh.all()} and len(flows) == len(state)
