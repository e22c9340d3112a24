"""A download becomes the file that guests are built on, or is refused; by real qemu-img and the inspecting process."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nacre.base.errors import BuildFailed
from nacre.base.image_formats import Inspected
from nacre.base.shell import CommandFailed, Limits, run
from nacre.image.contract import ImageFacts
from nacre.node.hypervisor.libvirt import images, inspection
from nacre.node.hypervisor.libvirt.images import convert

MB = 1 << 20


def facts(declared: str) -> ImageFacts:
    return ImageFacts(id="image-1", name="i", owner=None, status="active", disk_format=declared,
                      container_format="bare", size=None, virtual_size=None, checksum=None, os_hash_algo=None,
                      os_hash_value=None)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where QEMU's account may write a file that is its own. Not pytest's: what is above that is closed to others again
    by each pytest that begins meanwhile."""
    with tempfile.TemporaryDirectory(prefix="nacre-conversion-", dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.parametrize(("declared", "driver"), [("qcow2", "qcow2"), ("vhd", "vpc"), ("vmdk", "vmdk")])
async def test_honest_images_pass(folder: Path, declared: str, driver: str) -> None:
    (folder / "raw").write_bytes(b"data" * MB)
    await run(["qemu-img", "convert", "-f", "raw", "-O", driver, f"{folder}/raw", f"{folder}/part"])
    await convert(folder / "part", facts(declared), folder / "made", 64 * MB)
    made = (folder / "made").read_bytes()
    assert made[:4 * MB] == b"data" * MB and not any(made[4 * MB:])


async def test_plain_data_is_looked_at_and_left_alone(folder: Path) -> None:
    (folder / "part").write_bytes(b"data" * MB)
    await convert(folder / "part", facts("raw"), folder / "made", 64 * MB)
    assert not (folder / "made").exists() and (folder / "part").stat().st_size == 4 * MB


async def test_what_is_refused_says_why(folder: Path) -> None:
    await run(["qemu-img", "create", "-q", "-f", "qcow2", f"{folder}/part", "1G"])
    with pytest.raises(BuildFailed, match=r"image image-1: .*declared"):
        await convert(folder / "part", facts("raw"), folder / "made", None)
    with pytest.raises(BuildFailed, match="virtual size of 1073741824 bytes"):
        await convert(folder / "part", facts("qcow2"), folder / "made", 64 * MB)
    assert not (folder / "made").exists()


async def test_a_parser_that_breaks_breaks_its_own_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "part").write_bytes(b"x")
    monkeypatch.setattr(inspection, "LIMITS", Limits(seconds=20, memory=1 << 20))
    with pytest.raises(BuildFailed, match="cannot be inspected"):
        await convert(folder / "part", facts("raw"), folder / "made", None)


async def test_the_inspecting_process_writes_nothing_and_starts_nobody(tmp_path: Path) -> None:
    """As it stands when it looks: a parser that was taken over could not do more."""
    code = (f"import os, sys; from {inspection.__name__} import main; from {inspection.__name__} import inspect\n"
            f"import {inspection.__name__} as i\n"
            "def evil(file, declared):\n"
            "    said = [os.geteuid()]\n"
            f"    for act in (os.fork, lambda: open('{tmp_path}/made', 'w').write('x' * 9999)):\n"
            "        try:\n"
            "            act(); said.append('done')\n"
            "        except OSError as error:\n"
            "            said.append(error.errno)\n"
            "    print(said); sys.stdout.flush(); os._exit(0)\n"
            "i.inspect = evil\n"
            "main('raw', 65534, 65534)\n")
    said = (await run([sys.executable, "-P", "-c", code], limits=inspection.LIMITS, stdin=b"")).decode()
    assert "done" not in said and (os.geteuid() or "65534" in said), said
    made = tmp_path / "made"
    assert not made.exists() or not made.stat().st_size


@pytest.mark.parametrize(("declared", "driver"), [("vhd", "vpc"), ("qcow2", "qcow2")])
async def test_a_disk_that_repeats_one_block(folder: Path, declared: str, driver: str) -> None:
    """A table whose entries all name the same place. A VHD is refused; of a qcow2 that is honest, and as large as it
    says: what does not fit its disk is refused before a byte is written."""
    part, made = folder / "part", folder / "made"
    (folder / "raw").write_bytes(b"data" * MB)
    await run(["qemu-img", "convert", "-f", "raw", "-O", driver, f"{folder}/raw", str(part)])
    await run(["qemu-img", "resize", "-q", "-f", driver, str(part), "48M"]) if driver == "qcow2" else None
    data = bytearray(part.read_bytes())
    if driver == "vpc":
        table, count = int.from_bytes(data[512 + 16:512 + 24]), int.from_bytes(data[512 + 28:512 + 32])
        data[table:table + 4 * count] = data[table:table + 4] * count
    else:
        first = int.from_bytes(data[40:48])  # the only table of the second level, of 8,192 entries
        table = int.from_bytes(data[first:first + 8]) & 0x00FFFFFFFFFFFE00
        data[table:table + 8 * 768] = data[table:table + 8] * 768
    part.write_bytes(data)
    if driver == "vpc":
        with pytest.raises(BuildFailed, match="names a block twice"):
            await convert(part, facts(declared), made, None)
    else:
        with pytest.raises(BuildFailed, match="virtual size of"):
            await convert(part, facts(declared), made, 40 * MB)
    assert not made.exists()
    if driver == "qcow2":
        await convert(part, facts(declared), made, 48 * MB)
        assert made.stat().st_size == 48 * MB and made.read_bytes()[-4:] == b"data"


async def test_a_conversion_writes_no_more_than_was_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the inspection missed: qemu-img itself may not."""
    async def deceived(*_: object) -> Inspected:
        return Inspected(format="qcow2", size=1, virtual_size=MB)

    (folder / "raw").write_bytes(b"data" * 4 * MB)
    await run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", f"{folder}/raw", f"{folder}/part"])
    monkeypatch.setattr(images, "inspect_apart", deceived)
    with pytest.raises(BuildFailed, match="cannot be converted"):
        await convert(folder / "part", facts("qcow2"), folder / "made", None)
    assert (folder / "made").stat().st_size <= MB + images.SLACK


async def test_a_file_for_standard_input(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"words")
    with (tmp_path / "in").open("rb") as file:
        assert await run(["cat"], stdin=file) == b"words"
    with pytest.raises(CommandFailed):
        await run(["false"], stdin=b"")
