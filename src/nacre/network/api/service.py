"""The network API as one service: the routes of every resource."""

from collections.abc import Callable
from typing import Any, Protocol

from nacre.base.web import Route, Service
from nacre.network.addresses.address_groups import AddressGroups
from nacre.network.addresses.subnetpools import AddressScopes, Subnetpools
from nacre.network.addresses.subnets import Subnets
from nacre.network.api import faults, operators, quotas, versions
from nacre.network.api.actions import AddressGroupActions, SubnetpoolActions
from nacre.network.api.bindings import Bindings
from nacre.network.api.forwardings import Forwardings
from nacre.network.api.qos import QosActions
from nacre.network.api.resource import Controller, Store
from nacre.network.api.routers import RouterActions
from nacre.network.api.tags import TAGGED, Tags
from nacre.network.api.topologies import Topologies
from nacre.network.api.trunks import TrunkActions
from nacre.network.l2.networks import Networks
from nacre.network.l2.ranges import SegmentRanges
from nacre.network.l2.segments import Segments
from nacre.network.l2.trunks import Trunks
from nacre.network.l3.floatingips import FloatingIps
from nacre.network.l3.routers import Routers
from nacre.network.manager import NetworkManager
from nacre.network.policies import refused
from nacre.network.ports import Ports
from nacre.network.sharing.rbac import RbacPolicies
from nacre.network.traffic.default_rules import DefaultRules
from nacre.network.traffic.qos import QosPolicies
from nacre.network.traffic.security_groups import DefaultGroups, SecurityGroupRules, SecurityGroups

PREFIX = "/network"

#: Resources that are only made and deleted.
FIXED = ("security_group_rule", "default_security_group_rule")
#: Resources that every project has some of.
DEFAULTED = ("security_group", "security_group_rule")

class Actions(Protocol):
    """What a resource does besides."""

    def routes(self) -> list[Route]: ...


#: Resources with actions beside the five verbs.
ACTIONS: dict[str, Callable[[NetworkManager, Controller], Actions]] = {
    "router": RouterActions, "address_group": AddressGroupActions, "subnetpool": SubnetpoolActions,
    "policy": QosActions, "trunk": TrunkActions,
}


#: What has the five verbs.
STORES: tuple[Store[Any], ...] = (
    Networks(), Subnets(), Ports(), SecurityGroups(), SecurityGroupRules(), Routers(), FloatingIps(), Subnetpools(),
    AddressScopes(), AddressGroups(), RbacPolicies(), QosPolicies(), Trunks(),
    DefaultRules(), SegmentRanges(), Segments(),
)


def service(manager: NetworkManager) -> Service:
    """Neutron's API v2.0 over the network service."""
    routes: list[Route] = []
    for store in STORES:
        resource = store.resource
        controller = Controller(manager, store, DefaultGroups if resource.name in DEFAULTED else None)
        routes += controller.routes(update=resource.name not in FIXED)
        if actions := ACTIONS.get(resource.name):
            routes += actions(manager, controller).routes()
        if resource.plural in TAGGED:
            # As in Neutron, tags are also below the plural where that is not the path.
            for path in dict.fromkeys((resource.path, resource.plural.replace("_", "-"))):
                routes += Tags(manager, controller, (resource.name, resource.plural, path)).routes()
    routes += Bindings(manager).routes() + Forwardings(manager).routes() + Topologies(manager).routes()
    routes += versions.routes(manager, [(s.resource.name, s.resource.plural) for s in STORES])
    routes += quotas.Quotas(manager).routes() + operators.Operators(manager).routes()
    return Service("network", PREFIX, routes, faults.fault, statuses=faults.STATUSES, refusal=refused)
