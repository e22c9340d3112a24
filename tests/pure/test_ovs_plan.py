"""What the agent knows and what changes: merging answers, numbering networks, the seal's rules, places, listeners."""

import subprocess
import sys
import time

from hypothesis import given
from hypothesis import strategies as st

from nacre.network.contract import (
    GroupFacts,
    HostWiring,
    NetworkFacts,
    PortFacts,
    SubnetFacts,
)
from nacre.node.names import Names
from nacre.node.ovs.flows import Flow
from nacre.node.ovs.local import served, wanted_place
from nacre.node.ovs.plan import DesiredWiring, changes, local_networks, numbered
from nacre.node.ovs.seal import ruleset
from nacre.node.ovs.service import alive


def port(name, network="n"):
    return PortFacts(id=name, name="", project_id="p", network_id=network, network_name="", device_id="d",
                     mac_address="fa:16:3e:00:00:01", fixed_ips=())


def network(name="n", **more):
    return NetworkFacts(**{"id": name, "name": name, "project_id": "p", "mtu": 1450, "network_type": "local",
                           "physical_network": None, "segmentation_id": None} | more)


FIRST = DesiredWiring().merge(HostWiring(
    whole=True, ports=(port("a"), port("b", "m")), networks=(network(), network("m")),
    groups=(GroupFacts(id="g", stateful=True, rules=()),)))


def test_a_partial_answer_replaces_what_it_speaks_of():
    after = FIRST.merge(HostWiring(whole=False, ports=(port("c"),), networks=(network(mtu=9000),)))
    assert set(after.ports) == {"a", "b", "c"} and after.networks["n"].mtu == 9000 and set(after.groups) == {"g"}


def test_a_whole_answer_replaces_everything():
    after = FIRST.merge(HostWiring(whole=True, ports=(port("c"),), networks=(network(),)))
    assert set(after.ports) == {"c"} and set(after.networks) == {"n"}


def test_ports_go_and_their_networks_with_them():
    assert local_networks(FIRST, ["a", "b", "stranger"]) == ["m", "n"]
    assert local_networks(FIRST.without(["b"]), ["a", "b"]) == ["n"]
    assert [n.id for n in FIRST.wiring(["n"]).networks] == ["n"]


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 9)), st.lists(st.text(max_size=3), unique=True, max_size=9))
def test_numbers_are_kept_and_never_shared(current, networks):
    current = {name: number for name, number in current.items()
               if list(current.values()).count(number) == 1}
    numbers = numbered(current, networks)
    assert set(numbers) == set(networks) and len(set(numbers.values())) == len(networks)
    assert all(numbers[name] == current[name] for name in networks if name in current)


flows = st.lists(st.builds(Flow, st.integers(0, 2), st.integers(0, 2), st.sampled_from(["ip", "arp"]),
                           st.sampled_from(["drop", "output:1"])), unique_by=lambda f: f.key)


@given(flows, flows)
def test_changes_lead_from_one_table_to_the_other(old, new):
    table = {flow.key: flow.text for flow in old}
    for line in changes(old, new):
        verb, _, rest = line.partition(" ")
        if verb == "delete_strict":
            del table[rest]
        else:
            table[rest.partition(",")[2].rpartition(",actions=")[0]] = rest
    assert table == {flow.key: flow.text for flow in new}


def test_the_seal_names_each_link_once():
    text = ruleset("nacre_c10d0000", ["tapb", "tapa"])
    assert text.startswith("table netdev nacre_c10d0000\ndelete table netdev nacre_c10d0000\n")
    assert text.count("policy drop") == 2 and 'device "tapa"' in text
    assert "policy" not in ruleset("nacre_c10d0000", [])


def test_the_place_of_a_network():
    subnet = SubnetFacts(id="s", cidr="10.0.0.0/22", ip_version=4, gateway_ip=None, enable_dhcp=True,
                         dhcp_ip="10.0.0.2")
    net = network(subnets=(subnet,), dhcp_mac="fa:16:3e:00:00:fe")
    assert served(net) and not served(network(subnets=(subnet,))) and not served(network(dhcp_mac="x"))
    place = wanted_place(net, Names("c10d0000-0000-4000-8000-000000000001"))
    assert place.addresses == ("10.0.0.2/22", "169.254.169.254/32", "fe80::a9fe:a9fe/64")
    assert (place.namespace, place.outer[:9]) == ("nacre-c10d0000-n", "dc10d0000")


def test_a_zombie_is_not_alive():
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as child:
        child.stdout.read()
        for _ in range(100):
            if not alive(child.pid):
                break
            time.sleep(0.02)
        assert not alive(child.pid) and child.returncode is None
    assert not alive(2**22 + 1)
