"""Images that attack the host (rows 1 to 4 and 8 of the list of known attacks): refused, and nothing is kept."""

import fcntl
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from image_cloud import Cloud, register, send

CANARY = b"the canary sings"


class Watch:
    """Notices, by dnotify, when anybody opens or reads a file of a directory."""

    def __init__(self, directory: Path):
        self.touched = False
        self._fd = os.open(directory, os.O_RDONLY)
        self._old = signal.signal(signal.SIGIO, self._on_signal)
        fcntl.fcntl(self._fd, fcntl.F_NOTIFY, fcntl.DN_ACCESS | fcntl.DN_MODIFY | fcntl.DN_MULTISHOT)

    def _on_signal(self, *_: object) -> None:
        self.touched = True

    def close(self) -> None:
        signal.signal(signal.SIGIO, self._old)
        os.close(self._fd)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "host"
    directory.mkdir()
    path = directory / "secret"
    path.write_bytes(CANARY)
    watch = Watch(directory)
    yield path
    touched = watch.touched
    assert not touched, "somebody read the file that the image names"
    path.read_bytes()
    assert watch.touched, "the watch itself does not work"
    watch.close()


def qemu_img(*args: object) -> None:
    subprocess.run(["qemu-img", *map(str, args)], check=True, capture_output=True)


async def refused(a: httpx.AsyncClient, cloud: Cloud, data: bytes, declared: str) -> str:
    """Uploads and imports `data`; both are refused, and the image is as it was."""
    image = await register(a, disk_format=declared)
    reply = await send(a, image["id"], data)
    assert reply.status_code == 415, reply.text
    shown = (await a.get(f"/v2/images/{image['id']}")).json()
    assert (shown["status"], shown["size"], shown["checksum"]) == ("queued", None, None)
    await send(a, image["id"], data, to="stage")
    order = {"method": {"name": "glance-direct"}}
    assert (await a.post(f"/v2/images/{image['id']}/import", json=order)).status_code == 202
    await cloud.uploads.close()
    assert (await a.get(f"/v2/images/{image['id']}")).json()["status"] == "queued"
    assert (await a.get(f"/v2/images/{image['id']}/tasks")).json()["tasks"][0]["status"] == "failure"
    assert cloud.files() == []
    return reply.text


def qcow2(path: Path, size: str = "10M") -> bytearray:
    qemu_img("create", "-f", "qcow2", path, size)
    return bytearray(path.read_bytes())


async def test_row_1_qcow2_data_file(a: httpx.AsyncClient, cloud: Cloud, tmp_path: Path) -> None:
    raw = tmp_path / "data.raw"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={raw},data_file_raw=on", tmp_path / "evil", "10M")
    assert "data_file" in await refused(a, cloud, (tmp_path / "evil").read_bytes(), "qcow2")


async def test_row_1_nobody_opens_what_the_image_names(
        a: httpx.AsyncClient, cloud: Cloud, tmp_path: Path, canary: Path) -> None:
    data = qcow2(tmp_path / "plain")
    struct.pack_into(">Q", data, 72, 1 << 2)  # incompatible feature: external data file
    name = str(canary).encode()
    extension = struct.pack(">II", 0x44415441, len(name)) + name.ljust(-(-len(name) // 8) * 8, b"\0")
    header = struct.unpack_from(">I", data, 100)[0]
    data[header:header + len(extension) + 8] = extension + b"\0" * 8
    await refused(a, cloud, bytes(data), "qcow2")
    await refused(a, cloud, bytes(data), "raw")


@pytest.mark.parametrize("bit", [4, 5, 13, 63])
async def test_unknown_features(a: httpx.AsyncClient, cloud: Cloud, tmp_path: Path, bit: int) -> None:
    data = qcow2(tmp_path / "plain")
    struct.pack_into(">Q", data, 72, 1 << bit)
    await refused(a, cloud, bytes(data), "qcow2")


async def test_row_2_a_disk_image_declared_raw(a: httpx.AsyncClient, cloud: Cloud, tmp_path: Path) -> None:
    for kind in ("qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed"):
        qemu_img("create", "-f", kind, tmp_path / kind, "10M")
        for declared in ("raw", "ami", "ari", "aki"):
            said = await refused(a, cloud, (tmp_path / kind).read_bytes(), declared)
            assert "was declared" in said


async def test_row_3_vmdk_that_names_host_files(
        a: httpx.AsyncClient, cloud: Cloud, tmp_path: Path, canary: Path) -> None:
    descriptor = ('# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="{}"\n\n'
                  '# Extent description\n{}\n\nddb.adapterType = "ide"\n')
    flat = f'RW 20480 FLAT "{canary}" 0'
    for kind in ("monolithicFlat", "twoGbMaxExtentFlat", "vmfs", "custom", "monolithicSparse", "streamOptimized"):
        text = descriptor.format(kind, flat).encode()
        await refused(a, cloud, text.ljust(1024, b"\0"), "vmdk")
        await refused(a, cloud, text.ljust(1 << 20, b"\n"), "vmdk")
        await refused(a, cloud, sparse(text), "vmdk")
        await refused(a, cloud, sparse(text, capacity=0), "vmdk")
    for kind in ("monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse"):
        (tmp_path / kind).mkdir()
        qemu_img("create", "-f", "vmdk", "-o", f"subformat={kind}", tmp_path / kind / "disk.vmdk", "10M")
        await refused(a, cloud, (tmp_path / kind / "disk.vmdk").read_bytes(), "vmdk")


async def test_row_3_vmdk_that_is_almost_honest(
        a: httpx.AsyncClient, cloud: Cloud, tmp_path: Path, canary: Path) -> None:
    head = '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID={}\ncreateType="monolithicSparse"\n'
    extent = '\nRW 20480 SPARSE "disk.vmdk"\n'
    good = (head.format("ffffffff") + extent).encode()
    image = await register(a, disk_format="vmdk")
    assert (await send(a, image["id"], sparse(good))).status_code == 204
    kept = cloud.files()
    await a.delete(f"/v2/images/{image['id']}")
    assert len(kept) == 1
    parent = head.format("12345678") + f'parentFileNameHint="{canary}"\n' + extent
    assert "parent" in await refused(a, cloud, sparse(parent.encode()), "vmdk")
    relative = head.format("ffffffff") + '\nRW 20480 FLAT "secret" 0\n'
    assert "extent" in await refused(a, cloud, sparse(relative.encode()), "vmdk")
    assert "capacity" in await refused(a, cloud, sparse(good, capacity=0), "vmdk")


def sparse(descriptor: bytes, capacity: int = 20480) -> bytes:
    """A sparse extent with an embedded descriptor. capacity in sectors."""
    header = struct.pack("<4sIIQQQQIQQQB", b"KDMV", 1, 3, capacity, 128, 1, 20, 512, 21, 26, 128, 0)
    return header.ljust(512, b"\0") + descriptor.ljust(20 * 512, b"\0") + b"\0" * 65536


async def test_row_4_backing_file(a: httpx.AsyncClient, cloud: Cloud, tmp_path: Path, canary: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-u", "-F", "raw", "-b", canary, tmp_path / "overlay", "10M")
    assert "backing_file" in await refused(a, cloud, (tmp_path / "overlay").read_bytes(), "qcow2")
    data = qcow2(tmp_path / "plain")
    name = str(canary).encode()
    data[1024:1024 + len(name)] = name
    struct.pack_into(">QI", data, 8, 1024, len(name))
    await refused(a, cloud, bytes(data), "qcow2")
    struct.pack_into(">I", data, 4, 1)  # the first version of the format
    await refused(a, cloud, bytes(data), "qcow2")


async def test_row_8_the_virtual_size_is_known_before_anyone_expands_it(
        a: httpx.AsyncClient, cloud: Cloud, tmp_path: Path) -> None:
    data = qcow2(tmp_path / "bomb", "60T")
    assert len(data) < 20 << 20
    image = await register(a, disk_format="qcow2")
    assert (await send(a, image["id"], bytes(data))).status_code == 204
    from image_cloud import context_of
    facts = await cloud.images.find(context_of("a-member"), image["id"])
    assert facts.virtual_size == 60 << 40 and facts.size == len(data)
    stored = sum((cloud.directory / name).stat().st_size for name in cloud.files())
    assert stored == len(data)
    struct.pack_into(">Q", data, 24, (1 << 64) - 1)
    await a.delete(f"/v2/images/{image['id']}")
    assert "virtual size" in await refused(a, cloud, bytes(data), "qcow2")


async def test_an_aborted_upload_leaves_nothing(a: httpx.AsyncClient, cloud: Cloud) -> None:
    image = await register(a)
    sent = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, object]:
        return sent.pop(0)

    async def answer(_: object) -> None:
        return None

    await cloud.app({"type": "http", "method": "PUT", "path": f"/image/v2/images/{image['id']}/file",
                     "query_string": b"", "headers": [(b"x-auth-token", b"a-member"),
                                                      (b"content-type", b"application/octet-stream")]}, receive, answer)
    assert (await a.get(f"/v2/images/{image['id']}")).json()["status"] == "queued" and cloud.files() == []


async def test_a_shorter_body_than_announced(a: httpx.AsyncClient, cloud: Cloud) -> None:
    image = await register(a)
    reply = await a.put(f"/v2/images/{image['id']}/file", content=b"1234", headers={
        "Content-Type": "application/octet-stream", "x-openstack-image-size": "5"})
    assert reply.status_code == 400 and cloud.files() == []
    assert (await a.get(f"/v2/images/{image['id']}")).json()["status"] == "queued"
