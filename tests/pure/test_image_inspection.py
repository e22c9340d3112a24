"""The inspector: honest images pass with the right virtual size, evil ones do not, and no bytes make it crash."""

import contextlib
import random
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.base.errors import UnsupportedMedia
from nacre.base.image_formats import DISK_FORMATS, SLICE, Inspected, Inspector, inspect_file

MB = 1 << 20
#: What qemu-img calls the formats that it can make.
MADE = {"qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi", "vhdx": "vhdx", "vhd": "vpc"}


def verdict(data: bytes, declared: str, container: str = "bare", cut: int = 1 << 20) -> Inspected:
    inspector = Inspector(declared, container)
    for start in range(0, len(data), cut):
        inspector.feed(data[start:start + cut])
    return inspector.finish()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """An honest, small image of 10 MB of each format."""
    made = {}
    for name, kind in MADE.items():
        path = tmp_path_factory.mktemp("made") / name
        subprocess.run(["qemu-img", "create", "-q", "-f", kind, path, "10M"], check=True)
        made[name] = path.read_bytes()
    return made


def iso(size: int = 40 * 2048) -> bytes:
    data = bytearray(size)
    data[32768:32774] = b"\x01CD001"
    struct.pack_into("<I", data, 32768 + 80, size // 2048)
    struct.pack_into("<H", data, 32768 + 128, 2048)
    return bytes(data)


def mbr(size: int = MB) -> bytes:
    data = bytearray(size)
    data[446:462] = struct.pack("<B3BB3BII", 0x80, 0, 2, 0, 0x83, 0, 0, 0, 2048, 1000)
    data[510:512] = b"\x55\xaa"
    return bytes(data)


@pytest.mark.parametrize("declared", sorted(MADE))
@pytest.mark.parametrize("cut", [1 << 20, 777])
def test_honest_images_pass(images: dict[str, bytes], declared: str, cut: int) -> None:
    found = verdict(images[declared], declared, cut=cut)
    assert found.format == declared and found.size == len(images[declared])
    assert 10 * MB <= (found.virtual_size or 0) < 10 * MB + 65536 * 4


def test_a_stream_optimized_vmdk_passes(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(random.Random(2).randbytes(MB))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized",
                    tmp_path / "raw", tmp_path / "vmdk"], check=True)
    data = (tmp_path / "vmdk").read_bytes()
    assert verdict(data, "vmdk").virtual_size == MB
    footer = bytearray(data)
    struct.pack_into("<Q", footer, len(data) - 1024 + 12, 1 << 40)
    if footer[len(data) - 1024:len(data) - 1020] == b"KDMV":
        with pytest.raises(UnsupportedMedia, match="capacities"):
            verdict(bytes(footer), "vmdk")


@pytest.mark.parametrize("declared", sorted(set(DISK_FORMATS) - {"iso"}))
@pytest.mark.parametrize("really", sorted(MADE))
def test_a_false_name_is_refused(images: dict[str, bytes], declared: str, really: str) -> None:
    if declared != really:
        with pytest.raises(UnsupportedMedia, match="was declared"):
            verdict(images[really], declared)


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * MB, mbr(), random.Random(1).randbytes(3 * MB), b"text\n" * 1000])
def test_plain_data_is_raw_and_nothing_else(data: bytes) -> None:
    assert verdict(data, "raw") == Inspected(format="raw", size=len(data), virtual_size=len(data))
    assert verdict(data, "aki").virtual_size is None
    for declared in (*MADE, "iso"):
        with pytest.raises(UnsupportedMedia):
            verdict(data, declared)


def test_iso() -> None:
    assert verdict(iso(), "iso").virtual_size == 40 * 2048
    bootable = bytearray(iso())
    bootable[:512] = mbr()[:512]
    assert verdict(bytes(bootable), "iso").format == "iso"
    for declared in ("raw", "qcow2"):
        with pytest.raises(UnsupportedMedia):
            verdict(iso(), declared)


@pytest.mark.parametrize("magic", [b"QFI\xfb", b"KDMV", b"QED\x00", b"# Disk DescriptorFile", b"COWD", b"LUKS\xba\xbe"])
@pytest.mark.parametrize("length", [0, 20, 500, 100_000])
def test_a_signature_alone_makes_data_not_plain(magic: bytes, length: int) -> None:
    for declared in ("raw", "ami", "ari", "aki"):
        with pytest.raises(UnsupportedMedia):
            verdict(magic + b"\0" * length, declared)


def test_two_formats_at_once(images: dict[str, bytes]) -> None:
    both = bytearray(images["qcow2"])
    both[32768:32768 + 2048] = iso()[32768:32768 + 2048]
    for declared in ("qcow2", "iso"):
        with pytest.raises(UnsupportedMedia):
            verdict(bytes(both), declared)


def test_archives_hide_no_disk(images: dict[str, bytes]) -> None:
    assert verdict(b"tar" * 1000, "vmdk", "ova").virtual_size is None
    with pytest.raises(UnsupportedMedia):
        verdict(images["qcow2"], "qcow2", "ova")
    with pytest.raises(UnsupportedMedia):
        verdict(images["qcow2"], "raw", "docker")


def test_files_are_read_no_further_than_needed(tmp_path: Path, images: dict[str, bytes]) -> None:
    path = tmp_path / "image"
    path.write_bytes(images["qcow2"])
    assert inspect_file(str(path), "qcow2") == verdict(images["qcow2"], "qcow2")
    with pytest.raises(UnsupportedMedia):
        inspect_file(str(path), "raw")
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert inspect_file(str(path), "raw").size == 1 << 40


def test_a_virtual_size_beyond_reason(images: dict[str, bytes]) -> None:
    data = bytearray(images["qcow2"])
    struct.pack_into(">Q", data, 24, 1 << 63)
    with pytest.raises(UnsupportedMedia, match="virtual size"):
        verdict(bytes(data), "qcow2")
    struct.pack_into(">Q", data, 24, 1 << 50)
    assert verdict(bytes(data), "qcow2").virtual_size == 1 << 50


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_broken_headers_are_refused_or_taken_but_never_crash(data: st.DataObject, images: dict[str, bytes]) -> None:
    really = data.draw(st.sampled_from(sorted(MADE)))
    declared = data.draw(st.sampled_from(sorted(DISK_FORMATS)))
    broken = bytearray(images[really][:data.draw(st.integers(0, 300_000))])
    for _ in range(data.draw(st.integers(0, 8))):
        if broken:
            broken[data.draw(st.integers(0, min(len(broken), 1024) - 1))] = data.draw(st.integers(0, 255))
    try:
        verdict(bytes(broken), declared, cut=data.draw(st.sampled_from([1000, SLICE, MB])))
    except UnsupportedMedia as error:
        assert len(error.message) < 1000


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000), st.sampled_from(sorted(DISK_FORMATS)))
def test_any_bytes(data: bytes, declared: str) -> None:
    with contextlib.suppress(UnsupportedMedia):
        assert verdict(data, declared).size == len(data)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(MADE)), st.integers(1, 200_000))
def test_the_cut_of_the_stream_changes_nothing(images: dict[str, bytes], really: str, cut: int) -> None:
    data = images[really][:1_000_000]
    outcomes = []
    for size in (cut, MB):
        try:
            outcomes.append(str(verdict(data, really, cut=max(size, len(data) // 500 + 1))))
        except UnsupportedMedia as error:
            outcomes.append(error.message)
    assert outcomes[0] == outcomes[1]


def dynamic_vhd(blocks: int, tmp_path: Path) -> tuple[Path, int]:
    """An honest one with so many blocks of 2 MB, all full, and where its table lies."""
    (tmp_path / "raw").write_bytes(random.Random(3).randbytes(blocks * 2 * MB))
    made = tmp_path / "vhd"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vpc", tmp_path / "raw", made], check=True)
    data = made.read_bytes()
    return made, int.from_bytes(data[512 + 16:512 + 24])


def test_a_vhd_does_not_name_a_block_twice(tmp_path: Path) -> None:
    vhd, table = dynamic_vhd(3, tmp_path)
    assert inspect_file(str(vhd), "vhd").virtual_size
    data = bytearray(vhd.read_bytes())
    data[table + 4:table + 8] = data[table:table + 4]
    vhd.write_bytes(data)
    with pytest.raises(UnsupportedMedia, match="twice"):
        inspect_file(str(vhd), "vhd")


def test_a_small_vhd_does_not_become_a_full_disk(tmp_path: Path) -> None:
    """A file of little more than its table, whose 1,500 blocks all lie in the same place: 3 GB, if written out."""
    vhd, table = dynamic_vhd(1, tmp_path)
    data = bytearray(vhd.read_bytes()[:1 << 20])
    data[512 + 28:512 + 32] = (1500).to_bytes(4)
    data[table:table + 6000] = (table // 512).to_bytes(4) * 1500
    vhd.write_bytes(data)
    with pytest.raises(UnsupportedMedia, match="twice"):
        inspect_file(str(vhd), "vhd")
    for at in range(1500):
        data[table + 4 * at:table + 4 * at + 4] = (at + 1).to_bytes(4)
    vhd.write_bytes(data)
    with pytest.raises(UnsupportedMedia, match="more blocks than there are"):
        inspect_file(str(vhd), "vhd")


@pytest.mark.parametrize(("at", "value"), [(512 + 28, 1 << 31), (512 + 28, 1 << 20), (512 + 32, 0), (512, 0)])
def test_a_vhd_whose_header_lies(tmp_path: Path, at: int, value: int) -> None:
    vhd, _ = dynamic_vhd(1, tmp_path)
    data = bytearray(vhd.read_bytes()[:1 << 20])
    data[at:at + 4] = value.to_bytes(4)
    vhd.write_bytes(data)
    with pytest.raises(UnsupportedMedia, match="cannot be read"):
        inspect_file(str(vhd), "vhd")
