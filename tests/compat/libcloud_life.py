"""A server's life through Apache Libcloud, run by the Python of the clients' environment: libcloud_life.py CLOUDS-YAML.
Prints one JSON object: what each step came to."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from libcloud.common.types import LibcloudError
from libcloud.compute.base import Node
from libcloud.compute.drivers.openstack import OpenStackNodeDriver
from libcloud.compute.providers import get_driver
from libcloud.compute.types import Provider


def driver(auth: dict[str, Any]) -> OpenStackNodeDriver:
    return get_driver(Provider.OPENSTACK)(
        auth["username"], auth["password"], api_version="2.2", ex_force_auth_version="3.x_password",
        ex_force_auth_url=auth["auth_url"].removesuffix("/v3"), ex_tenant_name=auth["project_name"],
        ex_domain_name="Default", ex_force_service_region="RegionOne")


def named(many: list[Any], name: str) -> Any:
    return next(each for each in many if each.name == name)


def gone(cloud: OpenStackNodeDriver, node: Node) -> bool:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if node.id not in [each.id for each in cloud.list_nodes()]:
            return True
        time.sleep(0.5)
    return False


def refusal(call: Any) -> str:
    try:
        return f"no refusal: {call()}"
    except LibcloudError as refused:
        return str(refused.value)


def life(cloud: OpenStackNodeDriver) -> dict[str, Any]:
    size, image = named(cloud.list_sizes(), "m1.nano"), named(cloud.list_images(), "tiny")
    network = named(cloud.ex_list_networks(), "demo")
    key = cloud.create_key_pair("libcloud")
    group = cloud.ex_create_security_group("libcloud", "of a test")
    rule = cloud.ex_create_security_group_rule(group, "tcp", 80, 81, "0.0.0.0/0")
    made = cloud.create_node("libcloud", size, image, networks=[network], ex_keyname=key.name,
                             ex_security_groups=[group], ex_metadata={"a": "b"})
    [(node, addresses)] = cloud.wait_until_running([made], wait_period=1, timeout=60, ssh_interface="private_ips")
    told = {
        "size": [size.ram, size.vcpus], "private": key.private_key.splitlines()[0],
        "keys": [each.name for each in cloud.list_key_pairs()], "state": str(node.state), "addresses": addresses,
        "metadata": cloud.ex_get_metadata(node), "groups": [g.name for g in cloud.ex_get_node_security_groups(node)],
        "console": cloud.ex_get_console_output(node)["output"], "reboot": cloud.reboot_node(node),
        "rule": [rule.from_port, rule.to_port, rule.ip_protocol],
        "volumes": refusal(cloud.list_volumes), "volume": refusal(lambda: cloud.create_volume(1, "no")),
        "destroy": cloud.destroy_node(node), "gone": gone(cloud, node)}
    cloud.ex_delete_security_group_rule(rule)
    return {**told, "left": [cloud.ex_delete_security_group(group), cloud.delete_key_pair(key)]}


if __name__ == "__main__":
    print(json.dumps(life(driver(yaml.safe_load(Path(sys.argv[1]).read_text())["clouds"]["demo"]["auth"]))))
