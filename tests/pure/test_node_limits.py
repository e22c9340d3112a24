"""What a server may use of network and disk."""

import pytest

from nacre.base.errors import BuildFailed, Refused
from nacre.node.servers.limits import MEGA, Rate, Throttle, rates, throttle
from nacre.node.tracker import Tracker
from tests.stories.node.orders import build_order


def test_novas_quotas_are_for_each_interface_and_ours_for_all_together() -> None:
    assert rates(build_order(), ["a"]) == {}
    assert rates(build_order(net_bandwidth=10), []) == {}
    assert rates(build_order(net_bandwidth=10), ["a", "b"]) == dict.fromkeys("ab", Rate(5000, 5000))
    quota = {"quota:vif_outbound_average": "125"}
    assert rates(build_order(net_bandwidth=1, extra_specs=quota), ["a", "b"]) == dict.fromkeys("ab", Rate(1000, 0))


def test_disks_share_what_the_scheduler_counted() -> None:
    assert throttle(build_order()) == Throttle()
    assert throttle(build_order(disk_bandwidth=20)) == Throttle(together=20 * MEGA)
    shares = {"disk_shares": 25, "limit_disk_shares": 100, "directory_bandwidth": 40}
    assert throttle(build_order(**shares)) == Throttle(together=10 * MEGA)
    assert throttle(build_order(disk_bandwidth=4, **shares)) == Throttle(together=4 * MEGA)
    quota = {"quota:disk_read_bytes_sec": "7", "quota:disk_total_iops_sec": "9"}
    assert throttle(build_order(disk_bandwidth=4, extra_specs=quota)) == Throttle(
        each={"read_bytes_sec": 7, "total_iops_sec": 9})


@pytest.mark.parametrize("specs", [
    {"quota:disk_read_bytes_sec": "fast"}, {"quota:disk_read_iops_sec": "-1"}, {"quota:disk_write_iops_sec": "9" * 40},
    {"quota:disk_total_bytes_sec": "1", "quota:disk_read_bytes_sec": "1"}])
def test_bad_quotas_fail_the_build_by_name(specs: dict[str, str]) -> None:
    with pytest.raises(BuildFailed, match=min(specs)):
        throttle(build_order(extra_specs=specs))
    with pytest.raises(BuildFailed, match="vif_inbound"):
        rates(build_order(extra_specs={"quota:vif_inbound_average": "x"}), ["a"])


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
    tracker.release("a")
    assert tracker.used_in("/one").disk_mb == 0


def test_bandwidth_is_held_to_its_limits() -> None:
    tracker = Tracker()
    limits = {"limit_net_bandwidth": 100.0, "limit_disk_bandwidth": 50.0}
    tracker.claim(build_order("a", net_bandwidth=60, disk_bandwidth=30, **limits))
    with pytest.raises(Refused, match="network bandwidth: 60 Mbit/s wanted, 40 Mbit/s free of 100; disk bandwidth: 30"):
        tracker.claim(build_order("b", net_bandwidth=60, disk_bandwidth=30, **limits))
    tracker.claim(build_order("c"))
