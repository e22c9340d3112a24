"""Canaries in every field that holds a secret, over real processes at debug level: none turns up in a log, an error, a
timeline, a node's journal or a command line, and at rest in clear there is only what has to be (BADINPUTS row 25)."""

import base64
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from nacre.cli import supervisor
from nacre.config import load
from nacre.identity.keys.seal import Seal
from tests.cloud.test_processes import Cloud

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

#: Secrets that lie in the database in clear, and why they must. A host's journal (for root's eyes) has what a build's
#: next step needs, until it is rewritten.
AT_REST = {"user_data": "the guest asks for it at every boot", "blob": "credentials are kept for their owner to read",
           "oauth": "requests signed with it are checked against it"}


class Canaries:
    """Secrets that were handed out, by what they are for."""

    def __init__(self) -> None:
        self.given: dict[str, str] = {}

    def new(self, kind: str) -> str:
        """A secret that occurs nowhere else. Some fields allow letters and digits only."""
        self.given[f"{kind} {len(self.given)}"] = text = f"Canary{uuid4().hex}"
        return text

    def found_in(self, text: str) -> list[str]:
        """The kinds of those that the text has, plain or in base64."""
        return [kind for kind, secret in self.given.items()
                if secret in text or base64.b64encode(secret.encode()).decode().rstrip("=")[:-2] in text]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = Cloud(tmp_path_factory.mktemp("secrets"))
    made.environ["NACRE_LOG_LEVEL"] = "DEBUG"
    try:
        made.up()
        yield made
    finally:
        made.nacre("down", check=False)


class Client:
    """HTTP with a cloud's user, which keeps what was answered to requests that were refused."""

    def __init__(self, cloud: Cloud, name: str):
        self.root, token = f"http://127.0.0.1:{cloud.port}", cloud.token(name)
        self.user, self.project = token.json()["token"]["user"]["id"], token.json()["token"]["project"]["id"]
        self.headers = {"X-Auth-Token": token.headers["x-subject-token"], "OpenStack-API-Version": "compute 2.1"}
        self.refusals: list[str] = []

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        answer = httpx.request(method, self.root + path, json=body, headers=self.headers | headers, timeout=30)
        if answer.status_code >= 400:
            self.refusals.append(f"{method} {path} {answer.status_code} {answer.text}")
        return answer.json() if answer.content and "json" in answer.headers.get("content-type", "") else {}


def identity(admin: Client, user: Client, canaries: Canaries) -> None:
    """Passwords, secrets of credentials, delegations and domains, taken and refused."""
    root, new = "/identity/v3", canaries.new
    made = admin("POST", root + "/users", {"user": {"name": "bird", "password": new("password")}})["user"]["id"]
    admin("PATCH", f"{root}/users/{made}", {"user": {"password": new("password")}})
    admin("POST", root + "/users", {"user": {"name": "bird", "password": new("password")}})  # the name is taken
    admin("POST", root + "/users", {"user": {"name": "x", "password": [new("password")]}})
    user("POST", f"{root}/users/{made}/password", {"user": {"original_password": new("password"),
                                                             "password": new("password")}})
    login: dict[str, Any] = {"methods": ["password"], "password": {"user": {"id": made, "password": new("password")}}}
    user("POST", root + "/auth/tokens", {"auth": {"identity": login}})
    user("POST", root + "/auth/tokens", {"auth": {"identity": login | {"unknown": new("password")}}})
    mine = f"{root}/users/{user.user}/application_credentials"
    user("POST", mine, {"application_credential": {"name": "a", "secret": new("secret")}})
    user("POST", mine, {"application_credential": {"name": "a", "secret": new("secret")}})
    user("POST", mine, {"application_credential": {"name": "b", "secret": {"x": new("secret")}}})
    for kind in ("cert", 7):
        user("POST", root + "/credentials", {"credential": {
            "type": kind, "blob": new("blob"), "user_id": user.user, "project_id": user.project}})
    consumer = admin("POST", root + "/OS-OAUTH1/consumers", {"consumer": {"description": "c"}})["consumer"]
    canaries.given["oauth"] = consumer["secret"]
    admin("PUT", f"{root}/domains/default/config", {"config": {"ldap": {"password": new("domain"), "url": "ldap://x"}}})
    canaries.given["token"] = user.headers["X-Auth-Token"]
    user("GET", root + "/auth/tokens", **{"X-Subject-Token": new("token")})


def compute(user: Client, canaries: Canaries) -> str:
    """Passwords, files and user data of a server, taken and refused; the server's id once it is ACTIVE."""
    root, new = "/compute/v2.1", canaries.new
    pair = user("POST", root + "/os-keypairs", {"keypair": {"name": "k"}})["keypair"]
    canaries.given["private key"] = pair["private_key"].splitlines()[3]
    image = user("POST", "/image/v2/images", {"name": "i", "disk_format": "raw", "container_format": "bare"})["id"]
    httpx.put(f"{user.root}/image/v2/images/{image}/file", content=bytes(65536),
              headers=user.headers | {"Content-Type": "application/octet-stream"}).raise_for_status()

    def server(**more: Any) -> dict[str, Any]:
        return {"server": {"name": "bird", "imageRef": image, "flavorRef": "42", "key_name": "k",
                           "adminPass": new("admin password"), "user_data": base64.b64encode(
                               new("user_data").encode()).decode(), "personality": [{
                                   "path": "/etc/secret", "contents": base64.b64encode(
                                       new("file").encode()).decode()}], **more}}

    made = user("POST", root + "/servers", server())["server"]["id"]
    user("POST", root + "/servers", server(unknown=1))
    user("POST", root + "/servers", server(adminPass=[new("admin password")]))
    user("POST", root + "/servers", server(user_data="not base64: " + new("refused")))
    user("POST", root + "/servers", server(flavorRef="5", min_count=10))  # over quota
    end = time.monotonic() + 30
    while user("GET", f"{root}/servers/{made}")["server"]["status"] != "ACTIVE":
        assert time.monotonic() < end
        time.sleep(0.1)
    for action in ({"changePassword": {"adminPass": new("admin password")}},
                   {"rebuild": {"imageRef": image, "adminPass": new("admin password")}},
                   {"rescue": {"adminPass": new("admin password")}}):
        user("POST", f"{root}/servers/{made}/action", action)
    return str(made)


def cloud_keys(cloud: Cloud) -> dict[str, str]:
    """The seal key, and every key that it opens, as text: after a rotation and a change of the seal key."""
    first = (cloud.data / "control" / "seal-key").read_text().strip()
    cloud.nacre("keys", "reseal", str(cloud.data.parent / "new-seal-key"))
    cloud.nacre("keys", "rotate")
    seal, found = Seal(cloud.data / "control" / "seal-key"), {"seal key, first": first}
    with sqlite3.connect(f"file:{cloud.data / 'control' / 'nacre.db'}?mode=ro", uri=True) as db:
        for purpose, number, blob in db.execute("select purpose, number, blob from sealed_keys"):
            opened = seal.open(purpose, number, blob)
            found[f"{purpose} key {number}"] = base64.urlsafe_b64encode(opened).decode()
            found[f"{purpose} key {number}, hexadecimal"] = opened.hex()
    assert len(found) > 10 and (cloud.data / "control" / "seal-key").read_text().strip() != first
    return found | {"seal key": (cloud.data / "control" / "seal-key").read_text().strip()}


def test_no_secret_turns_up(cloud: Cloud) -> None:
    canaries, admin, user = Canaries(), Client(cloud, "nacre"), Client(cloud, "demo")
    passwords = json.loads((cloud.data / "control" / "passwords.json").read_text())
    canaries.given |= {f"first password of {name}": secret for name, secret in passwords.items()}
    identity(admin, user, canaries)
    server = compute(user, canaries)
    canaries.given |= cloud_keys(cloud)
    assert len(canaries.given) > 30 and len(user.refusals) > 8
    seen = {"error answers": "\n".join(admin.refusals + user.refusals),
            "server": json.dumps(user("GET", f"/compute/v2.1/servers/{server}")).replace("user_data", ""),
            "trace": cloud.nacre("trace", server, "--json").stdout,
            "status": cloud.nacre("status", "--json").stdout,
            "keys": cloud.nacre("keys", "list").stdout + cloud.nacre("keys", "list", "--json").stdout}
    for file in (cloud.data / "logs").rglob("*.log"):
        seen[file.name] = file.read_text(errors="replace")
    for name in ("control", "node"):
        seen[f"command line of {name}"] = Path(f"/proc/{cloud.pid(name)}/cmdline").read_text()
    for file in (cloud.data / "node").rglob("*"):
        if file.is_file() and "key" not in file.name:
            seen[f"node/{file.name}"] = file.read_bytes().decode(errors="replace")
    wrong = {place: kinds for place, text in seen.items() if (kinds := canaries.found_in(text))}
    assert not wrong, wrong
    assert "/compute/v2.1/servers" in seen["control.log"]  # it does log, and at debug level

    with sqlite3.connect(f"file:{cloud.data / 'control' / 'nacre.db'}?mode=ro", uri=True) as db:
        kept = canaries.found_in("\n".join(db.iterdump()))
    assert {kind.rstrip(" 0123456789") for kind in kept} <= set(AT_REST), kept
    assert (cloud.data / "node" / "journal.db").stat().st_mode & 0o077 == 0
    assert yaml.safe_load((cloud.data / "clouds.yaml").read_text()) and (
        cloud.data / "clouds.yaml").stat().st_mode & 0o077 == 0


def test_only_control_is_given_the_seal_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = base64.urlsafe_b64encode(bytes(32)).decode()
    monkeypatch.setenv("NACRE_IDENTITY_SEAL_KEY", text)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "cloud").write_text("c10d0000-0000-4000-8000-000000000001")
    control, node = supervisor.children(load(tmp_path, hypervisor="fake"))
    assert control._environ["NACRE_IDENTITY_SEAL_KEY"] == text and text not in node._environ.values()
