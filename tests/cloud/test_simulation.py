"""`nacre simulate`: one seed is one run, and what it says of a cloud can be checked by counting."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
#: Ten hosts of 15.5 GB that 200 servers crowd, some of which their hosts fail to start.
CROWDED = ("--hosts", "10", "--servers", "200", "--rate", "20", "--lifetime", "6", "--host-memory-mb", "16384",
           "--flavors", "small:2048:1:1,large:8192:4:10:0.5", "--best", "3", "--fault-rate", "0.1", "--drain")


def simulate(*options: str, hash_seed: str = "0") -> dict[str, Any]:
    """The figures, from a process of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NACRE_")}
    done = subprocess.run([sys.executable, "-m", "nacre.cli.main", "simulate", "--json", *options],
                          env={**clean, "PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": hash_seed},
                          capture_output=True, text=True, timeout=120, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_one_seed_is_one_run_but_for_real_time() -> None:
    first, again = simulate(*CROWDED, hash_seed="1"), simulate(*CROWDED, hash_seed="2")
    assert first.pop("real").keys() == again.pop("real").keys()
    assert first == again
    other = simulate(*CROWDED, "--seed", "1")
    assert {k: other[k] for k in first if k != "seed"} != {k: first[k] for k in first if k != "seed"}


def test_a_crowded_cloud_refuses_with_reasons_and_is_empty_after_a_drain() -> None:
    found = simulate(*CROWDED)
    builds = found["builds"]
    assert builds["active"] + builds["refused"] + builds["deleted_in_building"] == builds["deleted"] == 200
    assert builds["refused"] == sum(found["refusals"].values()) > 0
    assert all(why.startswith(("lack 2048 MB of memory", "lack 8192 MB of memory")) for why in found["refusals"])
    assert found["tries_again"] > 0
    assert found["decisions"] >= 200 + found["tries_again"]
    assert found["utilisation"]["memory"]["peak"] > 0.9
    assert found["over_committed_hosts"] == 0
    assert found["hosts_in_use"] == {"peak": 10, "end": 0}
    assert {used["end"] for used in found["utilisation"].values()} == {0.0}
    assert found["to_active_s"]["median"] >= 2.0  # what a host takes to start a guest
    assert found["real"]["decision_us"]["median"] > 0


@pytest.mark.parametrize(("sign", "hosts"), [("1", 1), ("-1", 8)])
def test_packing_fills_one_host_where_spreading_uses_all(sign: str, hosts: int) -> None:
    found = simulate("--hosts", "8", "--servers", "24", "--lifetime", "600", "--flavors", "tiny:512:1:1",
                     "--sign", sign)
    assert found["hosts_in_use"]["end"] == hosts
    assert found["builds"] == {"active": 24, "refused": 0, "deleted_in_building": 0, "deleted": 0}


def test_servers_with_ports() -> None:
    found = simulate("--hosts", "3", "--servers", "12", "--flavors", "tiny:512:1:1", "--ports", "--drain")
    assert found["builds"] == {"active": 12, "refused": 0, "deleted_in_building": 0, "deleted": 12}
