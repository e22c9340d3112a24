"""The APIs beyond the loopback, by real processes: TLS of the cloud's own authority, or an operator's certificate."""

import json
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import yaml
from bench.client import Cloud as LightClient
from cryptography import x509

from nacre.base.serving import certificates
from tests.cloud.test_processes import Cloud

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = Cloud(tmp_path_factory.mktemp("tls"))
    made.environ |= {"NACRE_HOST": "0.0.0.0", "NACRE_TLS_NAMES": "cloud.example.org"}
    try:
        made.up()
        yield made
    finally:
        made.nacre("down", check=False)


def curl(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["curl", "-sS", "-m", "10", *args], capture_output=True, text=True, check=False)


def test_clients_trust_the_authority_that_clouds_yaml_names(cloud: Cloud) -> None:
    entry = yaml.safe_load((cloud.data / "clouds.yaml").read_text())["clouds"]["demo"]
    assert entry["cacert"] == str(cloud.data / "authority.pem")
    assert entry["auth"]["auth_url"] == f"https://127.0.0.1:{cloud.port}/identity/v3"
    light = LightClient("demo", str(cloud.data / "clouds.yaml"))
    assert all(root.startswith(f"https://127.0.0.1:{cloud.port}/") for root in light.roots.values())
    assert light.call("GET", "compute", "/servers")["servers"] == []
    found = json.loads(curl("--cacert", entry["cacert"], f"https://127.0.0.1:{cloud.port}/compute/").stdout)
    assert all(link["href"].startswith("https://") for v in found["versions"] for link in v["links"])
    assert json.loads(cloud.nacre("status", "--json").stdout)["error"] is None


def test_nobody_else_is_trusted_and_plain_http_fails_at_once(cloud: Cloud) -> None:
    there, trusted = f"127.0.0.1:{cloud.port}/healthcheck", ("--cacert", str(cloud.data / "authority.pem"))
    assert curl(*trusted, f"https://{there}").stdout == "OK\n"
    assert curl(f"https://{there}").returncode == 60, "the system does not know the authority"
    begin = time.monotonic()
    plain = curl(f"http://{there}")
    assert plain.returncode in (52, 56) and time.monotonic() - begin < 2, plain
    assert curl(*trusted, f"https://{there}").stdout == "OK\n"
    assert "Traceback" not in (cloud.data / "logs" / "control.log").read_text()


def test_every_address_of_the_machine_is_in_the_certificate(cloud: Cloud) -> None:
    found = x509.load_pem_x509_certificate((cloud.data / "control" / "server.pem").read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "cloud.example.org"} <= set(names.get_values_for_type(x509.DNSName))
    trust = ssl.create_default_context(cafile=str(cloud.data / "authority.pem"))
    local = [str(a) for a in names.get_values_for_type(x509.IPAddress) if a.version == 4]
    shown = json.loads(subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, check=True).stdout)
    assert {a["local"] for link in shown for a in link["addr_info"]} <= set(local)
    for address in local:
        assert httpx.get(f"https://{address}:{cloud.port}/healthcheck", verify=trust).text == "OK\n"


def test_private_keys_are_controls_only(cloud: Cloud) -> None:
    secret = cloud.data / "control" / "server.pem"
    assert [oct(p.stat().st_mode & 0o777) for p in (secret, cloud.data / "control" / "seal-key")] == ["0o600"] * 2
    assert "PRIVATE" not in (cloud.data / "authority.pem").read_text()
    key = re.findall(r"PRIVATE KEY-----\n(.{60})", secret.read_text())
    for file in cloud.data.rglob("*"):
        if file.is_file() and file != secret:
            held = file.read_bytes()
            assert key[0].encode() not in held and b"BEGIN PRIVATE" not in held, file


def test_the_authority_stays_when_the_cloud_is_started_again(cloud: Cloud) -> None:
    before, server = ((cloud.data / name).read_bytes() for name in ("authority.pem", "control/server.pem"))
    cloud.nacre("down")
    (cloud.data / "authority.pem").unlink()
    cloud.up()
    assert (cloud.data / "authority.pem").read_bytes() == before
    assert (cloud.data / "control" / "server.pem").read_bytes() == server
    assert [k["state"] for k in json.loads(cloud.nacre("keys", "list", "--json").stdout)["keys"] if (
        k["purpose"] == "authority")] == ["primary"]


def refused(cloud: Cloud, **environ: str) -> str:
    """What control says when it does not start."""
    other = Cloud(cloud.data)
    other.environ = {"NACRE_HYPERVISOR": "fake", "NACRE_PORT": str(other.port), **environ}
    done = other.nacre("control", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_an_operators_certificate(cloud: Cloud, tmp_path: Path) -> None:
    authority = certificates.new_authority(datetime.now(UTC))
    pem = certificates.issue(authority, {"127.0.0.1"}, datetime.now(UTC)).decode()
    at = pem.index("-----BEGIN PRIVATE KEY")
    for name, text in (("ca", certificates.public_part(authority).decode()), ("cert", pem[:at]), ("key", pem[at:])):
        (tmp_path / f"{name}.pem").write_text(text)
    cloud.nacre("down")
    before = dict(cloud.environ)
    cloud.environ |= {f"NACRE_TLS_{option.upper()}": str(tmp_path / f"{name}.pem") for option, name in (
        ("certificate", "cert"), ("key", "key"), ("authority", "ca"))}
    try:
        cloud.up()
        assert yaml.safe_load((cloud.data / "clouds.yaml").read_text())["clouds"]["demo"]["cacert"] == str(
            tmp_path / "ca.pem")
        assert LightClient("demo", str(cloud.data / "clouds.yaml")).token
        cloud.nacre("down")
        (tmp_path / "key.pem").write_text("junk")
        assert f"{tmp_path}/cert.pem with the key {tmp_path}/key.pem cannot be used" in refused(cloud, **cloud.environ)
    finally:
        cloud.environ = before
        cloud.nacre("down", check=False)
        cloud.up()


def test_off_by_an_operators_word_behind_a_balancer_that_ends_tls(cloud: Cloud) -> None:
    cloud.nacre("down")
    before = dict(cloud.environ)
    cloud.environ |= {"NACRE_TLS_MODE": "off"}
    try:
        cloud.up()
        assert curl(f"http://127.0.0.1:{cloud.port}/healthcheck").stdout == "OK\n"
        assert "cacert" not in (cloud.data / "clouds.yaml").read_text()
    finally:
        cloud.environ = before
        cloud.nacre("down", check=False)
        cloud.up()


def test_a_control_with_a_wrong_seal_key_does_not_start_and_says_what_to_do(cloud: Cloud) -> None:
    cloud.nacre("down")
    seal = cloud.data / "control" / "seal-key"
    text = seal.read_text()
    other = text.replace(text[:4], "AAAA" if text[:4] != "AAAA" else "BBBB", 1)
    try:
        for given in ({"NACRE_IDENTITY_SEAL_KEY": other.strip()}, {}):
            seal.write_text(other)
            said = refused(cloud, **given)
            assert "sealed by another key" in said and "NACRE_IDENTITY_SEAL_KEY" in said and other.strip() not in said
        seal.unlink()
        said = refused(cloud)
        assert f"there is no {seal}: copy the seal key" in said and not seal.exists()
    finally:
        seal.write_text(text)
        seal.chmod(0o600)
        cloud.up()


def test_keys_are_rotated_while_the_cloud_runs(cloud: Cloud, tmp_path: Path) -> None:
    light = LightClient("demo", str(cloud.data / "clouds.yaml"))
    for n in (1, 2):
        said = cloud.nacre("keys", "rotate").stdout
        assert f"token: key {n + 1} is the primary now" in said
        assert light.call("GET", "compute", "/servers") == {"servers": []}, "nobody is logged out"
    assert "join: key 4 is" in cloud.nacre("keys", "rotate", "--purpose", "join").stdout
    fresh = LightClient("demo", str(cloud.data / "clouds.yaml"))
    end = time.monotonic() + 5
    while not fresh.token.startswith("3."):
        assert time.monotonic() < end
        time.sleep(0.1)
        fresh.login()
    said = cloud.nacre("keys", "reseal", str(tmp_path / "new")).stdout
    assert "copy it there on every other control" in said
    assert (cloud.data / "control" / "seal-key").read_text() == (tmp_path / "new").read_text()
    cloud.nacre("keys", "rotate", "--purpose", "token")
    time.sleep(1.1)
    fresh.login()
    assert fresh.token.startswith("4.") and light.call("GET", "compute", "/servers") == {"servers": []}
    assert "a new" not in cloud.nacre("keys", "reseal", str(tmp_path / "new")).stdout
    same = cloud.nacre("keys", "reseal", str(cloud.data / "control" / "seal-key"), check=False)
    assert same.returncode == 1 and "name another" in same.stderr
    absent = Cloud(tmp_path / "nowhere").nacre("keys", "list", check=False)
    assert absent.returncode == 1 and "There is no cloud" in absent.stderr and not (tmp_path / "nowhere").exists()
