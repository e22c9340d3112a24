"""Files of a node: those that a server's folder gets, and what they tell of the host."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from nacre.node.hypervisor.libvirt.images import link
from nacre.node.hypervisor.libvirt.places import host_names


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    folder = Path("/dev/shm") / f"nacre-test-{uuid.uuid4().hex[:8]}"
    if not folder.parent.is_dir() or folder.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has one file system only")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_a_kernel_is_linked_and_copied_to_another_file_system(tmp_path: Path, elsewhere: Path) -> None:
    kernel = tmp_path / "cached"
    kernel.write_bytes(b"kernel" * 1000)
    for folder, inodes in ((tmp_path, 1), (elsewhere, 2)):
        for _ in range(2):
            link(kernel, folder / "kernel")
        assert (folder / "kernel").read_bytes() == kernel.read_bytes()
        assert len({file.stat().st_ino for file in (kernel, folder / "kernel")}) == inodes
        assert {file.name for file in folder.iterdir()} <= {"kernel", "cached"}
    assert (elsewhere / "kernel").stat().st_mode & 0o777 == 0o640


def test_a_host_keeps_the_names_of_before_while_a_server_of_before_is_on_it(tmp_path: Path) -> None:
    own, disk, cloud = tmp_path / "guests", tmp_path / "disk", "c10d0000-0000-4000-8000-000000000001"
    (own / "servers").mkdir(parents=True)
    assert host_names(cloud, own, ()).bridge == "br-int-c10d0000"
    for folder, disks in ((own / "servers", ()), (disk / "nacre-servers", (str(disk),))):
        server = folder / "one"
        server.mkdir(parents=True)
        (server / "domain.xml").write_text('<domain><source bridge="br-int" /></domain>')
        (own / "directories").write_text(f'["{disk}"]')  # a directory may be left out later, and is remembered
        for now in (disks, ()):
            assert (host_names(cloud, own, now).bridge, host_names(cloud, own, now).provider) == ("br-int", "br-ex")
        (server / "domain.xml").write_text('<domain><source bridge="br-int-c10d0000" /></domain>')
        assert host_names(cloud, own, disks).bridge == "br-int-c10d0000"
