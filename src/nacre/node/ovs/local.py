"""What every network with guests here gets on this host: a namespace with DHCP and metadata."""

import ipaddress
from collections.abc import Iterable, Sequence

import structlog

from nacre.network.contract import NetworkFacts, PortFacts
from nacre.node.dhcp.server import Dhcp
from nacre.node.metadata import ADDRESSES, Metadata
from nacre.node.names import Names
from nacre.node.netns import Namespaces, Place
from nacre.node.ovs.bridge import Bridge
from nacre.node.ovs.ovsdb import NETWORK

log = structlog.get_logger()


class LocalNetworks:
    """Keeps the namespaces, DHCP servers and metadata sockets of a host."""

    def __init__(self, namespaces: Namespaces, dhcp: Dhcp, metadata: Metadata):
        self.namespaces, self.dhcp, self.metadata = namespaces, dhcp, metadata
        self._served: dict[str, tuple[NetworkFacts, tuple[PortFacts, ...]]] = {}
        self._adopted = False
        #: Networks that could not be served in the last round, with the reason.
        self.failed: dict[str, str] = {}

    async def serve(self, networks: Sequence[NetworkFacts], ports: Sequence[PortFacts], bridge: Bridge) -> None:
        """DHCP and metadata are ready for these ports; networks that are not named are served no longer."""
        self.metadata.know(ports, networks)
        wanted = {network.id: network for network in networks if served(network)}
        await self._leave(wanted, bridge)
        self.failed = {}
        for network in wanted.values():
            mine = tuple(port for port in ports if port.network_id == network.id)
            if self._served.get(network.id) == (network, mine) and await self._alive(network.id):
                continue
            try:
                await self._serve(network, mine, bridge)
            except Exception as error:  # one network's trouble is not the others'
                log.error("network without DHCP and metadata", network=network.id, why=repr(error))
                self._served.pop(network.id, None)
                self.failed[network.id] = str(error)

    async def sound(self) -> bool:
        """Is everything that should be served, served? False calls for another round."""
        return not self.failed and all([await self._alive(network_id) for network_id in list(self._served)])

    async def close(self) -> None:
        """Sockets are closed; namespaces and DHCP servers stay for the next start."""
        await self.metadata.close()

    async def forget(self, bridge: Bridge) -> None:
        """Takes everything away (decommissioning)."""
        await self._leave({}, bridge)

    async def _alive(self, network_id: str) -> bool:
        network, _ = self._served[network_id]
        dhcp = not any(subnet.enable_dhcp for subnet in network.subnets) or await self.dhcp.running(network_id)
        return dhcp and network_id in self.metadata.serving

    async def _serve(self, network: NetworkFacts, ports: tuple[PortFacts, ...], bridge: Bridge) -> None:
        place = wanted_place(network, self.namespaces.names)
        if await self.namespaces.ensure(place):
            await bridge.detach(place.outer)  # a veth of the same name before it would stay on the bridge, dead
            await self.metadata.stop(network.id)
            await self.dhcp.stop(network.id)
        await bridge.attach(place.outer, {NETWORK: network.id})
        if any(subnet.enable_dhcp for subnet in network.subnets):
            await self.dhcp.serve(network, ports, place.namespace)
        await self.metadata.serve(network.id, place.namespace)
        self._served[network.id] = (network, ports)

    async def _leave(self, wanted: Iterable[str], bridge: Bridge) -> None:
        gone = {network_id for network_id in self._served if network_id not in wanted}
        if not self._adopted:  # leftovers of a former run
            found = {*await self.dhcp.known(), *await self.namespaces.networks(), *await bridge.networks()}
            gone |= found.difference(wanted)
        for network_id in gone:
            await self.metadata.stop(network_id)
            await self.dhcp.stop(network_id)
            await bridge.detach(self.namespaces.names.veth(network_id))
            await self.namespaces.remove(network_id)
            self._served.pop(network_id, None)
        self._adopted = True


def served(network: NetworkFacts) -> bool:
    """Does the network have a DHCP port (and with it metadata)?"""
    return bool(network.dhcp_mac) and any(subnet.dhcp_ip for subnet in network.subnets)


def wanted_place(network: NetworkFacts, names: Names) -> Place:
    """The namespace of a network: the DHCP port's addresses and the metadata service's."""
    addresses = [f"{subnet.dhcp_ip}/{ipaddress.ip_network(subnet.cidr, strict=False).prefixlen}"
                 for subnet in network.subnets if subnet.dhcp_ip]
    four, six = ADDRESSES
    return Place(namespace=names.namespace(network.id), outer=names.veth(network.id), mac=network.dhcp_mac or "",
                 mtu=network.mtu, addresses=(*addresses, f"{four}/32", f"{six}/64"))
