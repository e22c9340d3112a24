"""What has to change: pure functions from what is wanted and what was last applied to ovs-ofctl's input."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from nacre.network.contract import GroupFacts, HostWiring, NetworkFacts, PortFacts
from nacre.node.ovs.flows import CLASSIFY, Flow


class DesiredWiring(msgspec.Struct, kw_only=True):
    """All that is known of what this host should wire, gathered from whole and partial answers. routed: the networks
    that are routed here, its ports' own or not."""

    ports: dict[str, PortFacts] = {}
    networks: dict[str, NetworkFacts] = {}
    groups: dict[str, GroupFacts] = {}
    routed: frozenset[str] = frozenset()

    def merge(self, wiring: HostWiring) -> "DesiredWiring":
        """With the answer taken in: a whole one replaces everything, a partial one what it speaks of."""
        old = DesiredWiring() if wiring.whole else self
        return DesiredWiring(
            routed=self.routed, ports=old.ports | {port.id: port for port in wiring.ports},
            networks=old.networks | {network.id: network for network in wiring.networks},
            groups=old.groups | {group.id: group for group in wiring.groups})

    def beside(self, ports: Iterable[PortFacts], networks: Iterable[NetworkFacts]) -> "DesiredWiring":
        """The same, with these ports and their networks where nothing else is known of them."""
        return msgspec.structs.replace(
            self, ports={port.id: port for port in ports} | self.ports,
            networks={network.id: network for network in networks} | self.networks)

    def without(self, port_ids: Iterable[str]) -> "DesiredWiring":
        """The same, these ports gone."""
        gone = set(port_ids)
        return msgspec.structs.replace(self, ports={k: v for k, v in self.ports.items() if k not in gone})

    def named(self) -> set[str]:
        """The groups that rules of these ports name."""
        mine = {group for port in self.ports.values() for group in port.security_groups}
        return {rule.remote_group for group in mine & self.groups.keys() for rule in self.groups[group].rules
                if rule.remote_group}

    def own(self) -> set[str]:
        """The networks of these ports."""
        return {port.network_id for port in self.ports.values()}

    def at(self) -> set[str]:
        """The networks of which it is known where all ports are."""
        return self.own() | self.routed

    def wiring(self, networks: Iterable[str]) -> HostWiring:
        """As one whole answer, of the networks that this host takes part in."""
        return HostWiring(whole=True, ports=tuple(self.ports.values()), groups=tuple(self.groups.values()),
                          networks=tuple(self.networks[n] for n in networks if n in self.networks))


def changes(applied: Sequence[Flow], desired: Sequence[Flow]) -> list[str]:
    """The lines of an `ovs-ofctl --bundle add-flows` input that turn one table into the other: deletions first."""
    old = {flow.key: flow for flow in applied}
    new = {flow.key: flow for flow in desired}
    lines = [f"delete_strict {key}" for key in old if key not in new]
    return lines + [f"add {flow.text}" for key, flow in new.items() if old.get(key) != flow]


def numbered(current: Mapping[str, int], networks: Iterable[str]) -> dict[str, int]:
    """This host's numbers for the networks: kept where there is one, else the lowest free from 1 on."""
    numbers = {network: current[network] for network in networks if network in current}
    taken, following = set(numbers.values()), 1
    for network in networks:
        if network in numbers:
            continue
        while following in taken:
            following += 1
        numbers[network] = following
        taken.add(following)
    return numbers


def local_networks(desired: DesiredWiring, here: Iterable[str]) -> list[str]:
    """The ids of the networks that have at least one of the ports `here`, in a stable order."""
    present = set(here)
    return sorted({port.network_id for port in desired.ports.values()
                   if port.id in present and port.network_id in desired.networks})


def beside(flows: Sequence[Flow], more: Sequence[Flow]) -> list[Flow]:
    """Both; of two with one identity, which only those for frames of a wire may have, the former counts."""
    known = {flow.key for flow in flows if flow.table == CLASSIFY}
    return [*flows, *(flow for flow in more if flow.table != CLASSIFY or flow.key not in known)]
