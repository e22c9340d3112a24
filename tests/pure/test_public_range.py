"""Which range a public network behind a machine's address gets, and which interface may be plugged in instead."""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import Conflict
from nacre.config import KEPT_FILE, External, SettingsError, kept, kept_external
from nacre.node.routing import external, nat
from nacre.node.routing.nat import Link

FIRST = "172.24.4.0/24"


def routed(*networks: str, **more: object) -> Link:
    return Link(networks=networks, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("links", "chosen"), [
    ({}, FIRST),
    ({"eth0": routed("192.0.2.0/24", "192.0.2.2/32", default=True)}, FIRST),
    ({"nat-own": routed(FIRST)}, FIRST),  # its own link, of an earlier start
    ({"nat-other": routed(FIRST)}, "172.24.5.0/24"),
    ({"nat-other": routed(FIRST), "nat-third": routed("172.24.5.0/24")}, "172.24.6.0/24"),
    ({"eth0": routed("172.24.4.128/25")}, "172.24.5.0/24"),  # a part of it
    ({"eth0": routed("172.24.4.9/32")}, "172.24.5.0/24"),
    ({"tun0": routed("172.24.0.0/21")}, "172.24.8.0/24"),
    ({"tun0": routed("172.16.0.0/12")}, "192.168.200.0/24"),
    ({"tun0": routed("172.16.0.0/12", "192.168.0.0/16")}, "10.224.4.0/24")])
def test_the_first_range_that_the_machine_has_nothing_in(links: dict[str, Link], chosen: str) -> None:
    assert nat.choose(links, "nat-own", FIRST) == chosen


def test_a_range_that_is_kept_is_not_another(tmp_path: Path) -> None:
    taken = {"nat-other": routed(FIRST)}
    assert nat.choose(taken, "nat-own", "172.24.9.0/24", only=True) == "172.24.9.0/24"
    with pytest.raises(Conflict, match=r"172\.24\.4\.0/24.* is not free on this machine: nat-other has 172\.24\.4"):
        nat.choose(taken, "nat-own", FIRST, only=True)
    everything = {"tun0": routed("172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/8")}
    with pytest.raises(Conflict, match="NACRE_NETWORK_PUBLIC_CIDR"):
        nat.choose(everything, "nat-own", FIRST)


networks = st.builds(lambda address, length: str(ipaddress.IPv4Network((address, length), strict=False)),
                     st.sampled_from(["172.24", "192.168", "10.224"]).flatmap(lambda start: st.integers(0, 65535).map(
                         lambda rest: f"{start}.{rest // 256}.{rest % 256}")), st.integers(20, 32))


@given(st.dictionaries(st.sampled_from(["eth0", "tun0", "nat-other"]), st.builds(Link, networks=st.lists(
    networks, max_size=8).map(tuple))))
def test_nothing_of_the_machine_is_in_what_is_chosen(links: dict[str, Link]) -> None:
    chosen = ipaddress.IPv4Network(nat.choose(links, "nat-own", FIRST))
    assert not [n for link in links.values() for n in link.networks if chosen.overlaps(ipaddress.IPv4Network(n))]


def test_the_machine_has_the_first_address() -> None:
    assert nat.gateway(FIRST) == "172.24.4.1" and nat.gateway("203.0.113.16/28") == "203.0.113.17"


@pytest.mark.parametrize(("text", "why"), [
    ("2001:db8::/64", "one of IPv4"), ("172.24.4.1/24", "host bits"), ("", "IPv4"), ("10.0.0.0/30", "/8 to /28"),
    ("0.0.0.0/0", "/8 to /28"), ("169.254.4.0/24", "is link-local")])
def test_a_range_that_is_none_is_refused(text: str, why: str) -> None:
    with pytest.raises(Conflict, match="network.public_cidr: .*" + why):
        nat.range_of(text)


@pytest.mark.parametrize(("link", "why"), [
    (Link(), ""), (Link(kind="vlan", up=True), ""), (Link(bridge="br-ex-c10d0000"), ""),
    (Link(default=True), "own way to everywhere"), (Link(addresses=("192.0.2.2/24",)), "has the address 192.0.2.2/24"),
    (Link(default=True, addresses=("192.0.2.2/24",)), "own way"), (Link(bridge="br0"), "a port of br0: take it out"),
    (Link(bridge="ovs-system"), "a port of ovs-system"), (Link(loopback=True), "no network card"),
    (Link(kind="bridge"), "no network card"), (Link(kind="tun"), "no network card")])
def test_an_interface_that_the_machine_needs_is_refused(link: Link, why: str) -> None:
    said = nat.unfit({"eth1": link, "lo": Link(loopback=True)}, "eth1", "br-ex-c10d0000")
    assert why in said and bool(said) is bool(why)


def test_an_interface_that_is_not_there_is_refused_with_those_that_are() -> None:
    said = nat.unfit({"eth1": Link(), "lo": Link()}, "eth9", "b")
    assert said == "there is no interface eth9 here; there are: eth1, lo"


@pytest.mark.parametrize(("text", "found"), [
    ("", External()), ('{"port": 9999}', External()),
    ('{"external": {"kind": "nat", "cidr": "172.24.5.0/24"}}', External(kind="nat", cidr="172.24.5.0/24")),
    ('{"external": {"kind": "interface", "interface": "eth1"}}', External(kind="interface", interface="eth1"))])
def test_what_was_chosen_counts_for_later_starts(tmp_path: Path, text: str, found: External) -> None:
    (tmp_path / KEPT_FILE).write_text(text)
    assert kept_external(tmp_path) == found and "external" not in kept(tmp_path)


@pytest.mark.parametrize("text", ['{"external": {"kind": "ipsec"}}', '{"external": 3}', '{"external": {"cidr": 3}}'])
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / KEPT_FILE).write_text(text)
    with pytest.raises(SettingsError, match=r"kept\.json is not as"):
        kept_external(tmp_path)


class Ways:
    """Interfaces of a machine, and who needs them to forward; in a folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **forwarding: int):
        self.conf, self.users = folder / "conf", folder / "forwarding"
        monkeypatch.setattr(external, "_CONF", self.conf)
        monkeypatch.setattr(external, "FORWARDING", self.users)
        for way, value in forwarding.items():
            (self.conf / way).mkdir(parents=True)
            self.set(way, value)

    def set(self, way: str, value: int) -> None:
        (self.conf / way / "forwarding").write_text(str(value))

    def now(self) -> dict[str, str]:
        return {each.name: (each / "forwarding").read_text() for each in sorted(self.conf.iterdir())}


def test_who_forwards_goes_by_the_last_cloud_that_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Ways(tmp_path, monkeypatch, all=0, eth0=0, eth1=1)
    assert external._open("one", ["eth0", "eth1"]) == ["eth0"] == external._open("two", ["eth0", "eth1"])
    assert external._open("one", []) == ["eth0"]  # no default route for a moment
    assert external._release("one", ()) == [] and ways.now() == {"all": "0", "eth0": "1", "eth1": "1"}
    assert external._open("two", ["eth1"]) == [] and ways.now() == {"all": "0", "eth0": "0", "eth1": "1"}
    assert external._release("two", ()) == [] and not ways.users.exists()


def test_an_interface_that_no_cloud_holds_is_the_machines_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process ended before it wrote its name, or after it took it away."""
    ways = Ways(tmp_path, monkeypatch, all=0, eth0=1, eth1=0)
    for way in ("eth0", "eth1"):
        (ways.users / way).mkdir(parents=True)
    assert external._open("one", ["eth0", "eth1"]) == ["eth1"]
    assert external._release("one", ()) == ["eth1"] and ways.now() == {"all": "0", "eth0": "1", "eth1": "0"}
    assert not ways.users.exists()


def test_who_is_killed_while_it_gives_back_leaves_nothing_that_forwards(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Ways(tmp_path, monkeypatch, all=0, eth0=0)
    external._open("one", ["eth0"])
    with monkeypatch.context() as killed:
        killed.setattr(Path, "rmdir", lambda path: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            external._release("one", ())
    assert ways.now()["eth0"] == "0" and external._release("one", ()) == [] and not ways.users.exists()
