"""A whole cloud in real processes, for clients that are not ours. The fake hypervisor: no root, no guests."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nacre.cli.supervisor import free_port

ROOT = Path(__file__).parents[2]
OPENSTACK = ROOT / ".venv-compat" / "bin" / "openstack"


@dataclass
class RunningCloud:
    """A cloud started with `nacre up -d`."""

    data: Path
    port: int

    def nacre(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "nacre.cli.main", *args, "--data", str(self.data)],
                              capture_output=True, text=True, timeout=120, check=check, env={
                                  **os.environ, "PYTHONPATH": str(ROOT / "src")})

    def openstack(self, *args: str, cloud: str = "demo") -> Any:
        """What the `openstack` command answers, as JSON where it can. Raises with its words when it fails."""
        answer = subprocess.run(
            [str(OPENSTACK), "--os-cloud", cloud, *args], capture_output=True, text=True, timeout=120,
            check=False, env={"PATH": os.environ["PATH"], "HOME": str(self.data),
                              "OS_CLIENT_CONFIG_FILE": str(self.data / "clouds.yaml")})
        if answer.returncode:
            raise RuntimeError(f"openstack {' '.join(args)}: {answer.stderr.strip() or answer.stdout.strip()}")
        try:
            return json.loads(answer.stdout)
        except ValueError:
            return answer.stdout


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    running = RunningCloud(tmp_path_factory.mktemp("cloud"), free_port())
    up = running.nacre("up", "-d", "--hypervisor", "fake", "--port", str(running.port), check=False)
    assert up.returncode == 0, up.stderr + up.stdout
    try:
        yield running
    finally:
        running.nacre("down", check=False)
