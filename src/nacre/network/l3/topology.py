"""What a project gets that asks for "a network": one with a subnet of each default pool, behind a router to the default
external network. It is made at once, or not at all."""

from nacre.base.errors import Conflict
from nacre.network import tables as t
from nacre.network.addresses.subnets import Subnets
from nacre.network.l2.networks import Networks
from nacre.network.l3 import interfaces
from nacre.network.l3.routers import Routers
from nacre.network.nouns.address import SubnetPool
from nacre.network.nouns.network import NETWORK, Network
from nacre.network.nouns.router import ROUTER, Router, Topology
from nacre.network.nouns.subnet import SUBNET
from nacre.network.sharing import access
from nacre.network.work import Work, conflict


def required(work: Work) -> tuple[str, list[SubnetPool]]:
    """The default external network and the default subnet pools. Raises Conflict: the operator named none."""
    network = work.first(Network, external=True, is_default=True)
    if network is None:
        raise _failure("No default router:external network")
    pools = work.search(SubnetPool, access.visible(work, t.subnetpools, "subnetpool"), t.subnetpools.c.is_default,
                        order=("ip_version",))
    if not pools:
        raise _failure("No default subnetpools defined")
    return network.id, pools


def of(work: Work, project_id: str) -> str | None:
    """The project's network that was made so."""
    found = work.first(Topology, project_id=project_id)
    return found.network_id if found else None


def ensure(work: Work, project_id: str) -> str:
    """As `of`; it is made where it is not there. Raises Conflict, QuotaExceeded."""
    if found := of(work, project_id):
        return found
    external, pools = required(work)
    owner = {"project_id": project_id}
    network = Networks().create(work, NETWORK.parse_create({"name": "auto_allocated_network", **owner}, work.context))
    subnets = [Subnets().create(work, SUBNET.parse_create({
        "name": f"auto_allocated_subnet_v{pool.ip_version}", "network_id": network["id"], "subnetpool_id": pool.id,
        "ip_version": pool.ip_version, **owner}, work.context)) for pool in pools]
    made = Routers().create(work, ROUTER.parse_create({
        "name": "auto_allocated_router", "external_gateway_info": {"network_id": external}, **owner}, work.context))
    for subnet in subnets:
        interfaces.add(work, work.select(Router, id=made["id"])[0], {"subnet_id": subnet["id"]})
    work.add(Topology(project_id=project_id, network_id=network["id"], router_id=made["id"]))
    return str(network["id"])


def drop(work: Work, project_id: str) -> None:
    """All of it is gone, also where some was taken apart. Raises Conflict: something still uses it."""
    topology = work.first(Topology, project_id=project_id)
    if topology is None:
        return
    for router in work.select(Router, id=topology.router_id):
        for subnet_id in interfaces.joined(work, router.id, topology.network_id):
            interfaces.remove(work, router, {"subnet_id": subnet_id})
        Routers().delete(work, work.select(Router, id=router.id)[0])
    work.conn.execute(t.topologies.delete().where(t.topologies.c.project_id == project_id))
    for network in work.select(Network, id=topology.network_id):
        Networks().delete(work, network)


def _failure(reason: str) -> Conflict:
    return conflict("AutoAllocationFailure", f"Deployment error: {reason}.")
