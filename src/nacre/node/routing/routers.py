"""A host's routers: what is planned of them in a round, what is told of them, and who is outside."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping

import structlog

from nacre.base.bounds import pieces
from nacre.base.clock import Clock
from nacre.network.contract import MOST_ROUTED, Network, Routing, Served
from nacre.node.ovs.bridge import Bridge
from nacre.node.ovs.flows import Local
from nacre.node.ovs.plan import numbered
from nacre.node.routing.facts import Surroundings
from nacre.node.routing.hops import Hops
from nacre.node.routing.plan import Plan, routing_plan

log = structlog.get_logger()

#: Seconds between looks, after a telling that failed, and until all is told again.
LOOK, PAUSE, WHOLE = 0.25, 5.0, 600.0
ZONES, FLOWS = "zones", "flows"
#: What is told: its kind, its id, and the facts that it is told of: with others it is told anew.
Fact = tuple[str, str, object]


class Routers:
    """Those of one host. `make` and `done` in its rounds, `follow` beside them."""

    def __init__(self, host: str, network: Network, bridge: Bridge, clock: Clock):
        self.host, self._network, self._bridge, self._clock = host, network, bridge, clock
        self.hops = Hops(bridge.openflow)
        self.plan = Plan()
        self.routing, self._inputs = Routing(), tuple[object, ...]()
        self._peers: Mapping[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._stand: dict[Fact, bool] = {}  # of what is wanted: whether it works, since the flows are there
        self._told: dict[Fact, bool] = {}
        self._tell_at, self._told_all, self._said = 0.0, -WHOLE, (0, "")
        self._zones: dict[str, int] = {}  # by owner
        self._planned, self._pause = self.plan, PAUSE
        self._due: dict[str, float] = {}  # when it is tried again: ZONES that lacked, FLOWS that were refused

    def outdated(self, routing: Routing, tunnels: Mapping[str, str]) -> bool:
        """Whether a round has to plan anew."""
        return routing is not self.routing or _peers(routing, tunnels) != self._peers

    async def make(self, routing: Routing, local: Local, tunnels: Mapping[str, str]) -> Plan:
        """The plan, made anew if anything of it changed; nothing while what was planned so is refused. Raises nothing
        of a single router's."""
        zones = await self._given(routing)
        self.routing, self._peers = routing, _peers(routing, tunnels)
        self._numbers = numbered(self._numbers, [router.id for router in routing.routers])
        here = Surroundings(host=self.host, numbers=self._numbers, zones=zones, hops=self.hops.known(),
                            peers=self._peers)
        inputs = routing.routers, routing.floating, routing.networks, _needed(routing, local), here
        if inputs != self._inputs:
            networks = {network.id: network for network in routing.networks}
            self._planned = await asyncio.to_thread(
                routing_plan, routing.routers, routing.floating, networks, inputs[3], here)
            self._inputs, self._pause = inputs, PAUSE
            self._due.pop(FLOWS, None)
        self.plan = Plan() if FLOWS in self._due else self._planned
        return self.plan

    def refused(self, why: Exception) -> None:
        """The bridge takes no flows with those of the plan among them, and has them without: what is switched goes on,
        and nothing is routed. Tried again soon, then ever less, and where something of the plan changed."""
        log.error("nothing is routed: Open vSwitch refuses the flows", why=repr(why), again=self._pause)
        self.plan, self._due[FLOWS] = Plan(), self._clock.monotonic() + self._pause
        self._pause = min(2 * self._pause, WHOLE)

    def done(self) -> None:
        """The flows of the plan are there. All of it is told again if it is of other news: control may have taken back
        meanwhile what it had of that."""
        if (self.routing.n, self.routing.era) != self._said:
            self._said, self._told_all = (self.routing.n, self.routing.era), -WHOLE
        works = dict.fromkeys(_facts(self.routing, self.plan.served), True)
        self._stand = dict.fromkeys(_facts(self.routing, _all(self.routing, self.host)), False) | works
        self.hops.follow(self.plan.out)

    async def follow(self, wake: Callable[[], None]) -> None:
        """For ever: asks next hops, announces addresses, tells what works. wake: there is reason for a round."""
        while True:
            await self._clock.sleep(LOOK)
            now = self._clock.monotonic()
            if due := [what for what, at in self._due.items() if now >= at]:
                self._due = {what: at for what, at in self._due.items() if what not in due}
                wake()
            try:
                if await self.hops.look(now):
                    wake()
            except Exception as error:  # Open vSwitch is away for now
                log.warning("next hops are not asked", why=repr(error))
            if now >= self._tell_at:
                try:
                    await self._tell(now)
                except Exception as error:  # what works, works
                    log.warning("what is routed is not told", why=repr(error))
                    self._tell_at = now + PAUSE

    async def _tell(self, now: float) -> None:
        """What is new; of what is not wanted of this host any more, nothing. From time to time, and first of all, all:
        a process before this one may have told otherwise."""
        if now - self._told_all >= WHOLE:
            self._told, self._told_all = {}, now
        self._told = {fact: up for fact, up in self._told.items() if fact in self._stand}
        for up in True, False:
            facts = [fact for fact, stands in self._stand.items() if stands is up and self._told.get(fact) is not up]
            for some in pieces(facts, MOST_ROUTED):
                await self._network.routed(self.host, _served(some), up)
                self._told |= dict.fromkeys(some, up)

    async def _given(self, routing: Routing) -> dict[str, int]:
        """Zones by id. What a floating IP leads to, or a gateway's address, is part of its zone's name: connections to
        what it led to before are of another zone. Who has none is asked for again soon."""
        if not routing.era:  # nobody has said anything so far: what is there stays
            return {}
        owners = {each.id: f"{each.id} {each.port_id} {each.fixed_ip}" for each in routing.floating}
        owners |= {router.id: f"{router.id} {router.gateway.port_id} {' '.join(router.gateway.addresses[:1])}"
                   for router in routing.routers if router.gateway is not None and router.gateway.host == self.host}
        try:
            self._zones = await self._bridge.owned_zones(owners.values())
        except Exception as error:  # who had one has it in the bridge's record still
            log.error("conntrack zones of routers and floating IPs cannot be had", why=repr(error))
            self._zones = {owner: self._zones[owner] for owner in owners.values() if owner in self._zones}
        zones = {id: self._zones[owner] for id, owner in owners.items() if owner in self._zones}
        if lacking := owners.keys() - zones.keys():
            log.warning("routers or floating IPs without a conntrack zone", ids=sorted(lacking)[:10], all=len(lacking))
            self._due[ZONES] = self._clock.monotonic() + PAUSE
        return zones


def routed_networks(routing: Routing) -> list[str]:
    """The ids of the networks that routers here are on."""
    return sorted({network.id for network in routing.networks})


def _peers(routing: Routing, tunnels: Mapping[str, str]) -> dict[str, str]:
    """Those of the gateway hosts."""
    hosts = {router.gateway.host for router in routing.routers if router.gateway is not None}
    return {host: tunnels[host] for host in sorted(hosts & tunnels.keys())}


def _needed(routing: Routing, local: Local) -> Local:
    """The part that routing's flows depend on: the rest changes with every guest."""
    ports, networks = {each.port_id for each in routing.floating}, {network.id for network in routing.networks}
    return Local(ofports={port: number for port, number in local.ofports.items() if port in ports},
                 numbers={network: number for network, number in local.numbers.items() if network in networks},
                 dhcp={network: number for network, number in local.dhcp.items() if network in networks},
                 uplinks=local.uplinks, vxlan=local.vxlan)


def _facts(routing: Routing, served: Served) -> Iterator[Fact]:
    routers = {router.id: router for router in routing.routers}
    floating = {each.id: each for each in routing.floating}
    for id in served.routers:
        yield "router", id, routers[id]
    for id in served.gateways:
        yield "gateway", id, routers[id].gateway
    forwarded = {each.floating_id: routers[id] for id in served.gateways for each in routers[id].forwardings}
    for id in served.floating:
        yield "floating", id, floating.get(id) or forwarded.get(id)


def _all(routing: Routing, host: str) -> Served:
    """What is wanted of the host."""
    mine = [router for router in routing.routers if router.gateway is not None and router.gateway.host == host]
    return Served(routers=tuple(router.id for router in routing.routers), gateways={router.id: 0 for router in mine},
                  floating=tuple({each.id: 0 for each in routing.floating} | {
                      each.floating_id: 0 for router in mine for each in router.forwardings}))


def _served(facts: Iterable[Fact]) -> Served:
    found: dict[str, dict[str, object]] = {"router": {}, "gateway": {}, "floating": {}}
    for kind, id, what in facts:
        found[kind][id] = what
    return Served(routers=tuple(found["router"]), floating=tuple(found["floating"]),
                  gateways={id: getattr(what, "term", 0) for id, what in found["gateway"].items()})
