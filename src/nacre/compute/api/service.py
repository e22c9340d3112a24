"""The compute API as one `Service`: every noun's routes, under /compute."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nacre.base.clock import Clock
from nacre.base.serving.inside import Asked
from nacre.base.web import OSLO_BODY, Route, Service
from nacre.compute.api import versions
from nacre.compute.api.faults import render
from nacre.compute.api.flavors import FlavorRoutes
from nacre.compute.api.hosts.aggregates import AggregateRoutes
from nacre.compute.api.hosts.hypervisors import HypervisorRoutes
from nacre.compute.api.hosts.nacre import NacreHostRoutes
from nacre.compute.api.hosts.plans import Planner, PlanRoutes
from nacre.compute.api.hosts.services import Controls, Nodes, ServiceRoutes
from nacre.compute.api.hosts.zones import ZoneRoutes
from nacre.compute.api.keypairs import KeyPairRoutes
from nacre.compute.api.microversions import Microversions
from nacre.compute.api.projects.groups import GroupRoutes
from nacre.compute.api.projects.quotas import QuotaRoutes
from nacre.compute.api.projects.usage import UsageRoutes
from nacre.compute.api.proxies.fixed_ips import FixedIpActions
from nacre.compute.api.proxies.floating_ips import FloatingIpActions
from nacre.compute.api.proxies.images import ImageRoutes
from nacre.compute.api.proxies.networks import NetworkRoutes
from nacre.compute.api.proxies.security_groups import GroupRoutes as SecurityGroupRoutes
from nacre.compute.api.servers.actions import ActionRoutes
from nacre.compute.api.servers.details import InterfaceRoutes, MetadataRoutes, TagRoutes
from nacre.compute.api.servers.finding import Finder
from nacre.compute.api.servers.history import HistoryRoutes
from nacre.compute.api.servers.limits import DEFAULTS, Limits
from nacre.compute.api.servers.rest import RestRoutes
from nacre.compute.api.servers.servers import HostFacts, ServerRoutes
from nacre.compute.catalog.aggregates import Aggregates
from nacre.compute.catalog.flavors import Flavors
from nacre.compute.catalog.keypairs import KeyPairs
from nacre.compute.catalog.quotas import Quotas
from nacre.compute.catalog.server_groups import ServerGroups
from nacre.compute.history import History
from nacre.compute.servers import Servers
from nacre.conductor.contract import Orphans, Removal
from nacre.identity.contract import Identity
from nacre.network.contract import Network
from nacre.node.contract import Node
from nacre.scheduler.contract import Hosts, Scheduler

PREFIX = "/compute"


@dataclass(frozen=True)
class Proxied:
    """The services that the proxies pass on to."""

    image: Asked
    network: Asked


@dataclass(frozen=True)
class ComputeDeps:
    """What the API speaks for."""

    identity: Identity
    clock: Clock
    servers: Servers
    history: History
    node: Callable[[str], Node]
    network: Network
    scheduler: Scheduler
    hosts: Hosts
    controls: Controls
    nodes: Nodes
    orphans: Orphans
    removal: Removal
    flavors: Flavors
    keypairs: KeyPairs
    quotas: Quotas
    aggregates: Aggregates
    groups: ServerGroups
    planner: Planner
    proxied: Proxied
    limits: Limits = DEFAULTS


def service(deps: ComputeDeps) -> Service:
    """The service to put into `App`."""
    routes = [*versions.ROUTES, *_catalog(deps), *_servers(deps), *_hosts(deps)]
    return Service("compute", PREFIX, routes, render, Microversions(), max_body=OSLO_BODY,
                   request_id_headers=("x-openstack-request-id", "x-compute-request-id"))


def _catalog(deps: ComputeDeps) -> list[Route]:
    """What servers are made of, and how much of it a project may have."""
    p = deps

    async def used(project_id: str | None, user_id: str | None) -> Mapping[str, int]:
        return {**await p.servers.used(project_id or "", user_id),
                "server_groups": len(await p.groups.of_project(project_id or ""))}

    return [
        *FlavorRoutes(p.flavors, p.identity).routes(),
        *KeyPairRoutes(p.keypairs, p.quotas).routes(),
        *QuotaRoutes(p.quotas, used, p.identity).routes(),
        *GroupRoutes(p.groups, p.quotas).routes(),
        *UsageRoutes(p.servers, p.clock).routes(),
    ]


def _servers(deps: ComputeDeps) -> list[Route]:
    servers, network = deps.servers, deps.network
    return [
        *ServerRoutes(servers, network, HostFacts(deps.scheduler, deps.hosts, deps.aggregates),
                      deps.limits).routes(),
        *ActionRoutes(servers, deps.node).routes(),
        *MetadataRoutes(servers, deps.quotas).routes(),
        *TagRoutes(servers).routes(),
        *InterfaceRoutes(servers, network).routes(),
        *HistoryRoutes(servers, deps.history).routes(),
        *RestRoutes(servers).routes(),
        *ImageRoutes(deps.proxied.image).routes(),
        *NetworkRoutes(deps.proxied.network).routes(),
        *SecurityGroupRoutes(deps.proxied.network, Finder(servers)).routes(),
        *FloatingIpActions(deps.proxied.network, Finder(servers)).routes(),
        *FixedIpActions(deps.proxied.network, Finder(servers)).routes(),
    ]


def _hosts(deps: ComputeDeps) -> list[Route]:
    """What administrators see of the hosts."""
    p = deps

    async def names() -> set[str]:
        return {host.report.host for host in await p.hosts.all()}

    return [
        *AggregateRoutes(p.aggregates, names).routes(),
        *ServiceRoutes(p.hosts, p.aggregates, p.removal, p.controls).routes(),
        *HypervisorRoutes(p.hosts, p.servers.on_hosts).routes(),
        *PlanRoutes(p.planner, p.scheduler, p.limits).routes(),
        *NacreHostRoutes(p.hosts, p.servers.on_hosts, p.orphans, p.removal, p.nodes).routes(),
        *ZoneRoutes(p.hosts, p.aggregates, p.servers.on_hosts, p.controls).routes(),
    ]
