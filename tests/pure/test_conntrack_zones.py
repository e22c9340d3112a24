"""Which conntrack zones are given."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import BuildFailed
from nacre.node.ovs.zones import FIRST, KEY, LAST, OWNED_KEY, GiveZones, KeepZones, choose

zone = st.integers(FIRST, LAST)


@given(st.sets(zone, max_size=50), st.integers(FIRST - 1, LAST), st.integers(0, 50))
def test_free_ones_and_the_one_given_last_is_the_last_to_come_again(taken: set[int], last: int, count: int) -> None:
    given = choose(taken, last, count)
    assert len(set(given)) == count and not set(given) & taken and all(FIRST <= one <= LAST for one in given)
    assert last not in given and given == choose(taken, last, count)


def test_they_go_round_and_come_to_an_end() -> None:
    assert choose(set(), FIRST - 1, 2) == [FIRST, FIRST + 1]
    assert choose({FIRST}, LAST - 1, 2) == [LAST, FIRST + 1]
    assert choose(set(range(FIRST, LAST)), FIRST, 1) == [LAST]
    assert choose(set(range(FIRST, LAST)), FIRST, 2) == [LAST], "as many as there are"


def test_ports_have_all_that_they_need_or_none_and_who_has_no_port_what_is_left() -> None:
    def row(name: str = "", **ids: str) -> Any:
        return SimpleNamespace(name=name, external_ids=ids, verify=lambda _: None, setkey=lambda _, key, value:
                               ids.update({key: value}), delkey=lambda _, key: ids.pop(key))
    bridge = row("br", **{f"{OWNED_KEY}old": str(FIRST)})
    full = {n: row(str(n), **{KEY: str(n)}) for n in range(FIRST + 1, LAST)}
    api = SimpleNamespace(tables={"Open_vSwitch": SimpleNamespace(rows={0: row()}), "Interface": SimpleNamespace(
        rows=full | {0: row("tap1"), 1: row("tap2")}), "Bridge": SimpleNamespace(rows={0: bridge})})
    with pytest.raises(BuildFailed, match="no conntrack zone left"):
        GiveZones(api, ["tap1", "tap2"]).run_idl(None)
    keep = KeepZones(lambda: api, "br", frozenset(("old", "new1", "new2")))
    keep.run_idl(None)
    assert keep.result == ({"old": FIRST, "new1": LAST}, {"new1"})
