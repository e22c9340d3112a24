"""What a cloud's things are called: short enough, with the cloud's id in it, and nobody else's."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from nacre.node.names import Names

ids = st.uuids(version=4).map(str)


def links(names: Names, id: str) -> list[str]:
    """Everything that the kernel sees as a link, or may."""
    return [names.bridge, names.provider, names.tunnel, names.tap(id), names.veth(id), names.datapath, *names.nat]


@given(ids, ids)
def test_names_carry_the_clouds_id_and_fit(cloud: str, id: str) -> None:
    names = Names(cloud)
    everything = [*links(names, id), *names.patches("public"), names.namespace(id), names.table, names.nat_table,
                  str(names.run)]
    assert all(cloud[:8] in name for name in everything) and len(set(everything)) == len(everything)
    assert all(len(link) <= 15 for link in links(names, id))
    assert names.namespace(id).removeprefix(names.namespaces) == id


@given(ids, ids, ids)
def test_two_clouds_have_no_name_in_common(one: str, other: str, id: str) -> None:
    if one[:8] != other[:8]:
        assert not {*links(Names(one), id)} & {*links(Names(other), id)}
        assert not Names(other).namespace(id).startswith(Names(one).namespaces)


def test_a_thousand_ports_of_a_host_have_a_thousand_taps() -> None:
    names = Names("c10d0000-0000-4000-8000-000000000001")
    ports = [str(uuid.uuid5(uuid.NAMESPACE_DNS, str(number))) for number in range(1000)]
    assert len({names.tap(port) for port in ports}) == 1000


def test_a_host_with_servers_of_before_keeps_the_names_of_before() -> None:
    names = Names("c10d0000-0000-4000-8000-000000000001", former=True)
    net = "bea0ffc3-0461-4c25-a101-a4c27f4a6f44"
    assert (names.bridge, names.provider, names.table) == ("br-int", "br-ex", "nacre_br_int")
    assert (names.namespace(net), names.veth(net)) == ("nacre-bea0ffc30461", "ndbea0ffc304614")
    assert names.tap(net).startswith("tc10d0000")
