"""The network API as one service: the routes of every resource."""

from typing import Any

from nacre.base.web import Route, Service
from nacre.network.addresses.address_groups import AddressGroups
from nacre.network.addresses.subnetpools import AddressScopes, Subnetpools
from nacre.network.addresses.subnets import Subnets
from nacre.network.api import faults, operators, quotas, versions
from nacre.network.api.actions import AddressGroupActions, SubnetpoolActions
from nacre.network.api.bindings import Bindings
from nacre.network.api.resource import Controller, Store
from nacre.network.api.routers import RouterActions
from nacre.network.api.tags import TAGGED, Tags
from nacre.network.l3.floatingips import FloatingIps
from nacre.network.l3.routers import Routers
from nacre.network.manager import NetworkManager
from nacre.network.networks import Networks
from nacre.network.policies import refused
from nacre.network.ports import Ports
from nacre.network.security_groups import DefaultGroups, SecurityGroupRules, SecurityGroups
from nacre.network.sharing.rbac import RbacPolicies

PREFIX = "/network"

#: Resources that every project has some of.
DEFAULTED = ("security_group", "security_group_rule")
#: Resources with actions beside the five verbs.
ACTIONS: dict[str, type[RouterActions] | type[AddressGroupActions] | type[SubnetpoolActions]] = {
    "router": RouterActions, "address_group": AddressGroupActions, "subnetpool": SubnetpoolActions,
}


#: What has the five verbs.
STORES: tuple[Store[Any], ...] = (
    Networks(), Subnets(), Ports(), SecurityGroups(), SecurityGroupRules(), Routers(), FloatingIps(), Subnetpools(),
    AddressScopes(), AddressGroups(), RbacPolicies(),
)


def service(manager: NetworkManager) -> Service:
    """Neutron's API v2.0 over the network service."""
    routes: list[Route] = []
    for store in STORES:
        resource = store.resource
        controller = Controller(manager, store, DefaultGroups if resource.name in DEFAULTED else None)
        routes += controller.routes(update=resource.name not in ("security_group_rule",))
        if actions := ACTIONS.get(resource.name):
            routes += actions(manager, controller).routes()
        if resource.plural in TAGGED:
            routes += Tags(manager, controller, (resource.name, resource.plural, resource.path)).routes()
    routes += Bindings(manager).routes()
    routes += versions.routes([(s.resource.name, s.resource.plural) for s in STORES])
    routes += quotas.Quotas(manager).routes() + operators.Operators(manager).routes()
    return Service("network", PREFIX, routes, faults.fault, statuses=faults.STATUSES, refusal=refused)
