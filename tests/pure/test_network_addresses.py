"""The choice of addresses: always inside, never taken, never the gateway."""

import ipaddress
import random

import netaddr
from hypothesis import given
from hypothesis import strategies as st

from nacre.network.addresses import ipam
from nacre.network.addresses.subnetpools import _free

v4 = st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 30)).map(
    lambda x: str(ipaddress.ip_network((x[0], x[1]), strict=False)))


@given(v4)
def test_default_pools_hold_every_usable_address_but_the_gateway(cidr):
    gateway = ipam.default_gateway(cidr)
    pools = ipam.default_pools(cidr, gateway)
    assert ipam.size(pools) == ipaddress.ip_network(cidr).num_addresses - 3
    assert all(ipam.usable(p["start"], cidr) and ipam.usable(p["end"], cidr) for p in pools)
    assert gateway not in {p[e] for p in pools for e in p}


@given(v4, st.integers())
def test_candidates_are_inside_and_different(cidr, seed):
    pools = ipam.default_pools(cidr, ipam.default_gateway(cidr))
    found = ipam.candidates(pools, 4, random.Random(seed), 8)
    assert found and len(set(found)) == len(found)
    assert all(ipaddress.ip_address(a) in ipaddress.ip_network(cidr) for a in found)


def test_a_walk_goes_through_all_pools_once():
    pools = [*ipam.default_pools("10.0.0.0/29", "10.0.0.3"), {"start": "10.0.1.9", "end": "10.0.1.9"}]
    assert list(ipam.walk(pools, 4)) == ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.1.9"]


def test_huge_ipv6_pools_cost_nothing():
    pools = ipam.default_pools("2001:db8::/64", "2001:db8::1")
    assert len(ipam.candidates(pools, 6, random.Random(1), 8)) == 8
    assert next(ipam.walk(pools, 6)) == "2001:db8::2"


def test_a_gateway_outside_the_subnet_costs_no_address():
    assert ipam.default_pools("10.0.0.0/30", None) == [{"start": "10.0.0.1", "end": "10.0.0.2"}]
    assert ipam.default_pools("10.0.0.0/30", "192.0.2.1") == [{"start": "10.0.0.1", "end": "10.0.0.2"}]
    assert ipam.default_pools("10.0.0.5/32", "10.0.0.5") == []


@given(st.binary(min_size=6, max_size=6))
def test_eui64_flips_one_bit_and_keeps_the_prefix(raw):
    mac = ":".join(f"{b:02x}" for b in raw)
    found = ipaddress.ip_address(ipam.eui64("2001:db8:1:2::/64", mac))
    assert found in ipaddress.ip_network("2001:db8:1:2::/64")
    assert int(found).to_bytes(16, "big")[11:13] == b"\xff\xfe"
    assert int(found).to_bytes(16, "big")[8] == raw[0] ^ 2


@given(st.lists(st.tuples(st.integers(0, 1023), st.integers(24, 32)), max_size=12), st.integers(25, 31))
def test_a_pool_offers_every_network_that_is_free_lowest_first(taken, length):
    busy = [str(ipaddress.ip_network((0x0A000000 + at, bits), strict=False)) for at, bits in taken]
    prefixes = ["10.0.0.0/23", "10.0.2.0/24"]
    every = [str(n) for p in prefixes for n in ipaddress.ip_network(p).subnets(new_prefix=length)]
    assert list(_free(prefixes, length, busy)) == [n for n in every if not ipam.overlap(n, busy)]


CIDRS = st.lists(st.tuples(st.integers(0, 1023), st.integers(24, 32)).map(
    lambda net: str(ipaddress.ip_network((0x0A000000 + net[0], net[1]), strict=False))), max_size=12)


@given(CIDRS, CIDRS)
def test_spans_are_sets_of_addresses(has, gone):
    ours, theirs = ipam.merged(has), ipam.merged(gone)
    wanted = netaddr.IPSet(has) - netaddr.IPSet(gone)
    assert list(ipam.networks(ipam.without(ours, theirs), 4)) == [str(n) for n in wanted.iter_cidrs()]
    assert list(ipam.networks(ours, 4)) == [str(n) for n in netaddr.IPSet(has).iter_cidrs()]
    assert [c for c in has if ipam.covers(theirs, ipam.span(c))] == [
        c for c in has if netaddr.IPSet([c]).issubset(netaddr.IPSet(gone))]
    assert [c for c in has if ipam.meets(theirs, ipam.span(c))] == [
        c for c in has if not netaddr.IPSet([c]).isdisjoint(netaddr.IPSet(gone))]


def test_spans_of_both_versions():
    assert ipam.span("0.0.0.0/0") == (0, (1 << 32) - 1) and ipam.span("::/0") == (0, (1 << 128) - 1)
    assert list(ipam.networks(ipam.merged(["2001:db8::/33", "2001:db8:8000::/33"]), 6)) == ["2001:db8::/32"]
