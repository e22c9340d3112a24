"""Metadata documents: OpenStack's names, the config drive's extras, and the EC2 tree with its listings."""

import base64
import json

from nacre.network.contract import FixedIp, NetworkFacts, PortFacts, SubnetFacts
from nacre.node.contract import GuestFacts
from nacre.node.metadata_content import listing, metadata_documents

FACTS = GuestFacts(id="7d1d6f6e-0000-4000-8000-000000000001", name="web", hostname="web.example.org", project_id="p1",
                   user_id="u1", availability_zone="nova", metadata={"role": "web"},
                   keys=(("mine", "ssh", "ssh-ed25519 AAAA me"),), user_data=base64.b64encode(b"#!/bin/sh\n").decode(),
                   admin_password="hunter2", files=(("/etc/motd", base64.b64encode(b"hello").decode()),),
                   flavor_name="m1.tiny", image_id="aabbccdd-0000-4000-8000-000000000009", security_groups=("default",))
NET = NetworkFacts(id="n1", name="net", project_id="p1", mtu=1450, network_type="vxlan", physical_network=None,
                   segmentation_id=7, subnets=(
                       SubnetFacts(id="s4", cidr="10.0.0.0/24", ip_version=4, gateway_ip="10.0.0.1", enable_dhcp=False,
                                   dns_nameservers=("9.9.9.9",), host_routes=(("192.168.0.0/16", "10.0.0.9"),)),
                       SubnetFacts(id="s6", cidr="2001:db8::/64", ip_version=6, gateway_ip="2001:db8::1",
                                   enable_dhcp=True, ipv6_address_mode="slaac")))
PORT = PortFacts(id="01234567-89ab-4000-8000-000000000003", name="", project_id="p1", network_id="n1",
                 network_name="net", device_id=FACTS.id, mac_address="fa:16:3e:00:00:01", vif_type="ovs", tag="front",
                 fixed_ips=(FixedIp(subnet_id="s4", ip_address="10.0.0.5"),
                            FixedIp(subnet_id="s6", ip_address="2001:db8::5")))


def test_the_service_never_tells_the_password_or_files():
    documents = metadata_documents(FACTS, [PORT], [NET])
    data = json.loads(documents["openstack/latest/meta_data.json"])
    assert data["uuid"] == FACTS.id and data["public_keys"] == {"mine": "ssh-ed25519 AAAA me"}
    assert data["meta"] == {"role": "web"} and data["devices"][0]["tags"] == ["front"]
    assert "admin_pass" not in data and "files" not in data
    assert all(b"hunter2" not in body for body in documents.values())


def test_the_config_drive_carries_password_files_and_seed():
    documents = metadata_documents(FACTS, [PORT], [NET], drive=True, random_seed=b"abc")
    data = json.loads(documents["openstack/2020-10-14/meta_data.json"])
    assert data["admin_pass"] == "hunter2" and data["random_seed"] == "YWJj"
    assert data["files"] == [{"path": "/etc/motd", "content_path": "/content/0000"}]
    assert documents["openstack/content/0000"] == b"hello"
    assert documents["openstack/latest/user_data"] == b"#!/bin/sh\n"
    assert json.loads(documents["ec2/latest/meta-data.json"])["instance-type"] == "m1.tiny"


def test_network_data_names_links_networks_and_services():
    data = json.loads(metadata_documents(FACTS, [PORT], [NET])["openstack/latest/network_data.json"])
    assert data["links"] == [{"id": "tap01234567-89", "vif_id": PORT.id, "type": "ovs", "mtu": None,
                              "ethernet_mac_address": "fa:16:3e:00:00:01"}]
    four, six = data["networks"]
    assert (four["type"], four["ip_address"], four["netmask"]) == ("ipv4", "10.0.0.5", "255.255.255.0")
    assert [route["gateway"] for route in four["routes"]] == ["10.0.0.1", "10.0.0.9"]
    assert six["type"] == "ipv6_slaac" and six["id"] == "network1"
    assert data["services"] == [{"type": "dns", "address": "9.9.9.9"}]


def test_listings():
    documents = metadata_documents(FACTS, [PORT], [NET])
    assert listing(documents, "openstack").split()[-1] == b"latest"
    assert b"meta_data.json" in listing(documents, "openstack/latest").split()
    assert b"public-keys/" in listing(documents, "latest/meta-data").split()
    assert listing(documents, "latest/meta-data/public-keys") == b"0=mine"
    assert listing(documents, "latest/meta-data/public-keys/0") == b"openssh-key"
    assert documents["latest/meta-data/local-ipv4"] == b"10.0.0.5"
    assert listing(documents, "nothing/here") is None
