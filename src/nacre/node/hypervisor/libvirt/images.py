"""Disks: made by qemu-img, which runs as QEMU's own account with limits and is always told the format.

Folders belong to root and qemu-img gets files that are there already, so the account that guests run as can never
put a link where root writes.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from nacre.base.errors import BuildFailed, UnsupportedMedia
from nacre.base.image_formats import PLAIN
from nacre.base.shell import CommandFailed, Limits, run
from nacre.image.contract import ImageFacts
from nacre.node.hypervisor.libvirt.disk_info import Disk
from nacre.node.hypervisor.libvirt.inspection import inspect_apart
from nacre.node.hypervisor.libvirt.service import qemu_account

log = structlog.get_logger()

CONVERT = Limits(seconds=1800, cpu=1800, memory=2 << 30)
#: A disk's last block may be padded (bytes).
SLACK = 1 << 20
CREATE = Limits(seconds=30, memory=1 << 30)
#: qemu-img's names of our formats, where they differ.
DRIVERS = {"vhd": "vpc", "ami": "raw", "aki": "raw", "ari": "raw", "iso": "raw"}


def check_size(image: ImageFacts, virtual_size: int | None, largest: int | None) -> None:
    """Raises BuildFailed: the image is larger than the disk it is for (bytes; None: as large as the image)."""
    if virtual_size is not None and largest and virtual_size > largest:
        raise BuildFailed(f"image {image.id} has a virtual size of {virtual_size} bytes, but the flavor's disk has "
                          f"{largest} bytes", type="ImageTooLarge")


async def convert(download: Path, image: ImageFacts, to: Path, largest: int | None) -> None:
    """A checked download into a raw file that guests may be built on; plain data is left where it is. Raises
    BuildFailed: it is not what it was declared to be, or not safe to open."""
    declared = image.disk_format or "raw"
    name, uid, gid = qemu_account()
    try:
        inspected = await inspect_apart(download, declared, (uid, gid))
    except (UnsupportedMedia, BuildFailed) as error:
        raise BuildFailed(f"image {image.id}: {error.message}", type="ImageRefused") from error
    check_size(image, inspected.virtual_size, largest)
    if image.virtual_size and inspected.virtual_size and inspected.virtual_size != image.virtual_size:
        raise BuildFailed(f"image {image.id}: its virtual size is {inspected.virtual_size} bytes and not "
                          f"{image.virtual_size}", type="ImageRefused")
    _readable(download, gid)
    if declared in PLAIN or declared == "iso":
        return
    _own(to, uid, gid)
    size = inspected.virtual_size or 0
    try:
        await run(["qemu-img", "convert", "-f", DRIVERS.get(declared, declared), "-O", "raw", "-t", "writeback",
                   str(download), str(to)], limits=msgspec.structs.replace(CONVERT, file=size + SLACK), user=name)
    except CommandFailed as error:
        raise BuildFailed(f"image {image.id} cannot be converted: {error.message}", type="ImageRefused") from error
    made = os.stat(to).st_size
    if not size <= made <= size + SLACK:
        raise BuildFailed(f"image {image.id}: {made} bytes became of it, and it said {size}", type="ImageRefused")
    _readable(to, gid)


async def make_disk(folder: Path, disk: Disk, base: Path | None) -> None:
    """An empty disk, or an overlay of a raw base. What is there already is left alone."""
    file = folder / disk.file
    if file.exists():
        return
    name, uid, gid = qemu_account()
    made = folder / f"{disk.file}.new"
    _own(made, uid, gid)
    backing = ["-F", "raw", "-b", str(base)] if base is not None else []
    size = [str(disk.size)] if disk.size else []
    if not size and not backing:
        raise BuildFailed(f"{disk.file} has no size")
    try:
        await run(["qemu-img", "create", "-q", "-f", disk.format, *backing, str(made), *size], limits=CREATE, user=name)
        await _fill(made, disk, name)
    except CommandFailed as error:
        raise BuildFailed(f"{disk.file} cannot be made: {error.message}") from error
    made.rename(file)


async def _fill(made: Path, disk: Disk, name: str | None) -> None:
    """Swap space is marked as such, where the tool is there; an ephemeral disk is left to the guest to format."""
    tool = shutil.which("mkswap", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if disk.file == "disk.swap" and tool:
        await run([tool, "-L", "swap", str(made)], limits=CREATE, user=name)


def write_file(file: Path, data: bytes) -> None:
    """A file of ours that QEMU may read, whole or not at all."""
    with _whole(file) as out:
        out.write(data)


def link(source: Path, target: Path) -> None:
    """A kernel in the server's own folder: it stays when the cache drops its image. Copied to another file system."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with source.open("rb") as data, _whole(target) as out:
            shutil.copyfileobj(data, out)


@contextmanager
def _whole(file: Path) -> Iterator[BinaryIO]:
    _, _, gid = qemu_account()
    made = file.with_name(file.name + ".new")
    made.unlink(missing_ok=True)
    fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
    with os.fdopen(fd, "wb") as out:
        os.fchown(fd, -1 if os.geteuid() else 0, gid)
        yield out
    made.rename(file)


def _readable(file: Path, gid: int) -> None:
    """Ours again, and QEMU's account may read it."""
    os.chown(file, os.geteuid(), gid)
    file.chmod(0o640)


def _own(file: Path, uid: int, gid: int) -> None:
    """An empty file for qemu-img to fill, belonging to its account."""
    file.unlink(missing_ok=True)
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.fchown(fd, uid, gid)
    finally:
        os.close(fd)
