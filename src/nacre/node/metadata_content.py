"""What a guest is told about itself, as files: the metadata service serves them, the config drive carries them."""

import base64
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from nacre.network.contract import NetworkFacts, PortFacts, SubnetFacts
from nacre.node.contract import GuestFacts

#: The dated trees under /openstack; all have the same content here, `latest` beside them.
OPENSTACK_VERSIONS = ("2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06",
                      "2017-02-22", "2018-08-27", "2020-10-14", "2025-04-04")
#: The dated trees of the EC2 metadata, beside `latest`.
EC2_VERSIONS = ("1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01",
                "2008-09-01", "2009-04-04")


def metadata_documents(facts: GuestFacts, ports: Sequence[PortFacts], networks: Sequence[NetworkFacts], *,
                       drive: bool = False, random_seed: bytes | None = None) -> dict[str, bytes]:
    """Every document by its path (no leading slash), `openstack/latest/meta_data.json` and so on.

    drive: the config drive's tree (with the administrator's password, injected files under openstack/content, and
    ec2/latest/meta-data.json) instead of the service's (with the EC2 tree at latest/meta-data/...).
    random_seed: entropy for the guest, where it is wanted.
    """
    files = _contents(facts) if drive else []
    leaves: dict[str, bytes] = {
        "meta_data.json": _json(meta_data(facts, ports, drive=drive, random_seed=random_seed)),
        "network_data.json": _json(network_data(ports, networks)),
        "vendor_data.json": b"{}",
        "vendor_data2.json": b"{}",
    }
    user_data = base64.b64decode(facts.user_data) if facts.user_data else None
    if user_data is not None:
        leaves["user_data"] = user_data
    documents = {f"openstack/{version}/{name}": body
                 for version in (*OPENSTACK_VERSIONS, "latest") for name, body in leaves.items()}
    documents |= {f"openstack{path}": body for path, body in files}
    ec2 = ec2_data(facts, ports)
    if drive:
        documents["ec2/latest/meta-data.json"] = _json(ec2)
        if user_data is not None:
            documents["ec2/latest/user-data"] = user_data
        return documents
    for version in (*EC2_VERSIONS, "latest"):
        documents |= _ec2_leaves(f"{version}/meta-data", ec2)
        if user_data is not None:
            documents[f"{version}/user-data"] = user_data
    return documents


def listing(documents: Mapping[str, bytes], path: str) -> bytes | None:
    """What is directly below `path` (no slashes around it), a name a line; None if nothing is.

    The EC2 key list is spelled `0=name`, as clients expect it."""
    prefix = f"{path}/" if path else ""
    below: dict[str, None] = {}
    for name in documents:
        if name.startswith(prefix):
            head, deeper, _ = name[len(prefix):].partition("/")
            ec2 = "meta-data" in path.split("/")
            below[f"{head}/" if deeper and ec2 else head] = None
    if path.endswith("meta-data/public-keys"):
        return documents[f"{path}/0/.name"]
    names = [name for name in below if not name.startswith(".")]
    return "\n".join(names).encode() if names else None


def meta_data(facts: GuestFacts, ports: Sequence[PortFacts], *, drive: bool = False,
              random_seed: bytes | None = None) -> dict[str, Any]:
    """meta_data.json, with OpenStack's names."""
    data: dict[str, Any] = {"uuid": facts.id}
    if drive and facts.admin_password:
        data["admin_pass"] = facts.admin_password
    if facts.metadata:
        data["meta"] = dict(facts.metadata)
    if drive and facts.files:
        data["files"] = [{"path": path, "content_path": content}
                         for (path, _), (content, _) in zip(facts.files, _contents(facts), strict=True)]
    if facts.keys:
        data["public_keys"] = {name: key for name, _, key in facts.keys}
        data["keys"] = [{"name": name, "type": kind, "data": key} for name, kind, key in facts.keys]
    data |= {"hostname": facts.hostname, "name": facts.name, "launch_index": facts.launch_index,
             "availability_zone": facts.availability_zone, "project_id": facts.project_id,
             "devices": [_device(port) for port in ports if port.tag], "dedicated_cpus": []}
    if random_seed is not None:
        data["random_seed"] = base64.b64encode(random_seed).decode()
    return data


def network_data(ports: Sequence[PortFacts], networks: Sequence[NetworkFacts]) -> dict[str, Any]:
    """network_data.json: links, networks and services, in the order of the ports."""
    by_id = {network.id: network for network in networks}
    links: list[dict[str, Any]] = []
    nets: list[dict[str, Any]] = []
    services: list[dict[str, str]] = []
    for port in sorted(ports, key=lambda p: p.position):
        network = by_id.get(port.network_id)
        if network is None or not network.subnets:
            continue
        link = f"tap{port.id[:11]}"
        served = any(subnet.enable_dhcp for subnet in network.subnets)
        links.append({"id": link, "vif_id": port.id, "type": port.vif_type if port.vif_type == "ovs" else "phy",
                      "mtu": None if served else network.mtu, "ethernet_mac_address": port.mac_address})
        for subnet, address in _first_of_each_version(port, network):
            nets.append(_net(subnet, address, link, network.id) | {"id": f"network{len(nets)}"})
            services += [dns for dns in _dns(subnet) if dns not in services]
    return {"links": links, "networks": nets, "services": services}


def ec2_data(facts: GuestFacts, ports: Sequence[PortFacts]) -> dict[str, Any]:
    """The EC2 metadata tree as nested dicts."""
    addresses = [fixed.ip_address for port in ports for fixed in port.fixed_ips if ":" not in fixed.ip_address]
    data: dict[str, Any] = {
        "ami-id": _ec2_id("ami", facts.image_id), "ami-launch-index": facts.launch_index,
        "ami-manifest-path": "FIXME", "block-device-mapping": {"ami": "vda", "root": "/dev/vda"},
        "hostname": facts.hostname, "instance-action": "none", "instance-id": _ec2_id("i", facts.id),
        "instance-type": facts.flavor_name, "local-hostname": facts.hostname,
        "local-ipv4": addresses[0] if addresses else "", "placement": {"availability-zone": facts.availability_zone},
        "public-hostname": facts.hostname, "public-ipv4": "", "reservation-id": facts.reservation_id,
        "security-groups": list(facts.security_groups)}
    if facts.keys:
        data["public-keys"] = {str(i): {"_name": f"{i}={name}", "openssh-key": key}
                               for i, (name, _, key) in enumerate(facts.keys)}
    return data


def _contents(facts: GuestFacts) -> list[tuple[str, bytes]]:
    return [(f"/content/{i:04d}", base64.b64decode(body)) for i, (_, body) in enumerate(facts.files)]


def _device(port: PortFacts) -> dict[str, Any]:
    return {"type": "nic", "bus": "none", "address": "none", "mac": port.mac_address, "tags": [port.tag]}


def _first_of_each_version(port: PortFacts, network: NetworkFacts) -> list[tuple[SubnetFacts, str]]:
    subnets = {subnet.id: subnet for subnet in network.subnets}
    found: dict[int, tuple[SubnetFacts, str]] = {}
    for fixed in port.fixed_ips:
        subnet = subnets.get(fixed.subnet_id)
        if subnet is not None:
            found.setdefault(subnet.ip_version, (subnet, fixed.ip_address))
    return [found[version] for version in sorted(found)]


def _net(subnet: SubnetFacts, address: str, link: str, network_id: str) -> dict[str, Any]:
    kind = f"ipv{subnet.ip_version}"
    if subnet.enable_dhcp and subnet.ipv6_address_mode is None:
        return {"id": "", "type": f"{kind}_dhcp", "link": link, "network_id": network_id}
    if subnet.ipv6_address_mode is not None:
        kind += f"_{subnet.ipv6_address_mode}"
    routes = [(str(ipaddress.ip_network(to, strict=False)), via) for to, via in subnet.host_routes]
    if subnet.gateway_ip:
        routes.insert(0, ("0.0.0.0/0" if subnet.ip_version == 4 else "::/0", subnet.gateway_ip))
    return {"id": "", "type": kind, "link": link, "ip_address": address,
            "netmask": str(ipaddress.ip_network(subnet.cidr, strict=False).netmask),
            "routes": [{"network": str(ipaddress.ip_network(to).network_address),
                        "netmask": str(ipaddress.ip_network(to).netmask), "gateway": via} for to, via in routes],
            "network_id": network_id, "services": _dns(subnet)}


def _dns(subnet: SubnetFacts) -> list[dict[str, str]]:
    return [{"type": "dns", "address": server} for server in subnet.dns_nameservers]


def _ec2_id(prefix: str, uuid: str) -> str:
    """EC2 ids are eight hexadecimal digits; ours are the start of the UUID."""
    digits = uuid.replace("-", "")[:8]
    return f"{prefix}-{digits or '00000000'}"


def _ec2_leaves(path: str, node: Mapping[str, Any]) -> dict[str, bytes]:
    leaves: dict[str, bytes] = {}
    for name, value in node.items():
        match value:
            case dict() if name == "public-keys":
                leaves[f"{path}/{name}/0/.name"] = "\n".join(key["_name"] for key in value.values()).encode()
                leaves |= {f"{path}/{name}/{i}/openssh-key": key["openssh-key"].encode() for i, key in value.items()}
            case dict():
                leaves |= _ec2_leaves(f"{path}/{name}", value)
            case list():
                leaves[f"{path}/{name}"] = "\n".join(value).encode()
            case _:
                leaves[f"{path}/{name}"] = str(value).encode()
    return leaves


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
