"""Tempest and the plugins of Keystone and Neutron, on the fake hypervisor: every module for what Nacre has passes."""

import os
import re
import string
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.compat.conftest import ROOT, RunningCloud

pytestmark = [pytest.mark.compat, pytest.mark.slow, pytest.mark.timeout(3600)]

TEMPEST = ROOT / ".venv-tempest" / "bin" / "tempest"
HERE = Path(__file__).parent / "tempest"


def config(cloud: RunningCloud, folder: Path) -> Path:
    """tempest.conf for the cloud, with two images and the defaults of networks made for it."""
    auth = yaml.safe_load((cloud.data / "clouds.yaml").read_text())["clouds"]["nacre"]["auth"]
    (folder / "logs").mkdir()
    disk = folder / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    images = [cloud.openstack("image", "create", name, "--public", "--disk-format", "raw", "--file", str(disk),
                              "-f", "json", cloud="nacre")["id"] for name in ("one", "two")]
    [public] = cloud.openstack("network", "list", "--external", "-f", "json", cloud="nacre")
    # What "a network" for a server that names none is made of.
    cloud.openstack("network", "set", "--external", "--default", public["ID"], cloud="nacre")
    cloud.openstack("subnet", "pool", "create", "--default", "--share", "--pool-prefix", "10.200.0.0/16",
                    "--default-prefix-length", "24", "v4", cloud="nacre")
    made = folder / "tempest.conf"
    made.write_text(string.Template((HERE / "tempest.conf").read_text()).substitute(
        folder=folder, password=auth["password"], auth_url=auth["auth_url"], image=images[0], other_image=images[1],
        public=public["ID"]))
    return made


def test_every_module_for_what_is_there_passes(cloud: RunningCloud, tmp_path: Path) -> None:
    where, environ = tmp_path / "workspace", {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([TEMPEST, "init", where], env=environ, check=True, capture_output=True, timeout=120)
    done = subprocess.run(
        [TEMPEST, "run", "--config-file", config(cloud, tmp_path), "--include-list", HERE / "modules.txt", "-w", "2"],
        cwd=where, env=environ, capture_output=True, text=True, timeout=3000, check=False)
    counts = {kind: int(n) for kind, n in re.findall(r"- (Passed|Failed|Skipped): (\d+)", done.stdout)}
    failed = re.findall(r"^\{\d\} (\S.*?) .*FAILED$", done.stdout, re.M)
    assert counts, done.stdout[-3000:] + done.stderr[-3000:]
    assert not failed and counts["Failed"] == 0, (counts, failed)
    assert counts["Passed"] > 400, counts
