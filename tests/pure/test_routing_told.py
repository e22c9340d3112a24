"""What a host tells of its routers, and what it plans when."""

import asyncio
from collections.abc import Iterable

import msgspec

from nacre.base.errors import BuildFailed, Unavailable
from nacre.network.contract import (
    MOST_ROUTED,
    FloatingFacts,
    ForwardingFacts,
    GatewayFacts,
    NetworkFacts,
    RouterFacts,
    RouterLeg,
    Routing,
    Served,
)
from nacre.node.ovs.flows import Local
from nacre.node.routing.routers import LOOK, PAUSE, WHOLE, Routers
from tests.pure.test_routing_near import Wire

NETWORKS = (NetworkFacts(id="a", name="a", project_id="p", mtu=1450, network_type="vxlan", physical_network=None,
                         segmentation_id=7),
            NetworkFacts(id="out", name="out", project_id="p", mtu=1500, network_type="flat",
                         physical_network="public", segmentation_id=None))
LOCAL = Local(ofports={f"port{n}": n + 10 for n in range(2000)}, numbers={"a": 1, "out": 2}, uplinks={"public": 4},
              vxlan=3)


def router(name: str = "r", host: str = "me", term: int = 1, **more: object) -> RouterFacts:
    return RouterFacts(id=name, interfaces=(RouterLeg(network_id="a", port_id="leg", mac="fa:16:3e:aa:00:01",
                                                      addresses=("10.0.0.1/16",)),),
                       gateway=GatewayFacts(network_id="out", port_id="gw", mac="fa:16:3e:ee:00:10",
                                            addresses=("203.0.113.10",), host=host, term=term),
                       **more)  # type: ignore[arg-type]


def floating(number: int) -> FloatingFacts:
    return FloatingFacts(id=f"f{number}", network_id="out", address=f"203.0.{number // 250}.{number % 250 + 1}",
                         mac="fa:16:3e:ee:00:11", port_id=f"port{number}", inner_network_id="a",
                         fixed_ip=f"10.0.{number // 250}.{number % 250 + 2}", router_id="r")


def routing(n: int, *routers: RouterFacts, count: int = 1) -> Routing:
    return Routing(n=n, era="e", routers=routers, floating=tuple(map(floating, range(count))), networks=NETWORKS)


class Clock:
    """Steps when it is told to."""

    def __init__(self) -> None:
        self.now, self.step = 0.0, asyncio.Event()

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.step.clear()
        await self.step.wait()

    async def go(self, seconds: float) -> None:
        self.now += seconds
        self.step.set()
        for _ in range(20):
            await asyncio.sleep(0)


class Bridge:
    def __init__(self) -> None:
        self.openflow, self.owners, self.full, self.refused = Wire(), list[set[str]](), False, ""

    async def owned_zones(self, owners: Iterable[str]) -> dict[str, int]:
        if self.full:
            raise BuildFailed("none is left")
        self.owners.append(set(owners))
        return {owner: 40000 + number for number, owner in enumerate(sorted(self.owners[-1]))
                if owner.partition(" ")[0] != self.refused}


class Network:
    def __init__(self) -> None:
        self.said: list[tuple[Served, bool]] = []
        self.mute = 0

    async def routed(self, host: str, served: Served, up: bool) -> None:
        if self.mute:
            self.mute -= 1
            raise Unavailable("nobody")
        self.said.append((served, up))


class Place:
    def __init__(self) -> None:
        self.network, self.bridge, self.clock = Network(), Bridge(), Clock()
        self.routers = Routers("me", self.network, self.bridge, self.clock)  # type: ignore[arg-type]
        self.woken = 0

    async def hear(self, said: Routing, local: Local = LOCAL) -> None:
        await self.routers.make(said, local, {})
        self.routers.done()

    async def says(self, seconds: float = LOOK) -> list[tuple[Served, bool]]:
        self.network.said.clear()
        await self.clock.go(seconds)
        return list(self.network.said)

    def __enter__(self) -> "Place":
        self.task = asyncio.get_running_loop().create_task(self.routers.follow(self._wake))
        return self

    def _wake(self) -> None:
        self.woken += 1

    def __exit__(self, *_: object) -> None:
        self.task.cancel()


async def test_all_is_told_after_each_news_and_after_a_while_and_else_what_changed() -> None:
    with Place() as place:
        await place.says()
        await place.hear(routing(1, router()))
        everything = Served(routers=("r",), gateways={"r": 1}, floating=("f0",))
        assert await place.says() == [(everything, True)] and await place.says() == []
        await place.hear(routing(1, router()))
        assert await place.says() == []
        await place.hear(routing(2, router()))
        assert await place.says() == [(everything, True)]
        assert await place.says(WHOLE + 1) == [(everything, True)]
        # The port's interface is gone, and what is wanted is the same.
        await place.hear(routing(2, router()), msgspec.structs.replace(LOCAL, ofports={}))
        assert await place.says() == [(Served(floating=("f0",)), False)] and await place.says() == []
        await place.hear(routing(2, router()))
        assert await place.says() == [(Served(floating=("f0",)), True)]
        # Another host was elected: that is not for this one to say.
        await place.hear(routing(3, router(host="other", term=2), count=0))
        assert await place.says() == [(Served(routers=("r",)), True)]


async def test_a_process_that_begins_says_what_it_cannot_serve() -> None:
    """A former one may have told that it does."""
    with Place() as place:
        await place.says()
        assert await place.says() == []
        await place.hear(routing(1, router()), msgspec.structs.replace(LOCAL, ofports={}, uplinks={}))
        assert await place.says() == [(Served(routers=("r",)), True),
                                      (Served(gateways={"r": 1}, floating=("f0",)), False)]
        assert await place.says() == []
        await place.hear(routing(1, router()))
        assert await place.says() == [(Served(gateways={"r": 1}, floating=("f0",)), True)]


async def test_what_cannot_be_told_is_told_later() -> None:
    with Place() as place:
        await place.says()
        place.network.mute = 1
        await place.hear(routing(1, router()))
        assert await place.says() == [] and await place.says() == []
        assert len(await place.says(PAUSE)) == 1


async def test_no_more_is_told_at_once_than_may_be() -> None:
    with Place() as place:
        await place.says()
        await place.hear(routing(1, router(), count=1500))
        said = await place.says()
        assert all(up and len(served.floating) <= MOST_ROUTED for served, up in said)
        assert sum(len(served.floating) for served, _ in said) == 1500


async def test_a_zone_is_of_what_an_address_stands_for() -> None:
    place = Place()
    await place.hear(Routing())
    assert not place.bridge.owners, "before anything is heard, what the bridge keeps stays"
    await place.hear(routing(1, router()))
    moved = msgspec.structs.replace(floating(0), fixed_ip="10.0.0.9")
    await place.hear(msgspec.structs.replace(routing(2, router()), floating=(moved,)))
    first, second = place.bridge.owners
    assert len(first) == len(second) == 2 and len(first & second) == 1, "the gateway's stays, the other is another"
    place.bridge.full = True
    await place.hear(routing(3, router(), count=2))
    assert place.routers.plan.served == Served(routers=("r",), gateways={"r": 1}), "who had a zone has it still"


async def test_a_zone_that_cannot_be_had_is_one_floating_ips_loss_and_asked_for_again() -> None:
    with Place() as place:
        await place.says()
        await place.hear(routing(1, router(), count=2))
        place.bridge.refused = "f2"
        await place.hear(routing(2, router(), count=3))
        assert place.routers.plan.served == Served(routers=("r",), gateways={"r": 1}, floating=("f0", "f1"))
        await place.says(PAUSE - 1)
        assert not place.woken
        await place.says(1)
        assert place.woken == 1
        place.bridge.refused = ""
        await place.hear(routing(2, router(), count=3))
        assert place.routers.plan.served.floating == ("f0", "f1", "f2")
        await place.says(2 * PAUSE)
        assert place.woken == 1


async def test_while_its_flows_are_refused_nothing_is_routed_and_that_is_told() -> None:
    with Place() as place:
        await place.says()
        await place.hear(routing(1, router()))
        await place.says()
        place.routers.refused(BuildFailed("no such action"))
        place.routers.done()
        assert place.routers.plan.flows == () and place.routers.hops.known() == {}
        assert await place.says() == [(Served(routers=("r",), gateways={"r": 1}, floating=("f0",)), False)]
        await place.hear(routing(1, router()))
        assert place.routers.plan.flows == () and not place.woken
        await place.says(PAUSE)
        assert place.woken == 1
        await place.hear(routing(1, router()))
        assert place.routers.plan.flows and len(await place.says()) == 1
        for _ in range(2):  # it is tried less often now
            place.routers.refused(BuildFailed("no such action"))
            await place.says(PAUSE)
        assert place.woken == 1
        await place.hear(routing(2, router(term=2)))
        assert place.routers.plan.flows, "another plan may be taken"


async def test_it_is_planned_anew_only_where_something_of_it_changed() -> None:
    place = Place()
    said = routing(1, router(forwardings=tuple(ForwardingFacts(
        floating_id=f"p{n}", address=f"203.0.113.{n + 20}", mac="fa:16:3e:ee:00:12", protocol="tcp", outer=(1, 128),
        inner_network_id="a", inner_address="10.0.0.9", inner=(1001, 1128)) for n in range(100))))
    assert place.routers.outdated(said, {})
    await place.hear(said)
    assert not place.routers.outdated(said, {})
    before = place.routers.plan
    await place.hear(said, msgspec.structs.replace(LOCAL, ofports=dict(LOCAL.ofports) | {"guest": 9, "other": 8}))
    assert place.routers.plan is before and len(before.flows) > 12800
    await place.hear(said, msgspec.structs.replace(LOCAL, uplinks={"public": 5}))
    assert place.routers.plan is not before


async def test_a_gateway_host_that_moves_is_planned_for() -> None:
    place = Place()
    said = routing(1, router(host="other"))
    await place.routers.make(said, LOCAL, {"other": "172.31.0.2"})
    assert place.routers.outdated(said, {"other": "172.31.0.9"})
    assert not place.routers.outdated(said, {"other": "172.31.0.2", "another": "172.31.0.3"})
