"""dnsmasq's files as reviewed text (NACRE_GOLDEN=write rewrites them), and what may never get into them."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import NacreError
from nacre.network.contract import FixedIp, NetworkFacts, PortFacts, SubnetFacts
from nacre.node.dhcp.config import DhcpSettings, Unsafe, dnsmasq_conf, host_files, port_options
from nacre.node.dhcp.server import Dhcp

HERE = Path(__file__).parent / "dhcp"
SETTINGS = DhcpSettings(directory=Path("/run/nacre/dhcp"))
FOUR = SubnetFacts(id="s4", cidr="10.0.0.0/24", ip_version=4, gateway_ip="10.0.0.1", enable_dhcp=True,
                   dhcp_ip="10.0.0.2", dns_nameservers=("9.9.9.9", "1.1.1.1"),
                   host_routes=(("192.168.0.0/16", "10.0.0.9"),))
LONE = SubnetFacts(id="lone", cidr="10.1.0.0/24", ip_version=4, gateway_ip=None, enable_dhcp=True, dhcp_ip="10.1.0.2")
OFF = SubnetFacts(id="off", cidr="10.2.0.0/24", ip_version=4, gateway_ip="10.2.0.1", enable_dhcp=False)


def six(name, mode, ra):
    return SubnetFacts(id=name, cidr="2001:db8::/64", ip_version=6, gateway_ip="2001:db8::1", enable_dhcp=True,
                       dhcp_ip="2001:db8::2", ipv6_address_mode=mode, ipv6_ra_mode=ra, dns_nameservers=("2620:fe::fe",))


def network(*subnets, **more):
    return NetworkFacts(**{"id": "n1", "name": "n", "project_id": "p", "mtu": 1450, "network_type": "vxlan",
                           "physical_network": None, "segmentation_id": 1, "subnets": subnets,
                           "dhcp_mac": "fa:16:3e:00:00:fe"} | more)


def port(*addresses, **more):
    return PortFacts(**{"id": "p1", "name": "", "project_id": "p", "network_id": "n1", "network_name": "n",
                        "device_id": "d", "mac_address": "fa:16:3e:00:00:05",
                        "fixed_ips": tuple(FixedIp(subnet_id=s, ip_address=a) for s, a in addresses)} | more)


CASES = {
    "four": (network(FOUR, dns_domain="example.org."),
             [port(("s4", "10.0.0.5"), dhcp_options=(("ntp-server", "10.0.0.3", 4), ("150", "10.0.0.4", 4)))]),
    "no-gateway": (network(LONE, OFF, dns_domain="bad\ndomain"),
                   [port(("lone", "10.1.0.5"), ("off", "10.2.0.5"),
                         dhcp_options=(("a b", "x", 4), ("mtu", "1\n2", 4)))]),
    "stateful": (network(FOUR, six("s6", "dhcpv6-stateful", "dhcpv6-stateful")),
                 [port(("s4", "10.0.0.5"), ("s6", "2001:db8::5"), dhcp_options=(("ntp-server", "[2001:db8::7]", 6),))]),
    "slaac": (network(six("s6", "slaac", "slaac")), [port(("s6", "2001:db8::5"))]),
    "stateless": (network(six("s6", "dhcpv6-stateless", "dhcpv6-stateless")), [port(("s6", "2001:db8::5"))]),
    "external-router": (network(six("s6", "slaac", None)), [port(("s6", "2001:db8::5"))]),
}


@pytest.mark.parametrize("name", CASES)
def test_files(name):
    net, ports = CASES[name]
    files = {"conf": dnsmasq_conf(net, SETTINGS)} | host_files(net, ports, SETTINGS)
    text = "".join(f"== {path}\n{body}" for path, body in files.items())
    path = HERE / f"{name}.txt"
    if os.environ.get("NACRE_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@given(st.text(), st.text())
def test_no_string_of_a_user_makes_a_second_line(name, value):
    lines = port_options(port(("s4", "10.0.0.5"), dhcp_options=((name, value, 4),)))
    assert lines.count("\n") <= 1 and all(" " <= c <= "~" for c in lines.rstrip("\n"))
    conf = dnsmasq_conf(network(FOUR, dns_domain=value), SETTINGS)
    assert conf.count("\n") == dnsmasq_conf(network(FOUR), SETTINGS).count("\n")


@pytest.mark.parametrize("bad", [
    network(msgspec.structs.replace(FOUR, id="s\ndhcp-script=/bin/evil")), network(FOUR, mtu="1\nconf-file=/etc/x"),
    network(FOUR, id="n\nlog-facility=/etc/x")])
def test_no_line_of_the_main_file_is_anothers(bad):
    with pytest.raises(Unsafe):
        dnsmasq_conf(bad, SETTINGS)


def test_no_file_is_written_elsewhere_for_a_port():
    assert set(host_files(network(FOUR), [port(("s4", "10.0.0.5"), id="../../../etc/x")], SETTINGS)) == {"opts/network"}


@pytest.mark.parametrize("id", ["../../etc", "/etc", "", ".hidden", "a/b"])
async def test_no_folder_is_made_elsewhere_for_a_network(id, tmp_path):
    server = Dhcp(DhcpSettings(directory=tmp_path / "dhcp"))
    with pytest.raises(NacreError, match="no network's id"):
        await server.serve(network(FOUR, id=id), [port(("s4", "10.0.0.5"), network_id=id)], "namespace")
    assert list(tmp_path.iterdir()) == []
