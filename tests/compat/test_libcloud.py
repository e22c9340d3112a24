"""Apache Libcloud, which has a client of its own for OpenStack's APIs: a server from nothing to gone."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.compat.conftest import OPENSTACK, RunningCloud

pytestmark = [pytest.mark.compat, pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_servers_life(cloud: RunningCloud) -> None:
    life = Path(__file__).with_name("libcloud_life.py")
    done = subprocess.run([OPENSTACK.with_name("python"), life, cloud.data / "clouds.yaml"], capture_output=True,
                          text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["size"] == [96, 1] and told["state"] == "running" and len(told["addresses"]) == 1
    assert "PRIVATE KEY" in told["private"] and told["keys"] == ["libcloud"]
    assert told["metadata"] == {"a": "b"} and told["groups"] == ["libcloud"]
    assert told["rule"] == [80, 81, "tcp"] and told["reboot"] is True
    assert "host=libcloud" in told["console"]
    assert told["volumes"] == told["volume"] == "Could not find specified endpoint"  # there is no volume service
    assert told["destroy"] is True and told["gone"] is True and told["left"] == [True, True]
