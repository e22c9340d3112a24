"""Files that a server's folder gets."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from nacre.node.hypervisor.libvirt.images import link


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
