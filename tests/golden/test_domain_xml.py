"""The domain XML of typical guests, word for word. Regenerate: NACRE_GOLDEN=write."""

import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stories.node.orders import build_order, image_facts, spawn_order

from nacre.base.errors import BuildFailed
from nacre.node.hypervisor.libvirt.disk_info import BUSES, disk_info
from nacre.node.hypervisor.libvirt.xml import Place, domain_xml
from nacre.node.names import Names

GOLDEN = Path(__file__).parent / "domains"
SERVER = "11111111-2222-4333-8444-555555555555"
PLACE = Place(folder=f"/var/lib/nacre/servers/{SERVER}", names=Names("c10d0000-0000-4000-8000-000000000001"),
              virt_type="kvm", offloads=True)


def render(place: Place = PLACE, properties: dict[str, str] | None = None, **changes: Any) -> str:
    changes.setdefault("image", image_facts(properties=properties or {}))
    order = build_order(SERVER, domain_name="instance-0000002a", **changes)
    spawn = spawn_order(order, 2)
    ports = tuple(msgspec.structs.replace(port, id=f"{i}aaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", network_id="n")
                  for i, port in enumerate(spawn.ports))
    networks = (msgspec.structs.replace(spawn.networks[0], id="n"),)
    spawn = msgspec.structs.replace(spawn, ports=ports, networks=networks)
    return domain_xml(order, spawn, disk_info(order), place)


CASES = {
    "kvm": render,
    "emulated-userspace": lambda: render(
        msgspec.structs.replace(PLACE, virt_type="qemu", offloads=False), config_drive=True, ephemeral_gb=2,
        swap_mb=64),
    "kernel": lambda: render(msgspec.structs.replace(
        PLACE, kernel=f"{PLACE.folder}/kernel", ramdisk=f"{PLACE.folder}/ramdisk")),
    "limited": lambda: render(ephemeral_gb=1, config_drive=True, disk_bandwidth=20),
    "quotas": lambda: render(extra_specs={
        "quota:disk_read_bytes_sec": "1048576", "quota:disk_write_iops_sec": "50", "quota:vif_inbound_average": "9",
        "quota:cpu_shares": "512", "quota:cpu_quota": "30000", "quota:cpu_period": "100000"}),
    "shares-and-quotas": lambda: render(
        extra_specs={"quota:disk_total_bytes_sec": "9000000", "quota:disk_write_iops_sec": "50"}, swap_mb=64,
        disk_shares=50, limit_disk_shares=100.0, directory_bandwidth=4),
    "properties": lambda: render(properties={
        "hw_disk_bus": "scsi", "hw_vif_model": "e1000", "hw_qemu_guest_agent": "yes", "hw_machine_type": "q35",
        "hw_cdrom_bus": "sata", "hw_firmware_type": "uefi"}, config_drive=True),
}


@pytest.mark.parametrize("name", CASES)
def test_domain_xml(name: str) -> None:
    text, file = CASES[name](), GOLDEN / f"{name}.xml"
    if os.environ.get("NACRE_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


@given(st.text(), st.text())
def test_no_value_becomes_markup(project: str, line: str) -> None:
    clean = "".join(c for c in project + line if c >= " " and c not in "\ufffe\uffff" and not "\ud800" <= c <= "\udfff")
    order = build_order(SERVER, image=image_facts(properties={"os_command_line": clean, "hw_machine_type": clean}))
    place = msgspec.structs.replace(PLACE, kernel="/k")
    tree = ElementTree.fromstring(domain_xml(order, spawn_order(order), disk_info(order), place))
    assert len(tree.findall("./devices/disk")) == 1 and len(tree.findall("./os/cmdline")) == 1


@given(st.sampled_from(sorted(BUSES)), st.sampled_from(sorted(BUSES)), st.integers(0, 4), st.integers(0, 9),
       st.booleans())
def test_every_disk_has_a_place_of_its_own(disk: str, cd: str, ephemeral: int, swap: int, drive: bool) -> None:
    order = build_order(SERVER, ephemeral_gb=ephemeral, swap_mb=swap, config_drive=drive,
                        image=image_facts(properties={"hw_disk_bus": disk, "hw_cdrom_bus": cd}))
    disks = disk_info(order)
    assert len({d.target for d in disks}) == len(disks) == 1 + bool(ephemeral) + bool(swap) + drive
    assert [d.file for d in disks if d.boot] == ["disk"]


def test_a_bus_that_is_not_known_is_a_clear_refusal() -> None:
    with pytest.raises(BuildFailed, match="hw_disk_bus: floppy"):
        disk_info(build_order(image=image_facts(properties={"hw_disk_bus": "floppy"})))
