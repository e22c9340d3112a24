"""dnsmasq's files for one network, as text. No user's string reaches them unless every character of it may."""

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from nacre.network.contract import NetworkFacts, PortFacts, SubnetFacts

log = structlog.get_logger()

METADATA = "169.254.169.254"
_NAME = re.compile(r"[a-z0-9][a-z0-9+-]{0,62}", re.IGNORECASE | re.ASCII)
_DOMAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,253}[A-Za-z0-9])?", re.ASCII)
#: What our own rendering says already: a port's own value replaces it, by the port's tag.
_FORGED = re.compile(r"[^\x20-\x7e]")


class DhcpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """directory: where each network's files are kept; all must be able to read there, and only root to write. user,
    group: whose rights the server keeps, as guests speak to it. domain: for networks without one. lease: seconds."""

    directory: Path
    user: str = "nobody"
    group: str = "nogroup"
    domain: str = "novalocal"
    lease: int = 86400
    interface: str = "dhcp0"


class Unsafe(ValueError):
    """A string that may not be written to a configuration file."""


def safe(text: str, what: str) -> str:
    """The text, if it is printable ASCII on one line. Raises Unsafe."""
    if _FORGED.search(text):
        raise Unsafe(f"{what} has characters that may not be in a configuration file")
    return text


def dnsmasq_conf(network: NetworkFacts, settings: DhcpSettings) -> str:
    """The main file."""
    home = settings.directory / network.id
    domain = network.dns_domain.rstrip(".")
    lines = [
        "no-hosts", "no-resolv", "no-poll", "bind-dynamic", "except-interface=lo", f"interface={settings.interface}",
        f"user={settings.user}", f"group={settings.group}", f"pid-file={home}/pid", f"dhcp-leasefile={home}/leases",
        f"dhcp-hostsdir={home}/hosts", f"dhcp-optsdir={home}/opts", "dhcp-authoritative", "dhcp-no-override",
        "dhcp-lease-max=65536", f"domain={domain if _DOMAIN.fullmatch(domain) else settings.domain}",
        f"dhcp-option-force=option:mtu,{network.mtu}", f"log-facility={home}/log", "quiet-dhcp", "quiet-dhcp6",
        "quiet-ra"]
    served = [subnet for subnet in network.subnets if subnet.enable_dhcp]
    lines += [line for subnet in served for line in _range(subnet, settings.lease)]
    if any(subnet.ip_version == 6 and subnet.ipv6_ra_mode for subnet in served):
        # Lifetime 0: addresses and prefixes are announced here, the way out is not.
        lines += ["enable-ra", f"ra-param={settings.interface},mtu:{network.mtu},60,0"]
    return "".join(f"{safe(line, 'a network')}\n" for line in lines)


def network_options(network: NetworkFacts) -> str:
    """The options of each subnet, by its tag."""
    lines: list[str] = []
    for subnet in network.subnets:
        if subnet.enable_dhcp:
            lines += _options_four(subnet) if subnet.ip_version == 4 else _options_six(subnet)
    return "".join(f"{safe(line, 'a subnet')}\n" for line in lines)


def host_lines(port: PortFacts, network: NetworkFacts, domain: str) -> str:
    """The port's fixed addresses, one line each; empty if DHCP gives it none."""
    subnets = {subnet.id: subnet for subnet in network.subnets if subnet.enable_dhcp}
    lines, seen = [], set()
    for fixed in port.fixed_ips:
        subnet = subnets.get(fixed.subnet_id)
        if subnet is None or subnet.id in seen or subnet.ipv6_address_mode in {"slaac", "dhcpv6-stateless"}:
            continue
        seen.add(subnet.id)
        address = ipaddress.ip_address(fixed.ip_address)
        name = "host-" + str(address).replace(".", "-").replace(":", "-").strip("-")
        shown = f"[{address}]" if address.version == 6 else str(address)
        line = f"{port.mac_address},set:{port_tag(port)},{name}.{domain},{shown}"
        lines.append(f"{safe(line, 'a port')}\n")
    return "".join(lines)


def port_options(port: PortFacts) -> str:
    """The port's extra_dhcp_opts. An option that cannot be written is skipped with a log."""
    lines = []
    for name, value, version in port.dhcp_options:
        try:
            safe(value, f"extra_dhcp_opts {name!r}")
            if not _NAME.fullmatch(name):
                raise Unsafe(f"extra_dhcp_opts has no option {name!r}")
        except Unsafe as error:
            log.warning("DHCP option skipped", port=port.id, why=str(error))
            continue
        kind = "option6" if version == 6 else "option"
        shown = f"{kind}:{name}" if version == 6 or not name.isdecimal() else name
        lines.append(f"tag:{port_tag(port)},{shown},{value}\n")
    return "".join(lines)


def host_files(network: NetworkFacts, ports: Sequence[PortFacts], settings: DhcpSettings) -> dict[str, str]:
    """Every file under the network's directory but the main one, by relative path."""
    domain = network.dns_domain.rstrip(".")
    domain = domain if _DOMAIN.fullmatch(domain) else settings.domain
    files = {"opts/network": network_options(network)}
    for port in ports:
        if port.network_id != network.id:
            continue
        try:
            if "/" in safe(port.id, "its id"):
                raise Unsafe("its id is a path")
            lines = host_lines(port, network, domain)
        except (Unsafe, ValueError) as error:
            log.warning("port without DHCP", port=port.id, why=str(error))
            continue
        if lines:
            files[f"hosts/{port.id}"] = lines
        if options := port_options(port):
            files[f"opts/{port.id}"] = options
    return files


def subnet_tag(subnet: SubnetFacts) -> str:
    return f"subnet-{subnet.id}"


def port_tag(port: PortFacts) -> str:
    return f"port-{port.id}"


def _range(subnet: SubnetFacts, lease: int) -> list[str]:
    net = ipaddress.ip_network(subnet.cidr, strict=False)
    start = f"dhcp-range=set:{subnet_tag(subnet)},{net.network_address}"
    if subnet.ip_version == 4:
        return [f"{start},static,{net.netmask},{lease}s"]
    modes = {subnet.ipv6_address_mode, subnet.ipv6_ra_mode}
    if "slaac" in modes:
        return [f"{start},ra-only,{net.prefixlen}"] if subnet.ipv6_ra_mode else []
    if "dhcpv6-stateless" in modes:
        return [f"{start},ra-stateless,{net.prefixlen}" if subnet.ipv6_ra_mode else f"{start},static,{net.prefixlen}"]
    return [f"{start},static,{net.prefixlen},{lease}s"]


def _options_four(subnet: SubnetFacts) -> list[str]:
    tag = f"tag:{subnet_tag(subnet)}"
    routes = [f"{to},{via}" for to, via in subnet.host_routes if ":" not in to]
    if subnet.dhcp_ip:
        routes.insert(0, f"{METADATA}/32,{subnet.dhcp_ip}")
    if subnet.gateway_ip:
        routes.append(f"0.0.0.0/0,{subnet.gateway_ip}")
    dns = subnet.dns_nameservers or ((subnet.dhcp_ip,) if subnet.dhcp_ip else ())
    lines = [f"{tag},option:dns-server,{','.join(dns)}"] if dns else []
    if routes:
        lines += [f"{tag},option:classless-static-route,{','.join(routes)}", f"{tag},249,{','.join(routes)}"]
    # Without a value: dnsmasq would name itself as the router.
    return [*lines, f"{tag},option:router,{subnet.gateway_ip}" if subnet.gateway_ip else f"{tag},option:router"]


def _options_six(subnet: SubnetFacts) -> list[str]:
    dns = subnet.dns_nameservers or ((subnet.dhcp_ip,) if subnet.dhcp_ip else ())
    return [f"tag:{subnet_tag(subnet)},option6:dns-server,{','.join(f'[{server}]' for server in dns)}"] if dns else []
