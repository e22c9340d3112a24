"""Options: where they come from, and what is said about a wrong one."""

from pathlib import Path

import pytest

from nacre.config import Settings, SettingsError, load, options


def settings(folder: Path, toml: str = "", **environ: str) -> Settings:
    (folder / "nacre.toml").write_text(toml)
    return load(folder, environ=environ)


def test_defaults_suffice(tmp_path: Path) -> None:
    s = load(tmp_path, environ={})
    assert s.database == f"sqlite:///{tmp_path}/nacre.db" and s.url == "http://127.0.0.1:8774"


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
    assert len(options()) <= 62


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
