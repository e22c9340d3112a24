"""The nftables rules of a public network behind a machine's address, whole. After a wanted change: run with
NACRE_GOLDEN=write and look at the diff. nft reads them where it is installed (root)."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nacre.node.routing import nat

GOLDEN = Path(__file__).parent / "nat"
#: name -> interfaces that forward only since clouds need it.
CASES: dict[str, tuple[str, ...]] = {"own_forwarding": (), "one_way": ("eth0",), "two_ways": ("wg0", "eth0")}


def text(name: str) -> str:
    return nat.rules("nacre_nat_c10d0000", "nat-c10d0000", "172.24.4.0/24", CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_the_rules_are_these(name: str) -> None:
    golden = GOLDEN / f"{name}.nft"
    if os.environ.get("NACRE_GOLDEN") == "write":
        golden.write_text(text(name))
    assert text(name) == golden.read_text()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="needs root, nft")
@pytest.mark.parametrize("name", CASES)
def test_nft_reads_them(name: str) -> None:
    """In a network namespace of its own; twice, and the table's end twice."""
    for given in (text(name), text(name), nat.none("nacre_nat_c10d0000"), nat.none("nacre_nat_c10d0000")):
        done = subprocess.run(["unshare", "--net", "nft", "-c", "-f", "-"], input=given, capture_output=True, text=True,
                              timeout=20, check=False)
        assert done.returncode == 0, done.stderr
