"""The real `openstack` command does the main job, unchanged."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.compat.conftest import ROOT, RunningCloud

pytestmark = [pytest.mark.compat, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def image(cloud: RunningCloud, tmp_path_factory: pytest.TempPathFactory) -> str:
    disk: Path = tmp_path_factory.mktemp("image") / "disk.raw"
    disk.write_bytes(b"\0" * (1 << 20))
    made = cloud.openstack("image", "create", "-f", "json", "--disk-format", "raw", "--file", str(disk), "little")
    assert made["status"] == "active"
    return str(made["id"])


def test_a_server_from_nothing_to_gone(cloud: RunningCloud, image: str) -> None:
    os_ = cloud.openstack
    net = os_("network", "create", "-f", "json", "blue")
    os_("subnet", "create", "-f", "json", "--network", "blue", "--subnet-range", "192.0.2.0/24", "blue4")
    os_("security", "group", "create", "-f", "json", "web")
    rule = os_("security", "group", "rule", "create", "-f", "json", "--protocol", "tcp", "--dst-port", "80:81", "web")
    assert (rule["port_range_min"], rule["port_range_max"]) == (80, 81)
    key = os_("keypair", "create", "one")
    assert "PRIVATE KEY" in key
    server = os_("server", "create", "-f", "json", "--image", image, "--flavor", "m1.nano", "--network", "blue",
                 "--security-group", "web", "--key-name", "one", "--property", "a=b", "--wait", "first")
    assert server["status"] == "ACTIVE"
    ports = os_("port", "list", "-f", "json", "--server", server["id"])
    assert len(ports) == 1
    assert ports[0]["Status"] == "ACTIVE"
    port = os_("port", "show", "-f", "json", ports[0]["ID"])
    assert port["network_id"] == net["id"]
    assert port["device_owner"].startswith("compute:")
    shown = os_("server", "show", "-f", "json", "first")
    assert shown["addresses"]["blue"] == [port["fixed_ips"][0]["ip_address"]]
    assert shown["properties"] == {"a": "b"}
    listed = os_("server", "list", "-f", "json", "--name", "first")
    assert [x["ID"] for x in listed] == [server["id"]]
    events = os_("server", "event", "list", "-f", "json", "first")
    assert [x["Action"] for x in events] == ["create"]
    os_("server", "stop", "first")
    os_("server", "set", "--name", "renamed", server["id"])
    os_("server", "delete", "--wait", server["id"])
    assert os_("port", "list", "-f", "json", "--network", "blue") == [] or all(
        p["device_owner"] == "network:dhcp" for p in (os_("port", "show", "-f", "json", x["ID"])
                                                      for x in os_("port", "list", "-f", "json", "--network", "blue")))
    os_("network", "delete", "blue")
    os_("security", "group", "delete", "web")
    os_("keypair", "delete", "one")


def test_the_commands_of_the_readme_work_as_printed(cloud: RunningCloud) -> None:
    """In a cloud that was only started: what they name is there."""
    block = re.search(r"## Every day\n\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    commands = [shlex.split(line, comments=True) for line in block[1].splitlines()]
    (create,) = [words for words in commands if words[0] == "openstack"]
    assert create[:2] == ["openstack", "--os-cloud"]
    assert re.search(r"status\s*\|\s*ACTIVE", cloud.openstack(*create[3:], cloud=create[2]))
    ran = {words[1]: cloud.nacre(*words[1:]).stdout for words in commands
           if words[0] == "./nacre" and words[1] in ("trace", "plan", "status", "host", "token", "keys")}
    assert set(ran) == {"trace", "plan", "status", "host", "token", "keys"}
    assert "host.boot" in ran["trace"] and "would be placed" in ran["plan"]


def test_the_words_of_our_own_commands(cloud: RunningCloud) -> None:
    for name in ("nosuch", "a(b", "a/b"):
        said = cloud.nacre("trace", name, check=False)
        assert said.returncode and said.stderr.strip() == (
            f"nacre: There is no server {name}. Those there are: openstack server list --all-projects")
    said = cloud.nacre("plan", "--flavor", "m1.tiny", "--image", "nosuch", check=False)
    assert "There is no image nosuch; there are: " in said.stderr
    said = cloud.nacre("plan", "--flavor", "m1.tiny", "--zone", "nosuch")
    assert said.stdout.splitlines() == [
        "0 of 1 would be placed",
        "why not: No valid host was found. 0 of 1 hosts fit: 1 is not in availability zone nosuch"]
    heading, *hosts = cloud.nacre("host", "list").stdout.splitlines()
    assert "memory GB" in heading and len(hosts) == 1 and "up" in hosts[0]


def test_what_cannot_be_beside_a_running_cloud_says_so(cloud: RunningCloud) -> None:
    again = cloud.nacre("up", "-d", "--port", "1", "--hypervisor", "libvirt")
    assert "was up already" in again.stderr
    assert "It runs on as it was started; for --port 1 --hypervisor libvirt: `nacre down` first." in again.stderr
    demo = cloud.nacre("demo", check=False)
    assert demo.returncode and "simulates its guests" in demo.stderr and "nacre down" in demo.stderr
    checked = json.loads(cloud.nacre("doctor", "--json", check=False).stdout)
    [port] = [each for each in checked if each["name"] == f"port {cloud.port} (the APIs)"]
    assert port["state"] == "ok" and "this cloud's" in port["detail"]


def test_services_are_found_by_their_common_names(cloud: RunningCloud) -> None:
    found = {s["Type"]: s["Name"] for s in cloud.openstack("service", "list", "-f", "json", cloud="nacre")}
    assert found == {"identity": "keystone", "image": "glance", "compute": "nova", "network": "neutron",
                     "placement": "placement"}
    times = [s["Updated At"] for s in cloud.openstack("compute", "service", "list", "-f", "json", cloud="nacre")]
    assert times and all(times), "a service without a time would be shown as None"


def test_the_administrator_sees_the_cloud(cloud: RunningCloud) -> None:
    hosts = cloud.openstack("hypervisor", "list", "-f", "json", cloud="nacre")
    assert [h["State"] for h in hosts] == ["up"]
    services = {s["Binary"] for s in cloud.openstack("compute", "service", "list", "-f", "json", cloud="nacre")}
    assert "nova-compute" in services
    agents = cloud.openstack("network", "agent", "list", "-f", "json", cloud="nacre")
    assert all(a["Alive"] for a in agents)
    assert {a["Agent Type"] for a in agents} >= {"Open vSwitch agent", "DHCP agent"}
    projects = {p["Name"] for p in cloud.openstack("project", "list", "-f", "json", cloud="nacre")}
    assert {"admin", "demo", "demo-alt"} <= projects
    assert cloud.openstack("user", "list", "-f", "json", cloud="nacre-system")


def test_another_project_sees_nothing(cloud: RunningCloud, image: str) -> None:
    cloud.openstack("server", "create", "-f", "json", "--image", image, "--flavor", "m1.nano", "--nic", "none",
                    "--wait", "private")
    assert cloud.openstack("server", "list", "-f", "json", cloud="demo-alt") == []
    with pytest.raises(RuntimeError, match=r"No Server found|could not be found|No server"):
        cloud.openstack("server", "show", "private", cloud="demo-alt")
    with pytest.raises(RuntimeError, match=r"403|not authorized|doesn't allow|No Project|Forbidden"):
        cloud.openstack("hypervisor", "list", cloud="demo-alt")
    cloud.openstack("server", "delete", "--wait", "private")


def test_why_no_host_was_found(cloud: RunningCloud, image: str) -> None:
    cloud.openstack("flavor", "create", "--ram", "9000000", "--vcpus", "1", "--disk", "1", "huge", cloud="nacre")
    with pytest.raises(RuntimeError, match="Quota exceeded for ram"):
        cloud.openstack("server", "create", "--image", image, "--flavor", "huge", "--nic", "none", "--wait", "toobig")
    cloud.openstack("quota", "set", "--ram", "-1", "demo", cloud="nacre")
    with pytest.raises(RuntimeError):
        cloud.openstack("server", "create", "--image", image, "--flavor", "huge", "--nic", "none", "--wait", "toobig")
    fault = cloud.openstack("server", "show", "-f", "json", "toobig")["fault"]
    assert "lack" in fault["message"]
    assert "memory" in fault["message"]
    cloud.openstack("server", "delete", "--wait", "toobig")
