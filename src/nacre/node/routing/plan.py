"""All flows of routing on a host, from what it is told and what it knows itself."""

from collections.abc import Iterable, Mapping

import structlog

from nacre.network.contract import FloatingFacts, NetworkFacts, RouterFacts
from nacre.node.ovs.flows import Flow, Local, unique
from nacre.node.routing.facts import Surroundings
from nacre.node.routing.inside import Inside, neighbour_flows
from nacre.node.routing.outside import Outside
from nacre.node.routing.pipeline import base

log = structlog.get_logger()


def routing_flows(routers: Iterable[RouterFacts], floating: Iterable[FloatingFacts],
                  networks: Mapping[str, NetworkFacts], local: Local, here: Surroundings) -> tuple[Flow, ...]:
    """The flows of the tables of routing, and those by which frames come there. A router that is switched off, or has
    no number here, has none; a floating IP has where its port is. One that is not to be expressed is left out alone."""
    flows, wanted = list(base()), {router.id: router for router in routers if router.up and router.id in here.numbers}
    mine = [each for each in floating if each.port_id in local.ofports]
    for router in wanted.values():
        try:
            found = list(Inside(router, networks, local, here).flows())
            if router.gateway is not None:
                outside = Outside(router, router.gateway, [each for each in mine if each.router_id == router.id],
                                  (networks, local, here))
                found += [*outside.flows(), *outside.leaving()]
        except ValueError as error:
            log.error("router left out", router=router.id, why=str(error))
            continue
        flows += found
    flows += neighbour_flows(wanted, local, here)
    return unique(flows)
