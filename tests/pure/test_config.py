"""Options: where they come from, and what is said about a wrong one."""

import os
from pathlib import Path

import pytest

from nacre.cli import up
from nacre.config import KEPT_FILE, Settings, SettingsError, kept, load, options


def settings(folder: Path, toml: str = "", **environ: str) -> Settings:
    (folder / "nacre.toml").write_text(toml)
    return load(folder, environ=environ)


def test_defaults_suffice(tmp_path: Path) -> None:
    s = load(tmp_path, environ={})
    assert s.database == f"sqlite:///{tmp_path}/control/nacre.db" and s.url == "http://127.0.0.1:8774"


def test_the_command_line_wins_over_variables_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "nacre.toml").write_text("port = 1\nregion = 'file'\n[scheduler]\nperiod = 3\nsign = 1\n")
    s = load(tmp_path, environ={"NACRE_PORT": "2", "NACRE_SCHEDULER_PERIOD": "5"}, port=3, hypervisor=None)
    assert (s.port, s.region, s.scheduler.period, s.scheduler.sign) == (3, "file", 5.0, 1)


def test_lists_and_tables_in_variables(tmp_path: Path) -> None:
    s = settings(tmp_path, NACRE_NODE_BRIDGE_MAPPINGS="public:br-ex,rack:br-rack", NACRE_NETWORK_VLAN_RANGE="10,20",
                 NACRE_NETWORK_TENANT_TYPES="vlan")
    assert s.node.bridge_mappings == {"public": "br-ex", "rack": "br-rack"}
    assert s.network.vlan_range == (10, 20) and s.network.tenant_types == ("vlan",)


@pytest.mark.parametrize(("toml", "words"), [
    ("port = 70000", ["port", "65535", "nacre.toml"]),
    ("[scheduler]\nperiod = 0", ["scheduler.period"]),
    ("[scheduler]\nstrategy = 'luck'", ["scheduler.strategy", "luck"]),
    ("colour = 'red'", ["colour"]),
    ("port = ", ["not TOML", "nacre.toml"]),
])
def test_a_wrong_option_is_named_with_its_cure(tmp_path: Path, toml: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as error:
        settings(tmp_path, toml)
    assert all(word in error.value.message for word in words), error.value.message


def test_a_wrong_variable_is_named_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="NACRE_PORT='x'"):
        settings(tmp_path, NACRE_PORT="x")
    with pytest.raises(SettingsError, match="NACRE_SCHEDULER_PERIOD"):
        settings(tmp_path, NACRE_SCHEDULER_PERIODE="1")
    with pytest.raises(SettingsError, match="not there"):
        load(tmp_path, environ={"NACRE_CONFIG": str(tmp_path / "none.toml")})


def test_there_are_not_too_many() -> None:
    # Each limit of what a client may ask for is one of them. By who starts a process:
    told = {f"NACRE_RPC_{name}" for name in ("CONTROL", "CONTROL_NAME", "CONTROL_KEY", "NODE_KEYS", "CLOUD")}
    assert told < options().keys() and len(options().keys() - told) <= 95


def test_physical_networks_have_a_bridge_or_one_of_them_the_clouds_own(tmp_path: Path) -> None:
    assert settings(tmp_path).node.bridge_mappings == {"public": ""}
    named = settings(tmp_path, NACRE_NODE_BRIDGE_MAPPINGS="public:,rack:br-rack").node.bridge_mappings
    assert named == {"public": "", "rack": "br-rack"}
    with pytest.raises(SettingsError, match="bridge_mappings: the cloud's own bridge"):
        settings(tmp_path, NACRE_NODE_BRIDGE_MAPPINGS="public:,rack:")


def test_a_cloud_is_named_by_its_id_and_a_tunnel_by_an_address(tmp_path: Path) -> None:
    cloud = "c10d0000-0000-4000-8000-000000000001"
    assert settings(tmp_path, NACRE_RPC_CLOUD=cloud).rpc.cloud == cloud and settings(tmp_path).rpc.cloud == ""
    for wrong in ("x", cloud.upper(), cloud + "\n", "../../etc"):
        with pytest.raises(SettingsError, match="NACRE_RPC_CLOUD"):
            settings(tmp_path, NACRE_RPC_CLOUD=wrong)
    for right in ("192.0.2.1", "2001:db8::1", ""):
        assert settings(tmp_path, NACRE_NODE_TUNNEL_IP=right).node.tunnel_ip == right
    with pytest.raises(SettingsError, match="node: tunnel_ip: 'eth0' is not an address"):
        settings(tmp_path, NACRE_NODE_TUNNEL_IP="eth0")


def test_disk_directories(tmp_path: Path) -> None:
    node = settings(tmp_path, NACRE_NODE_DISKS="/srv/a:100,/srv/b:0", NACRE_NODE_DISK_BANDWIDTH="200",
                    NACRE_NODE_NET_BANDWIDTH="10000").node
    assert (node.disks, node.disk_bandwidth, node.net_bandwidth) == ({"/srv/a": 100, "/srv/b": 0}, 200, 10000)
    assert settings(tmp_path, "[node.disks]\n'/srv/a' = 0\n").node.disks == {"/srv/a": 0}


@pytest.mark.parametrize(("disks", "words"), [
    ("/a:0,/a:1", ["NACRE_NODE_DISKS", "'/a' is there twice"]),
    ("/a", ["NACRE_NODE_DISKS", "int"]),
    ("/a:-1", ["NACRE_NODE_DISKS", ">= 0"]),
    ("/a:10000001", ["NACRE_NODE_DISKS", "<= 10000000"]),
    ("a:1", ["node: disks", "'a'", "absolute"]),
    ("/a/../b:0", ["node: disks", "'/a/../b'", "absolute"]),
    (f"/{'a' * 255}:0", ["node: disks", "255 characters"]),
    ("/a:5", ["node: disks", "set disk_bandwidth"]),
])
def test_a_wrong_disk_directory_is_named_with_its_cure(tmp_path: Path, disks: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as error:
        settings(tmp_path, NACRE_NODE_DISKS=disks)
    assert all(word in error.value.message for word in words), error.value.message


@pytest.mark.parametrize(("host", "mode", "url"), [
    ("127.0.0.1", "auto", "http://127.0.0.1:8774"), ("::1", "auto", "http://[::1]:8774"),
    ("localhost", "auto", "http://localhost:8774"), ("127.0.0.2", "on", "https://127.0.0.2:8774"),
    ("0.0.0.0", "auto", "https://127.0.0.1:8774"), ("::", "auto", "https://127.0.0.1:8774"),
    ("192.0.2.1", "auto", "https://192.0.2.1:8774"), ("2001:db8::1", "auto", "https://[2001:db8::1]:8774"),
    ("cloud.example.org", "auto", "https://cloud.example.org:8774"), ("0.0.0.0", "off", "http://127.0.0.1:8774")])
def test_what_others_can_reach_is_encrypted(tmp_path: Path, host: str, mode: str, url: str) -> None:
    s = settings(tmp_path, NACRE_HOST=host, NACRE_TLS_MODE=mode)
    assert s.url == url
    assert s.cacert == (tmp_path / "authority.pem" if url.startswith("https") else None)


def test_the_authority_that_clients_are_given(tmp_path: Path) -> None:
    there = {"NACRE_HOST": "::", "NACRE_PUBLIC_URL": "https://cloud.example.org/"}
    assert settings(tmp_path, **there).url == "https://cloud.example.org"
    assert settings(tmp_path, **there, NACRE_TLS_CERTIFICATE="/c.pem").cacert is None, "that of their system"
    for more in ({"NACRE_TLS_CERTIFICATE": "/c.pem"}, {"NACRE_TLS_MODE": "off"}):
        assert settings(tmp_path, **there, **more, NACRE_TLS_AUTHORITY="/ca.pem").cacert == Path("/ca.pem")


@pytest.mark.parametrize(("toml", "words"), [
    ("key = '/k.pem'", ["tls: key without certificate"]), ("certificate = 'c.pem'", ["tls: certificate", "absolute"]),
    ("mode = 'sometimes'", ["tls.mode"]), ("names = ['a b']", ["tls: names", "'a b'"])])
def test_a_wrong_option_of_tls_is_named(tmp_path: Path, toml: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as error:
        settings(tmp_path, f"[tls]\n{toml}\n")
    assert all(word in error.value.message for word in words), error.value.message


def test_draining(tmp_path: Path) -> None:
    assert settings(tmp_path).drain is None and settings(tmp_path, NACRE_DRAIN="0").drain == 0.0
    assert settings(tmp_path, "drain = 4\n").drain == 4.0
    with pytest.raises(SettingsError, match="NACRE_DRAIN='-1'"):
        settings(tmp_path, NACRE_DRAIN="-1")


@pytest.mark.parametrize("option", ["net_bandwidth", "disk_bandwidth"])
def test_bandwidths_have_bounds(tmp_path: Path, option: str) -> None:
    for value in (-1, 10**7 + 1):
        with pytest.raises(SettingsError, match=f"node.{option}: Expected `int`"):
            settings(tmp_path, f"[node]\n{option} = {value}\n")


def test_where_images_are(tmp_path: Path) -> None:
    images = settings(tmp_path, NACRE_IMAGES_S3="endpoint:https://s3.example.org:9000,bucket:nacre").images
    assert images.s3 == {"endpoint": "https://s3.example.org:9000", "bucket": "nacre"} and images.folder == ""
    for wrong, why in (("folder = 'relative'", "absolute"), ("s3 = {endpoint = 'https://x'}", "bucket"),
                       ("s3 = {bucket = 'b', color = 'red'}", "color"),
                       ("s3 = {bucket = 'b', endpoint = 'x:1'}", "URL")):
        with pytest.raises(SettingsError, match=why):
            settings(tmp_path, f"[images]\n{wrong}")


def test_images_of_a_project_are_bounded_by_default() -> None:
    """What becomes of it: `tests/stories/image/test_image_lifecycle.py:TestQuotas`."""
    own = Settings().images
    assert 0 < own.max_project_bytes <= 100 << 30 and 0 < own.max_project_images <= 1000
    assert 0 < own.max_project_uploads <= 20


def test_what_a_cloud_was_started_with_counts_where_nothing_else_is_said(tmp_path: Path) -> None:
    (tmp_path / KEPT_FILE).write_text('{"port": 9999, "hypervisor": "fake", "of a later release": 1}')
    found = load(tmp_path, environ={})
    assert (found.port, found.hypervisor) == (9999, "fake")
    found = load(tmp_path, environ={"NACRE_PORT": "9998"}, hypervisor="libvirt")
    assert (found.port, found.hypervisor) == (9998, "libvirt")
    assert settings(tmp_path, "port = 9997").port == 9997


def test_a_cloud_of_an_earlier_release_comes_up_as_it_was_started(tmp_path: Path) -> None:
    before = tmp_path / "logs" / "up.json"
    before.parent.mkdir()
    before.write_text('{"port": 9999, "hypervisor": "fake"}')
    found = load(tmp_path, environ={})
    assert (found.port, found.hypervisor) == (9999, "fake")
    up._keep(load(tmp_path, environ={}, port=9998))
    assert kept(tmp_path) == {"port": 9998, "hypervisor": "fake"}
    (tmp_path / KEPT_FILE).unlink()
    assert kept(tmp_path) == {}, "an operator removed it"
    os.mkfifo(before)
    assert kept(tmp_path) == {}


@pytest.mark.parametrize("text", [b"{", b"null", b"3", b'"port"', b"[]", b"\xff", b'{"port": "x"}', b'{"port": 70000}',
                                  b'{"port": null}', b'{"port": true}', b'{"hypervisor": "xen"}'])
def test_what_a_cloud_was_started_with_and_cannot_be_is_named_where_it_is(tmp_path: Path, text: bytes) -> None:
    (tmp_path / KEPT_FILE).write_bytes(text)
    with pytest.raises(SettingsError, match=f"{tmp_path / KEPT_FILE} is not as .*: remove it") as error:
        load(tmp_path, environ={}, port=1234)
    assert "nacre.toml" not in error.value.message


@pytest.mark.parametrize("text", ["*", "", " 192.0.2.9", "192.0.2.9/24", "192.0.2", "balancer.example", "192.0.2.9:80",
                                  "0.0.0.0/0", "::/0", "fe80::9%" + "x" * 300])
def test_a_balancer_is_named_by_an_address_or_a_network(tmp_path: Path, text: str) -> None:
    fine = settings(tmp_path, '[http]\nproxies = ["192.0.2.9", "192.0.2.0/28", "2001:DB8::9", "::ffff:192.0.2.9"]')
    assert len(fine.http.proxies) == 4
    with pytest.raises(SettingsError) as error:
        settings(tmp_path, f'[http]\nproxies = ["192.0.2.8", "{text}"]')
    assert error.value.message.startswith("http: proxies: ") and len(error.value.message) < 300
    assert repr(text[:80]) in error.value.message
