"""Is this data really what its owner says it is, and is it safe to open? Asked while it is uploaded, and again by a
host before it uses the image. Nothing here opens a path that the data names, and no program is started.
"""

import os
import struct
from typing import Any, BinaryIO

import msgspec
from oslo_utils.imageutils import format_inspector as oslo

from nacre.base.errors import UnsupportedMedia

#: Every name that the `disk_format` of an image may have.
DISK_FORMATS = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso")
#: Formats whose bytes have no signature of their own.
PLAIN = frozenset({"raw", "ami", "ari", "aki"})
#: Formats whose bytes are the disk, as a guest sees it.
WHOLE = frozenset({"raw", "ami"})
#: Containers whose content is an archive and not a disk.
ARCHIVES = frozenset({"ova", "docker", "compressed"})
#: The library sees these inside honest disks: a partition table in a raw disk, or in an ISO that boots from USB.
OVERLAYS = frozenset({"gpt"})
#: How the data is cut for the library, however the sender cut it: what it sees must not depend on packets.
SLICE = 64 * 1024
#: No disk is larger (bytes); also keeps the number inside a database's integer.
MAX_VIRTUAL_SIZE = 1 << 60

#: A VHD of this type has no table of blocks; no table has more (2 TB in blocks of half a megabyte).
FIXED_VHD, MOST_BLOCKS = 2, 1 << 22

#: What the formats that refer to other files begin with. A file too short or too broken for the library's parser may
#: still be opened as one of these by qemu, so the signature alone is enough to refuse it as plain data.
SIGNATURES = {
    b"QFI\xfb": "qcow2", b"QED\x00": "qed", b"KDMV": "vmdk", b"COWD": "vmdk", b"# Disk DescriptorFile": "vmdk",
    b"conectix": "vhd", b"vhdxfile": "vhdx", b"LUKS\xba\xbe": "luks", b"<<< ": "vdi", b"WithoutFreeSpace": "parallels",
    b"WithouFreSpacExt": "parallels", b"Bochs Virtual HD Image": "bochs", b"OOOM": "cow",
}


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """What the data is. Sizes in bytes; virtual_size is what a guest would see, None where that means nothing."""

    format: str
    size: int
    virtual_size: int | None


class Inspector:
    """Feed it the whole stream, then ask `finish`. Holds at most a few megabytes, whatever the headers claim."""

    def __init__(self, declared: str, container: str = "bare"):
        self._declared, self._container = declared, container
        self._live: list[Any] = [make() for name, make in oslo.ALL_FORMATS.items() if name != "raw"]
        self._buffer = bytearray()
        self._head = b""
        self._fed = self.size = 0

    @property
    def settled(self) -> bool:
        """Whether more data can change nothing."""
        return self._fed >= SLICE and all(i.complete for i in self._live)

    def feed(self, data: bytes) -> None:
        """The next bytes, in any cut."""
        self.size += len(data)
        if self.settled:
            return
        self._buffer += data
        while len(self._buffer) >= SLICE:
            self._eat(bytes(self._buffer[:SLICE]))
            del self._buffer[:SLICE]

    def finish(self) -> Inspected:
        """The verdict. Raises UnsupportedMedia: not what was declared, or not safe."""
        if self._buffer and not self.settled:
            self._eat(bytes(self._buffer))
        for inspector in self._live:
            inspector.finish()
        found = {str(i): i for i in self._live if _matches(i)}
        if self._container in ARCHIVES:
            if set(found) - OVERLAYS or self._signature():
                raise _refuse(f"a container of format {self._container} may not be a bare disk image")
            return Inspected(format=self._declared, size=self.size, virtual_size=None)
        if self._declared in PLAIN:
            return self._plain(found)
        return self._formatted(found)

    def _eat(self, piece: bytes) -> None:
        if not self._fed:
            self._head = piece[:64]
        alive = []
        for inspector in self._live:
            try:
                inspector.eat_chunk(piece)
            except Exception:  # noqa: S112 - whatever breaks a format's parser is not of that format
                continue
            if self._fed or _matches(inspector) or (str(inspector) == "iso" and len(piece) < SLICE):
                alive.append(inspector)
        self._live = alive
        self._fed += len(piece)

    def _signature(self) -> str | None:
        return next((name for magic, name in SIGNATURES.items() if self._head.startswith(magic)), None)

    def _plain(self, found: dict[str, Any]) -> Inspected:
        really = next(iter(sorted(set(found) - OVERLAYS)), None) or self._signature()
        if really:
            raise _refuse(f"disk_format {self._declared} was declared, but the data is {really}")
        return Inspected(format=self._declared, size=self.size,
                         virtual_size=self.size if self._declared in WHOLE else None)

    def _formatted(self, found: dict[str, Any]) -> Inspected:
        inspector = found.pop(self._declared, None)
        if inspector is None:
            really = next(iter(sorted(found)), None) or "raw"
            raise _refuse(f"disk_format {self._declared} was declared, but the data is {really}")
        if set(found) - OVERLAYS:
            raise _refuse(f"the data is {self._declared} and {' and '.join(sorted(found))} at once")
        try:
            inspector.safety_check()
            virtual_size = int(inspector.virtual_size)
            if self._declared == "vmdk":
                _check_vmdk(inspector)
            if self._declared == "qcow2":
                _check_qcow2(inspector)
        except (oslo.ImageFormatError, oslo.SafetyCheckFailed) as error:
            raise _refuse(f"the {self._declared} data failed its safety checks: {error}") from None
        except UnsupportedMedia:
            raise
        except Exception:
            raise _refuse(f"the {self._declared} data's header cannot be read") from None
        if not 0 <= virtual_size <= MAX_VIRTUAL_SIZE:
            raise _refuse(f"its virtual size of {virtual_size} bytes is over the limit of {MAX_VIRTUAL_SIZE}")
        return Inspected(format=self._declared, size=self.size, virtual_size=virtual_size)


def inspect_file(path: str, declared: str) -> Inspected:
    """The verdict on a file (the path is ours, never a user's). Reads what it needs. Raises UnsupportedMedia."""
    with open(path, "rb") as file:
        return inspect(file, declared)


def inspect(file: BinaryIO, declared: str) -> Inspected:
    """As `inspect_file`, of an open file."""
    inspector, size = Inspector(declared), os.fstat(file.fileno()).st_size
    if declared == "vhd":
        _check_vhd(file, size)
    while (data := file.read(1 << 20)) and not inspector.settled:
        inspector.feed(data)
    inspector.size = size
    return inspector.finish()


def _check_vhd(file: BinaryIO, size: int) -> None:
    """A dynamic disk's blocks lie each in a place of its own inside the file: else a small file becomes a large disk
    that is full. Leaves the file at its start. Raises UnsupportedMedia."""
    footer = file.read(512)
    if footer[:8] == b"conectix" and int.from_bytes(footer[60:64]) != FIXED_VHD:
        file.seek(min(int.from_bytes(footer[16:24]), size))
        header = file.read(1024)
        table, count, block = (int.from_bytes(header[at:at + long]) for at, long in ((16, 8), (28, 4), (32, 4)))
        if header[:8] != b"cxsparse" or not block or count > MOST_BLOCKS or table + 4 * count > size:
            raise _refuse("the vhd's header cannot be read")
        file.seek(table)
        used = [each for each in struct.unpack(f">{count}I", file.read(4 * count)) if each != 0xFFFFFFFF]
        if len(set(used)) != len(used) or len(used) * block > size:
            raise _refuse("the vhd's table names a block twice, or more blocks than there are")
    file.seek(0)


def _matches(inspector: Any) -> bool:
    try:
        return bool(inspector.format_match)
    except Exception:
        return False


def _check_vmdk(inspector: Any) -> None:
    """What the library lets pass and qemu would follow: a parent, extents behind a zero capacity, two capacities."""
    text = inspector.desc_text or ""
    if "parentfilenamehint" in text:
        raise _refuse("the vmdk names a parent file")
    if any(line.split(" ")[0] in {"rw", "rdonly", "noaccess"} and " sparse " not in f" {line} "
           for line in map(str.strip, text.split("\n"))):
        raise _refuse("the vmdk has an extent outside of itself")
    capacity = bytes(inspector.region("header").data[12:20])
    if not any(capacity):
        raise _refuse("the vmdk has a capacity of 0")
    if inspector.has_region("footer") and bytes(inspector.region("footer").data[524:532]) != capacity:
        raise _refuse("the vmdk's header and footer name different capacities")


def _check_qcow2(inspector: Any) -> None:
    if any(inspector.region("header").data[32:36]):
        raise _refuse("the qcow2 is encrypted, which is not supported")


def _refuse(why: str) -> UnsupportedMedia:
    return UnsupportedMedia(f"The image data is refused: {why}.", field="disk_format")
