"""A whole cloud on PostgreSQL: real processes, from the first `up` to many builds at once, killed and started again."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from nacre.cli.supervisor import free_port
from tests.cloud.process_lab import Lab, nacre
from tests.postgres_lab import new_database

pytestmark = [pytest.mark.processes, pytest.mark.postgres, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def database(postgres_server: str) -> str:
    return new_database(postgres_server)


@pytest.fixture(scope="module")
def lab(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("postgres"), database)
    made.lift_quotas()
    yield made
    made.nacre("down")


def create(lab: Lab, name: str, count: int = 1) -> None:
    """Accepted, even if the cloud is away for a moment."""
    server = {**lab.body["server"], "name": name, "min_count": count, "max_count": count}
    lab.call("POST", "compute", "/servers", {"server": server})


def delete_all(lab: Lab, servers: list[dict[str, object]]) -> None:
    url = f"{lab.cloud.roots['compute']}/servers/"
    with ThreadPoolExecutor(30) as pool:
        assert set(pool.map(lambda s: lab.cloud.raw("DELETE", url + str(s["id"]))[0], servers)) == {204}
    lab.no_leaks()


def test_a_server_from_create_to_delete_over_a_restart(lab: Lab) -> None:
    create(lab, "one")
    [server] = lab.until_active("one", 1)
    [[address]] = server["addresses"].values()
    ports = lab.call("GET", "network", f"/ports?device_id={server['id']}")["ports"]
    assert [ip["ip_address"] for p in ports for ip in p["fixed_ips"]] == [address["addr"]]
    lab.nacre("down")
    lab.nacre("up", "-d", "--hypervisor", "fake", "--port", lab.port)  # where it lives is remembered
    assert lab.until_active("one", 1)[0]["addresses"] == server["addresses"]
    assert not (lab.data / "control" / "nacre.db").exists()
    delete_all(lab, [server])


def test_two_hundred_at_once_all_become_active_and_leave_nothing(lab: Lab) -> None:
    with ThreadPoolExecutor(30) as pool:
        list(pool.map(lambda n: create(lab, f"many-{n}"), range(200)))
    servers = lab.until_active("many", 200)
    addresses = [a["addr"] for s in servers for each in s["addresses"].values() for a in each]
    assert len(addresses) == len(set(addresses)) == 200
    ports = lab.call("GET", "network", "/ports?device_owner=compute:nova")["ports"]
    assert {p["device_id"] for p in ports} == {s["id"] for s in servers} and len(ports) == 200
    assert {p["status"] for p in ports} == {"ACTIVE"}
    delete_all(lab, servers)


@pytest.mark.parametrize("point", ["control story taken", "control network.plug begins", "control network.plug done",
                                   "control prepare done", "control spawn done", "control story told"])
def test_control_killed_in_the_middle_of_builds(lab: Lab, point: str) -> None:
    lab.arm(point)
    create(lab, "killed", 10)
    servers = lab.until_active("killed", 10)
    assert not lab.trigger.exists(), f"no process ever passed {point!r}"
    delete_all(lab, servers)


def test_everything_killed_at_any_time_and_started_again(lab: Lab) -> None:
    """kill -9 of the supervisor leaves control and node without one; the next `up` takes their place."""
    for n, victims in enumerate((("supervisor",), ("supervisor", "control"), ("supervisor", "control", "node"))):
        create(lab, f"all-{n}", 4)
        time.sleep(0.05 * n)
        for victim in victims:
            os.kill(int((lab.data / "run" / f"{victim}.pid").read_text()), 9)
        lab.up()
        assert json.loads(lab.nacre("status", "--json"))["error"] is None
        servers = lab.until_active(f"all-{n}", 4)
        delete_all(lab, servers)


def test_connections_that_break_in_the_middle_cost_time_only(lab: Lab, database: str) -> None:
    """As when the database is started anew: every connection is cut, again and again, while servers are built."""
    url, _, name = database.rpartition("/")
    create(lab, "cut", 40)
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        cuts = []
        for _ in range(15):
            cuts.append(len(connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name]).fetchall()))
            time.sleep(0.1)
    assert sum(n > 0 for n in cuts) > 2, cuts
    delete_all(lab, lab.until_active("cut", 40))


def test_an_api_without_its_database_says_so_and_recovers(lab: Lab, database: str) -> None:
    url, _, name = database.rpartition("/")
    show = f"{lab.cloud.roots['compute']}/servers"
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f"alter database {name} allow_connections false")
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
        try:
            status, _, body = lab.cloud.raw("GET", show)
            refused = lab.cloud.raw("POST", show, lab.body)[0]
        finally:
            connection.execute(f"alter database {name} allow_connections true")
    assert status == refused == 503 and b"database" in body
    end = time.monotonic() + 10
    while lab.cloud.raw("GET", show)[0] != 200:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_up_says_of_a_database_it_cannot_use(lab: Lab, database: str, tmp_path: Path) -> None:
    def refused(url: str, folder: Path = tmp_path) -> str:
        done = nacre(folder, "up", "-d", "--hypervisor", "fake", "--port", lab.port, "--database", url)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        return done.stderr

    lab.nacre("down")
    server = database.rpartition("/")[0]
    assert "does not exist" in refused(f"{server}/nowhere")
    gone = refused("postgresql://nacre:hidden%40word@127.0.0.1:1/nacre")
    assert "127.0.0.1" in gone and "refused" in gone and "hidden" not in gone
    assert "cannot be understood" in refused("postgresql://nacre@127.0.0.1:port/nacre")
    assert "not spoken here" in refused("mysql://nacre@127.0.0.1/nacre")
    assert "whose data folder this is not" in refused(database)
    assert "lives in postgresql" in refused(f"sqlite:///{lab.data}/other.db", lab.data)
    assert not list(tmp_path.rglob("clouds.yaml"))
    lab.up()


def test_its_password_reaches_only_control(database: str, tmp_path: Path) -> None:
    url = database.replace("nacre@", "nacre:canary-4711@")
    fresh = url.rpartition("/")[0] + "/fresh"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create database fresh")
    folder = tmp_path / "data"
    done = nacre(folder, "up", "-d", "--hypervisor", "fake", "--port", str(free_port()), NACRE_DATABASE_URL=fresh)
    try:
        assert done.returncode == 0, done.stderr
        pids = {name: (folder / "run" / f"{name}.pid").read_text() for name in ("supervisor", "control", "node")}
        seen = {name: b"canary-4711" in Path(f"/proc/{pid}/environ").read_bytes() for name, pid in pids.items()}
        assert seen == {"supervisor": True, "control": True, "node": False}
        shown = subprocess.run(["ps", "-ww", "-o", "args", *pids.values()], capture_output=True, text=True, check=True)
        assert "canary-4711" not in shown.stdout
    finally:
        with contextlib.suppress(FileNotFoundError):
            nacre(folder, "down")
    kept = [p for p in folder.rglob("*") if p.is_file() and b"canary-4711" in p.read_bytes()]
    assert kept == []
