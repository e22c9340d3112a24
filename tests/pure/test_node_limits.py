"""What a server may use of network and disk."""

import pytest

from nacre.base.errors import BuildFailed, Refused
from nacre.node.servers.limits import MEGA, MOST, MOST_RATE, Rate, Throttle, check, processors, rates, throttle
from nacre.node.servers.tracker import Tracker
from tests.stories.node.orders import build_order


def test_novas_quotas_are_for_each_interface_and_ours_for_all_together() -> None:
    assert rates(build_order(), ["a"]) == {}
    assert rates(build_order(net_bandwidth=10), []) == {}
    assert rates(build_order(net_bandwidth=10), ["a", "b"]) == dict.fromkeys("ab", Rate(5000, 5000))
    quota = {"quota:vif_outbound_average": "125"}
    assert rates(build_order(net_bandwidth=1, extra_specs=quota), ["a", "b"]) == dict.fromkeys("ab", Rate(1000, 0))
    bursts = {"quota:vif_outbound_burst": "250", "quota:vif_inbound_burst": "9"}
    assert rates(build_order(extra_specs=quota | bursts), ["a"]) == {"a": Rate(1000, 0, 2000, 0)}
    assert rates(build_order(extra_specs=bursts), ["a"]) == {}
    # More than 32 bits would be cut to another rate, or fail the wiring of the whole host.
    assert rates(build_order(net_bandwidth=10**7), ["a"]) == {"a": Rate(MOST_RATE, MOST_RATE)}
    most = {"quota:vif_inbound_average": str(MOST), "quota:vif_inbound_burst": str(MOST)}
    assert rates(build_order(extra_specs=most), ["a"]) == {"a": Rate(0, MOST_RATE, 0, MOST_RATE)}


def test_disks_share_what_the_scheduler_counted() -> None:
    assert throttle(build_order()) == Throttle()
    assert throttle(build_order(disk_bandwidth=20)) == shared(20)
    shares = {"disk_shares": 25, "limit_disk_shares": 100, "directory_bandwidth": 40}
    assert throttle(build_order(**shares)) == shared(10)
    assert throttle(build_order(disk_bandwidth=4, **shares)) == shared(4)
    for quota, least in (("6000000", 6), ("99000000", 10)):  # the lower one wins
        assert throttle(build_order(extra_specs={"quota:disk_total_bytes_sec": quota}, **shares)) == shared(least)
    quota = {"quota:disk_read_bytes_sec": "7", "quota:disk_total_iops_sec": "9"}
    assert throttle(build_order(disk_bandwidth=4, extra_specs=quota)) == Throttle(
        limits={"read_bytes_sec": 7, "total_iops_sec": 9})
    with pytest.raises(BuildFailed, match="disk_shares cannot stand beside quota:disk_read_bytes_sec: "):
        throttle(build_order(extra_specs=quota, **shares))
    with pytest.raises(BuildFailed, match="total_iops_sec cannot stand beside quota:disk_read_iops_sec and quota"):
        throttle(build_order(extra_specs={f"quota:disk_{w}_iops_sec": "1" for w in ("total", "read", "write")}))


def shared(megabytes: int) -> Throttle:
    return Throttle(limits={"total_bytes_sec": megabytes * MEGA}, shared=True)


@pytest.mark.parametrize("specs", [
    {"quota:disk_read_bytes_sec": "fast"}, {"quota:disk_read_iops_sec": "-1"}, {"quota:disk_write_iops_sec": "9" * 40},
    {"quota:disk_total_bytes_sec": "1", "quota:disk_read_bytes_sec": "1"}])
def test_bad_quotas_fail_the_build_by_name(specs: dict[str, str]) -> None:
    with pytest.raises(BuildFailed, match=min(specs)):
        throttle(build_order(extra_specs=specs))
    for what in ("average", "burst", "peak"):
        with pytest.raises(BuildFailed, match=f"vif_inbound_{what} must be a whole number"):
            rates(build_order(extra_specs={f"quota:vif_inbound_{what}": "x"}), ["a"])


@pytest.mark.parametrize(("name", "least", "most"), [
    ("shares", 2, 262144), ("period", 1000, 10**6), ("quota", 1000, 17592186044415)])
def test_processors_have_what_the_kernel_takes(name: str, least: int, most: int) -> None:
    for value in (least, most):
        assert processors(build_order(extra_specs={f"quota:cpu_{name}": str(value)})) == {name: value}
    assert processors(build_order(extra_specs={f"quota:cpu_{name}": "0"})) == {} == processors(build_order())
    assert processors(build_order(extra_specs={"quota:cpu_quota": "-1"})) == {}
    for value in (str(least - 1), str(most + 1), "-2", "half", "²", "9" * 30):
        with pytest.raises(BuildFailed, match=f"quota:cpu_{name} must be a whole number of {least} to {most}, or 0"):
            check(build_order(extra_specs={f"quota:cpu_{name}": value}))


def test_directories_are_counted_apart() -> None:
    tracker = Tracker(["/one", "/two"])
    size = {"root_gb": 6, "limit_disk_mb": 10240.0, "disk_shares": 60, "limit_disk_shares": 100.0}
    tracker.claim(build_order("a", selected_dir="/one", **size))
    with pytest.raises(Refused, match="disk: 6144 MB wanted, 4096 MB free of 10240; disk shares: 60 wanted, 40 free"):
        tracker.claim(build_order("b", selected_dir="/one", **size))
    tracker.claim(build_order("b", selected_dir="/two", **size))
    assert (tracker.used.disk_mb, tracker.used_in("/one").disk_mb, tracker.used_in("/two").disk_shares) == (
        12288, 6144, 60)
    for place in ("", "/three"):
        with pytest.raises(Refused, match="is not one of this host's: /one, /two"):
            tracker.claim(build_order("c", selected_dir=place))
    with pytest.raises(Refused, match="no directory /one"):
        Tracker().claim(build_order("c", selected_dir="/one"))
    tracker.release("a/1")
    assert tracker.used_in("/one").disk_mb == 0


def test_bandwidth_is_held_to_its_limits() -> None:
    tracker = Tracker()
    limits = {"limit_net_bandwidth": 100.0, "limit_disk_bandwidth": 50.0}
    tracker.claim(build_order("a", net_bandwidth=60, disk_bandwidth=30, **limits))
    with pytest.raises(Refused, match="network bandwidth: 60 Mbit/s wanted, 40 Mbit/s free of 100; disk bandwidth: 30"):
        tracker.claim(build_order("b", net_bandwidth=60, disk_bandwidth=30, **limits))
    tracker.claim(build_order("c"))
