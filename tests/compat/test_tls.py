"""The real `openstack` command over TLS, with nothing but the clouds.yaml that the cloud wrote."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nacre.cli.supervisor import free_port
from tests.compat.conftest import RunningCloud

pytestmark = [pytest.mark.compat, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    running = RunningCloud(tmp_path_factory.mktemp("encrypted"), free_port())
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("NACRE_HOST", "0.0.0.0")
        up = running.nacre("up", "-d", "--hypervisor", "fake", "--port", str(running.port), check=False)
        assert up.returncode == 0, up.stderr
        try:
            yield running
        finally:
            running.nacre("down", check=False)


def test_it_reads_and_uploads(encrypted: RunningCloud, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(range(256)) * 16384)
    made = encrypted.openstack(
        "image", "create", "-f", "json", "--disk-format", "raw", "--file", str(disk), "over-tls")
    assert made["status"] == "active" and made["size"] == 4 << 20
    encrypted.openstack("image", "save", "--file", str(tmp_path / "back.raw"), made["id"])
    assert (tmp_path / "back.raw").read_bytes() == disk.read_bytes()
    assert encrypted.openstack("server", "list", "-f", "json") == []
    urls = [e["url"] for s in encrypted.openstack("catalog", "list", "-f", "json") for e in s["Endpoints"]]
    assert urls and all(url.startswith(f"https://127.0.0.1:{encrypted.port}/") for url in urls)


def test_without_the_authority_it_refuses(encrypted: RunningCloud) -> None:
    file = encrypted.data / "clouds.yaml"
    text = file.read_text()
    file.write_text("".join(line for line in text.splitlines(True) if "cacert" not in line))
    try:
        with pytest.raises(RuntimeError, match="SSL"):
            encrypted.openstack("token", "issue")
    finally:
        file.write_text(text)
