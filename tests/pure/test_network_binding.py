"""Port binding: one recursion for one level and for many."""

from collections.abc import Sequence
from importlib.metadata import EntryPoint

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import BadRequest, NacreError
from nacre.network.ml2 import type_drivers
from nacre.network.ml2.binding import MAX_LEVELS, bind
from nacre.network.ml2.driver_api import Bound, Continue, HostAgent, PortBinding, Segment
from nacre.network.ml2.manager import load
from nacre.network.ml2.mechanism_drivers.openvswitch import OpenVSwitch
from nacre.network.ml2.mechanism_drivers.tor_vlan import TorVlan
from nacre.network.ml2.type_drivers import SegmentTypes

VXLAN = Segment(id="top", network_type="vxlan", segmentation_id=7)


class Pool:
    """Dynamic segments in memory."""

    def __init__(self):
        self.held: dict[str, Segment] = {}
        self.count = 0

    def allocate(self, network_id, network_type, physical_network):
        self.count += 1
        made = Segment(id=f"d{self.count}", network_type=network_type, physical_network=physical_network,
                       segmentation_id=100 + self.count, dynamic=True)
        self.held[made.id] = made
        return made

    def release(self, segment):
        self.held.pop(segment.id)


class Scripted:
    """A driver that does as told."""

    def __init__(self, name, act):
        self.name, self._act = name, act

    def bind(self, port, segments, dynamic):
        return self._act(port, segments, dynamic)


def port(*, alive=True, tunnels=("vxlan",), mappings=None) -> PortBinding:
    agent = HostAgent(host="h1", alive=alive, bridge_mappings=mappings or {}, tunnel_types=tunnels,
                      bridge="br-int-c10d0000")
    return PortBinding(port_id="p", network_id="n", host="h1", agent=agent)


def test_one_level():
    done = bind(port(), [VXLAN], [OpenVSwitch()], Pool())
    assert [(lv.level, lv.driver, lv.segment.id) for lv in done.levels] == [(0, "openvswitch", "top")]
    assert done.bound.vif_type == "ovs" and done.bound.vif_details["bridge_name"] == "br-int-c10d0000"


def test_a_top_of_rack_switch_hands_a_vlan_down():
    pool = Pool()
    done = bind(port(tunnels=(), mappings={"rack1": "br-rack"}), [VXLAN],
                [TorVlan({"h1": "rack1"}), OpenVSwitch()], pool)
    assert [(lv.driver, lv.segment.network_type) for lv in done.levels] == [
        ("tor_vlan", "vxlan"), ("openvswitch", "vlan")]
    assert list(pool.held) == ["d1"]


def test_a_dynamic_segment_is_released_when_the_level_below_fails():
    pool = Pool()
    assert bind(port(tunnels=()), [VXLAN], [TorVlan({"h1": "rack1"}), OpenVSwitch()], pool) is None
    assert not pool.held and pool.count == 1
    done = bind(port(), [VXLAN], [TorVlan({"h1": "rack1"}), OpenVSwitch()], pool)
    assert [lv.driver for lv in done.levels] == ["openvswitch"] and not pool.held


def test_a_dead_agent_or_another_network_type_does_not_bind():
    assert bind(port(alive=False), [VXLAN], [OpenVSwitch()], Pool()) is None
    vlan = Segment(id="v", network_type="vlan", physical_network="physnet9", segmentation_id=4)
    assert bind(port(mappings={"physnet1": "br-ex"}), [vlan], [OpenVSwitch()], Pool()) is None
    assert bind(port(mappings={"physnet9": "br-ex"}), [vlan], [OpenVSwitch()], Pool()).bound.segment == vlan


def test_a_crashing_driver_is_a_refusal_and_gives_back_what_it_took():
    pool, seen = Pool(), []

    def crash(port, segments, dynamic):
        dynamic.allocate("n", "vlan", "rack1")
        raise RuntimeError("boom")

    done = bind(port(), [VXLAN], [Scripted("bad", crash), OpenVSwitch()], pool, lambda name, error: seen.append(name))
    assert done.levels[0].driver == "openvswitch" and seen == ["bad"] and not pool.held


def test_drivers_that_hand_on_for_ever_are_stopped():
    pool = Pool()

    def on(port, segments, dynamic):
        return Continue(segment=segments[0], below=(dynamic.allocate("n", "vlan", "x"),))

    assert bind(port(), [VXLAN], [Scripted("a", on)], pool) is None
    assert not pool.held and pool.count == MAX_LEVELS

    def circle(port, segments, dynamic):
        return Continue(segment=segments[0], below=tuple(segments))

    assert bind(port(), [VXLAN], [Scripted("a", circle), Scripted("b", circle)], Pool()) is None


def test_a_segment_that_was_not_offered_is_no_binding():
    other = Segment(id="other", network_type="local")
    assert bind(port(), [VXLAN], [Scripted("a", lambda *_: Bound(segment=other, vif_type="x"))], Pool()) is None


acts = st.lists(st.sampled_from(["none", "bound", "continue", "crash"]), min_size=0, max_size=3)


@given(acts)
def test_levels_are_whole_and_nothing_leaks(script):
    pool = Pool()

    def act(kind):
        def run(port, segments, dynamic):
            if kind == "crash":
                dynamic.allocate("n", "vlan", "x")
                raise ValueError
            if kind == "bound":
                return Bound(segment=segments[-1], vif_type="ovs")
            if kind == "continue" and len(dynamic._inner.held if hasattr(dynamic, "_inner") else ()) < 4:
                return Continue(segment=segments[0], below=(dynamic.allocate("n", "vlan", "x"),))
            return None
        return run

    done = bind(port(), [VXLAN], [Scripted(f"{i}{k}", act(k)) for i, k in enumerate(script)], pool)
    if done is None:
        assert not pool.held
        assert "bound" not in script
    else:
        assert [lv.level for lv in done.levels] == list(range(len(done.levels)))
        assert done.levels[-1].segment == done.bound.segment
        assert set(pool.held) == {lv.segment.id for lv in done.levels if lv.segment.dynamic}


class Stripes:
    """A kind of segment that a package offers."""

    name, physical, overhead, limit, shared = "stripes", False, 24, 3, False

    def known(self, types: SegmentTypes, physical: str) -> bool:
        return False

    def places(self, types: SegmentTypes) -> Sequence[str | None]:
        return (None,)

    def numbers(self, types: SegmentTypes, physical: str | None) -> range:
        return range(1, 4)

    def taken(self, physical: str | None, number: int | None) -> tuple[str, str]:
        return "StripeInUse", f"Stripe {number} is in use."


class Nameless:
    pass


def test_an_installed_package_offers_a_type_driver_and_replaces_none_of_ours(monkeypatch):
    offered = (EntryPoint(name, f"{__name__}:Stripes", type_drivers.GROUP) for name in ("stripes", "vlan"))
    monkeypatch.setattr(type_drivers, "entry_points", lambda group: tuple(offered))
    type_drivers.load.cache_clear()
    try:
        assert [*type_drivers.load()] == ["flat", "vlan", "vxlan", "local", "stripes"]
        type_drivers.require(("vxlan", "stripes"))
        assert type_drivers.of("vlan").limit == 4094 and type_drivers.mtu(SegmentTypes(), "stripes") == 1476
        type_drivers.validate(SegmentTypes(), "stripes", None, 3)
        with pytest.raises(BadRequest, match="1 through 3"):
            type_drivers.validate(SegmentTypes(), "stripes", None, 4)
    finally:
        type_drivers.load.cache_clear()


@pytest.mark.parametrize(("name", "what"), [
    ("bands", "Stripes"), ("bands", "nothing"), ("stripes", "gone.Stripes"), ("bands", "Nameless")])
def test_a_package_that_offers_no_type_driver_stops_the_start_and_is_named(monkeypatch, name, what):
    """Under another name than its own it gave out one segment and refused all others."""
    module = "gone" if "." in what else __name__
    offered = (EntryPoint(name, f"{module}:{what}", type_drivers.GROUP),)
    monkeypatch.setattr(type_drivers, "entry_points", lambda group: offered)
    type_drivers.load.cache_clear()
    try:
        with pytest.raises(NacreError, match=f"The type driver '{name}' .*{module}"):
            type_drivers.require(("vxlan",))
    finally:
        type_drivers.load.cache_clear()


def test_a_driver_that_nobody_offers_is_named():
    with pytest.raises(NacreError, match="no type driver 'gre'; known: flat, vlan, vxlan, local"):
        type_drivers.require(("vxlan", "gre"))
    with pytest.raises(NacreError, match="no mechanism driver 'linuxbridge'; known: openvswitch, tor_vlan"):
        load(("openvswitch", "linuxbridge"))


@pytest.mark.parametrize(("kind", "physical", "number", "words"), [
    ("gre", None, 1, "'gre' is not supported"), ("flat", None, None, "physical_network required"),
    ("flat", "physnet9", None, "'physnet9' unknown"), ("flat", "physnet1", 1, "segmentation_id specified for flat"),
    ("vlan", "physnet9", 1, "'physnet9' unknown"), ("vlan", "physnet1", 4095, "1 through 4094"),
    ("vxlan", "physnet1", 1, "physical_network specified for vxlan"), ("vxlan", None, 0, "1 through 16777215"),
    ("local", None, 1, "segmentation_id specified for local"),
])
def test_what_no_segment_can_be(kind, physical, number, words):
    types = SegmentTypes(flat_networks=(), vlan_ranges={"physnet1": (100, 200)})
    with pytest.raises(BadRequest, match=words):
        type_drivers.validate(types, kind, physical, number)
