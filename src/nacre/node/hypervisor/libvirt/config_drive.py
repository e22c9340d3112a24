"""The config drive: what a guest is told about itself, as a small ISO (label config-2)."""

import base64
import io
import os
from collections.abc import Mapping
from typing import Any

import msgspec
import pycdlib

from nacre.network.contract import NetworkFacts
from nacre.node.contract import BuildOrder, SpawnOrder
from nacre.node.metadata_content import metadata_documents

INTERFACES = "/etc/network/interfaces"
SEED_BYTES = 512


def drive_documents(order: BuildOrder, spawn: SpawnOrder) -> dict[str, bytes]:
    """Every file of the drive by its path. With `inject_network` the network's configuration is one of the files to be
    put in place by the guest."""
    guest = spawn.guest or order.guest
    if order.inject_network:
        text = base64.b64encode(interfaces_file(spawn).encode()).decode()
        guest = msgspec.structs.replace(guest, files=(*guest.files, (INTERFACES, text)))
    return metadata_documents(guest, spawn.ports, spawn.networks, drive=True, random_seed=os.urandom(SEED_BYTES))


def interfaces_file(spawn: SpawnOrder) -> str:
    """The fixed addresses in the form of Debian's /etc/network/interfaces, interfaces in the order asked for."""
    networks = {network.id: network for network in spawn.networks}
    blocks = ["auto lo\niface lo inet loopback\n"]
    for index, port in enumerate(spawn.ports):
        subnets = _subnets(networks.get(port.network_id))
        blocks.append(f"auto eth{index}\n")
        for fixed in port.fixed_ips:
            subnet = subnets.get(fixed.subnet_id)
            if subnet is None:
                continue
            length = subnet.cidr.partition("/")[2]
            lines = [f"iface eth{index} inet{'6' if subnet.ip_version == 6 else ''} static",
                     f"    address {fixed.ip_address}/{length}", f"    hwaddress ether {port.mac_address}"]
            lines += [f"    gateway {subnet.gateway_ip}"] if subnet.gateway_ip else []
            lines += [f"    dns-nameservers {' '.join(subnet.dns_nameservers)}"] if subnet.dns_nameservers else []
            blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def iso(documents: Mapping[str, bytes]) -> bytes:
    """The image's bytes: ISO 9660 with Joliet and Rock Ridge, as guests expect (ISO 9660's own names mean nothing)."""
    disc = pycdlib.PyCdlib()
    disc.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="config-2", sys_ident="LINUX")
    folders: dict[str, str] = {"": ""}
    for number, (path, body) in enumerate(sorted(documents.items())):
        folder, _, name = path.rpartition("/")
        short = _folder(disc, folders, folder)
        disc.add_fp(io.BytesIO(body), len(body), iso_path=f"{short}/F{number:07d}.;1", rr_name=name,
                    joliet_path=f"/{path}")
    out = io.BytesIO()
    disc.write_fp(out)
    disc.close()
    return out.getvalue()


def _folder(disc: Any, folders: dict[str, str], path: str) -> str:
    """The ISO 9660 path of a folder, made with all above it."""
    if path not in folders:
        above, _, name = path.rpartition("/")
        folders[path] = f"{_folder(disc, folders, above)}/D{len(folders):07d}"
        disc.add_directory(folders[path], rr_name=name, joliet_path=f"/{path}")
    return folders[path]


def _subnets(network: NetworkFacts | None) -> dict[str, Any]:
    return {subnet.id: subnet for subnet in network.subnets} if network else {}
