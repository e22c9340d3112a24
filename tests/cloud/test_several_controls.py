"""Three controls over one PostgreSQL and two hosts that joined, as real processes: every control serves everything, any
may die, and nobody is asked to wait for one that did."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from nacre.cli.supervisor import free_port
from nacre.cloud.tokens import split
from tests.cloud.fleet_lab import Fleet, active, fleet, servers, until
from tests.cloud.process_lab import nacre
from tests.postgres_lab import new_database

pytestmark = [pytest.mark.processes, pytest.mark.postgres, pytest.mark.timeout(300)]
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def database(postgres_server: str) -> str:
    return new_database(postgres_server)


@pytest.fixture(scope="module")
def lab(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("fleet"), database, *NAMES) as made:
        made.start()
        made.join("one", "host-a")
        made.join("two", "host-b")
        yield made


def states(lab: Fleet, by: str) -> dict[tuple[str, str], str]:
    found = lab.client(by, "nacre").call("GET", "compute", "/os-services")["services"]
    return {(s["binary"], s["host"]): s["state"] for s in found}


ALL_UP = {(binary, name): "up" for name in NAMES for binary in ("nova-conductor", "nova-scheduler")} | {
    ("nova-compute", name): "up" for name in ("host-a", "host-b")}


def test_three_that_start_together_on_an_empty_database_make_one_cloud(lab: Fleet, database: str) -> None:
    def counts(query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(database) as connection:
            return connection.execute(query).fetchall()  # type: ignore[arg-type]

    assert len(counts("select id from cloud where first_rows_at is not null")) == 1
    assert sorted(counts("select name from identity_users")) == [("admin",), ("demo",), ("demo-alt",), ("service",)]
    assert len(counts("select id from flavors")) == 7
    assert counts("select name from networks where name = 'public'") == [("public",)]
    assert counts("select purpose, count(*) from sealed_keys group by purpose order by purpose") == [
        ("credential", 2), ("join", 2), ("token", 2)]
    assert sum((c.folder / "clouds.yaml").exists() for c in lab.controls.values()) == 1, "one knows the passwords"
    assert not [c.name for c in lab.controls.values() if (c.folder / "control" / "passwords-draft.json").exists()]
    for name in NAMES:
        assert lab.client(name).call("GET", "compute", "/servers") == {"servers": []}
        assert "Traceback" not in lab.controls[name].said()


def test_every_control_knows_every_control_and_host(lab: Fleet) -> None:
    for name in NAMES:
        until(lambda name=name: states(lab, name) == ALL_UP, why=lambda name=name: states(lab, name))
        found = json.loads(nacre(lab.controls[name].folder, "status", "--json", **lab.environ).stdout)
        shown = {(m["role"], m["name"]): m for m in found["members"]}
        assert shown.keys() == {*(("control", n) for n in NAMES), ("node", "host-a"), ("node", "host-b")}
        assert all(m["version"] and m["address"] for m in shown.values())
        assert {m["state"] for m in shown.values() if m["role"] == "control"} == {"up"}
        assert all(m["seconds"] < (5 if m["role"] == "control" else 70) for m in shown.values())


def test_any_control_answers_for_any_server(lab: Fleet) -> None:
    body, clients = lab.image(), {name: lab.client(name) for name in NAMES}
    for name, cloud in clients.items():
        for n in range(2):
            cloud.call("POST", "compute", "/servers", {"server": {**body["server"], "name": f"any-{name}-{n}"}})
    found = [{s["id"] for s in active(cloud, "any", 6)} for cloud in clients.values()]
    assert found[0] == found[1] == found[2]
    with psycopg.connect(lab.environ["NACRE_DATABASE_URL"]) as connection:
        hosts = {row[0] for row in connection.execute("select host from servers where not deleted")}
    assert hosts == {"host-a", "host-b"}, "each scheduler knows each host"
    for n, server in enumerate(sorted(found[0])):
        cloud = clients[NAMES[n % 3]]
        assert cloud.raw("POST", f"{cloud.roots['compute']}/servers/{server}/action", {"os-stop": None})[0] == 202
        until(lambda server=server: all(c.call("GET", "compute", f"/servers/{server}")["server"]["status"] == "SHUTOFF"
                                        for c in clients.values()))
        cloud = clients[NAMES[(n + 1) % 3]]
        assert cloud.raw("DELETE", f"{cloud.roots['compute']}/servers/{server}")[0] == 204
    until(lambda: not any(servers(cloud, "any") for cloud in clients.values()))


def test_what_a_killed_control_began_is_finished_by_the_others(lab: Fleet) -> None:
    body, others = lab.image(), [lab.client("two"), lab.client("three")]
    lab.client("one").call("POST", "compute", "/servers", {
        "server": {**body["server"], "name": "killed", "min_count": 8, "max_count": 8}})
    lab.controls["one"].end(signal.SIGKILL)
    begin = time.monotonic()
    for cloud in others:
        assert len(servers(cloud, "killed")) == 8, "answered at once"
    assert time.monotonic() - begin < 5
    found = active(others[0], "killed", 8)
    gone = ALL_UP | {(binary, "one"): "down" for binary in ("nova-conductor", "nova-scheduler")}
    until(lambda: states(lab, "two") == gone, why=lambda: states(lab, "two"))
    status = json.loads(nacre(lab.controls["two"].folder, "status", "--json", **lab.environ).stdout)
    assert {m["name"]: m["state"] for m in status["members"] if m["role"] == "control"} == {
        "one": "down", "two": "up", "three": "up"}
    # A host that is started again finds its way though the control by which it joined is gone.
    assert nacre(lab.hosts["host-a"], "down").returncode == 0
    done = nacre(lab.hosts["host-a"], "up", "-d")
    assert done.returncode == 0, done.stdout + done.stderr
    for server in found:
        assert others[1].raw("DELETE", f"{others[1].roots['compute']}/servers/{server['id']}")[0] == 204
    until(lambda: not servers(others[0], "killed"))
    lab.controls["one"].start()
    until(lab.controls["one"].healthy, why=lab.controls["one"].said)
    until(lambda: states(lab, "one") == ALL_UP, why=lambda: states(lab, "one"))


def test_a_further_control_without_the_seal_key_does_not_start(lab: Fleet, tmp_path: Path) -> None:
    environ = {k: v for k, v in lab.environ.items() if k != "NACRE_IDENTITY_SEAL_KEY"}
    done = nacre(tmp_path / "stranger", "control", **environ)
    assert done.returncode == 1 and "copy the seal key of a control that works" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "stranger" / "clouds.yaml").exists()


def test_a_control_that_is_detached_is_ended_by_down(lab: Fleet) -> None:
    folder = lab.folder / "four"
    try:
        done = nacre(folder, "control", "-d", **lab.environ, NACRE_PORT=str(free_port()))
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(nacre(folder, "status", "--json", **lab.environ).stdout)
        assert [p["name"] for p in found["processes"]] == ["supervisor", "control"] and found["error"] is None
        assert len([m for m in found["members"] if m["role"] == "control"]) == 4
    finally:
        assert "stopped" in nacre(folder, "down").stdout



def test_up_on_another_machine_is_a_further_control_with_a_host(lab: Fleet) -> None:
    folder = lab.hosts["five"] = lab.folder / "five"  # taken down with them
    done = nacre(folder, "up", "-d", **lab.environ, NACRE_PORT=str(free_port()), NACRE_NODE_NAME="host-e",
                 NACRE_RPC_NAME="five")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bring its clouds.yaml here" in " ".join(done.stderr.split())
    until(lambda: states(lab, "two").get(("nova-compute", "host-e")) == "up", why=lambda: states(lab, "two"))
    assert states(lab, "two")["nova-conductor", "five"] == "up"


def test_what_a_machine_hears_that_cannot_join(lab: Fleet, tmp_path: Path) -> None:
    def refused(folder: Path, *args: str) -> str:
        done = nacre(folder, "join", *args, "--hypervisor", "fake")
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stdout + done.stderr
        return " ".join(done.stderr.split())

    token = lab.nacre("three", "token", "create", "--expires", "5m").strip()
    assert "holds a cloud of its own" in refused(lab.controls["one"].folder, token)
    assert "A host runs in" in refused(lab.hosts["host-a"], token)
    assert "no join token" in refused(tmp_path / "new", token[:60])
    assert "has a host called host-a already" in refused(tmp_path / "new", token, "--name", "host-a")
    assert not (tmp_path / "new" / "node" / "joined.json").exists()
    first, second = token[:200], token[201:]
    changed = first + ("A" if token[200] != "A" else "B") + second
    assert "no join token" in (said := refused(tmp_path / "new", changed)) or "not made by this cloud" in said or (
        "does not know this token" in said)
    lab.hosts["host-c"] = tmp_path / "new"
    joined = nacre(tmp_path / "new", "join", token, "--name", "host-c", "--hypervisor", "fake")
    assert joined.returncode == 0, joined.stderr
    assert "was used by host-c" in refused(tmp_path / "other", token, "--name", "host-d")
    late = nacre(lab.controls["one"].folder, "token", "create", "--expires", "8d", **lab.environ)
    assert late.returncode == 2 and "at most 7d" in late.stderr
    logs = "".join(c.said() for c in lab.controls.values()) + "".join(
        file.read_text() for file in (tmp_path / "new" / "logs").iterdir())
    assert token not in logs and split(token)[0].keys.secret not in logs
    assert oct((tmp_path / "new" / "node" / "joined.json").stat().st_mode & 0o777) == "0o600"
    found = json.loads(nacre(tmp_path / "new", "status", "--json").stdout)
    assert found["host"] == "host-c" and {c["name"] for c in found["controls"]} >= set(NAMES)
    assert [p["name"] for p in found["processes"]] == ["supervisor", "node"] and found["error"] is None
