"""A host meets a database that does not know its guests: another cloud's, or an older state of its own. `nacre up` says
so, nothing is ended, and an operator decides."""

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.client import Cloud

from tests.cloud.process_lab import SECONDS, Lab, nacre
from tests.postgres_lab import new_database

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


class Case(Lab):
    """A cloud with servers whose database is changed under it."""

    def create(self, name: str) -> dict[str, Any]:
        """A server that runs, as the API shows it."""
        self.call("POST", "compute", "/servers", {"server": {**self.body["server"], "name": name}})
        return self.until_active(name, 1)[0]

    def refused(self, *args: str) -> str:
        """What `up` says to a host that does not work for this database."""
        done = nacre(self.data, "up", "-d", "--hypervisor", "fake", "--port", self.port, *args, **self.environ)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stdout + done.stderr
        return done.stderr

    def guests(self) -> set[str]:
        return {file.stem for file in (self.data / "node" / "fake-guests").glob("*.json")}

    def host(self) -> dict[str, Any]:
        [found] = json.loads(self.nacre("host", "list", "--json"))["hosts"]
        return dict(found)

    def orphans(self) -> list[dict[str, Any]]:
        return list(json.loads(self.nacre("host", "orphans", "--json"))["orphans"])

    def accept(self) -> int:
        name = self.host()["name"]
        return int(json.loads(self.nacre("host", "accept", name, "--json"))["orphans"])

    def fails(self, *args: str) -> str:
        done = nacre(self.data, *args, **self.environ)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stdout + done.stderr
        return done.stderr

    def until_gone(self, guest: str) -> None:
        end = time.monotonic() + SECONDS
        while guest in self.guests():
            assert time.monotonic() < end, f"{guest} is still there"
            time.sleep(0.1)


class Slow(Case):
    """Builds take a while."""

    def up(self) -> None:
        self.environ["NACRE_FAKE_SPAWN_DELAY"] = "4"
        super().up()


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    made = Case(tmp_path)
    try:
        yield made
    finally:
        nacre(made.data, "down", **made.environ)


def kept(case: Case, *guests: str) -> None:
    """The guests are there, and still are when the host and all sweeps have looked several times."""
    time.sleep(5)
    assert case.guests() == set(guests)


def address(server: dict[str, Any]) -> str:
    return str(next(a["addr"] for each in server["addresses"].values() for a in each))


def database_of(case: Case) -> list[Path]:
    return sorted((case.data / "control").glob("nacre.db*"))


def test_a_database_that_is_gone_ends_no_guest_and_its_server_can_be_adopted_by_the_new_one(case: Case) -> None:
    server = case.create("kept")
    case.nacre("down")
    away = case.data.parent / "away"
    away.mkdir()
    for file in database_of(case):
        file.rename(away / file.name)

    said, host = case.refused(), case.host()
    for words in ("servers of another cloud", "put the right one back", f"nacre host accept {host['name']}"):
        assert words in said
    assert (host["state"], host["guests"], host["orphans"]) == ("barred", 1, 1)
    [orphan] = case.orphans()
    assert (orphan["id"], orphan["name"], orphan["adoptable"]) == (server["id"], "kept", False)
    for verb in ("adopt", "forget"):
        assert "takes no orders" in case.fails("host", verb, server["id"])
    kept(case, server["id"])

    case.nacre("down")  # the right one is put back: all is as it was
    for file in database_of(case):
        file.unlink()
    for file in away.iterdir():
        shutil.copy(file, case.data / file.name)
    case.up()
    assert case.until_active("kept", 1)[0]["addresses"] == server["addresses"]
    case.nacre("down")  # or it is lost for good, and the operator says so
    for file in database_of(case):
        file.unlink()
    case.refused()
    assert case.accept() == 1
    assert "There is no project" in case.fails("host", "adopt", server["id"])
    adopted = json.loads(case.nacre("host", "adopt", server["id"], "--project", "demo", "--name", "again", "--json"))
    assert adopted["server"]["id"] == server["id"] and len(adopted["lost_security_groups"]) == 1
    case.cloud = Cloud("demo", str(case.data / "clouds.yaml"))
    [again] = case.until_active("again", 1)
    assert address(again) == address(server) and again["id"] == server["id"]
    assert case.host()["orphans"] == 0 and case.orphans() == []
    assert "unknown here" in case.fails("host", "adopt", server["id"])
    kept(case, server["id"])
    case.nacre("down")
    case.up()  # it is at home here
    server_url = f"{case.cloud.roots['compute']}/servers/{server['id']}"
    assert case.cloud.raw("POST", server_url + "/action", {"os-stop": None})[0] == 202
    case.wait(server["id"], "SHUTOFF")
    assert case.cloud.raw("DELETE", server_url)[0] == 204
    case.until_gone(server["id"])
    case.no_leaks()


def test_a_restored_backup_ends_no_guest_that_was_made_after_it(case: Case) -> None:
    old = case.create("old")
    backup = case.data.parent / "backup.db"
    with sqlite3.connect(case.data / "control" / "nacre.db") as source, sqlite3.connect(backup) as target:
        source.backup(target)
    late, unwanted = case.create("late"), case.create("unwanted")
    case.nacre("down")
    for file in database_of(case):
        file.unlink()
    shutil.copy(backup, case.data / "control" / "nacre.db")

    said = case.refused()
    assert "later state of the database" in said and "nacre host accept" in said
    assert {o["id"] for o in case.orphans()} == {late["id"], unwanted["id"]}
    kept(case, old["id"], late["id"], unwanted["id"])

    assert case.accept() == 2
    assert [s["id"] for s in case.until_active("old", 1)] == [old["id"]]
    case.nacre("host", "adopt", late["id"])
    [again] = case.until_active("late", 1)
    assert again["addresses"] == late["addresses"] and again["tenant_id"] == late["tenant_id"]
    case.nacre("host", "forget", unwanted["id"])
    case.until_gone(unwanted["id"])
    kept(case, old["id"], late["id"])
    for server in (old, late):
        assert case.cloud.raw("DELETE", f"{case.cloud.roots['compute']}/servers/{server['id']}")[0] == 204
    case.no_leaks()


@pytest.mark.postgres
def test_up_with_another_empty_postgresql_ends_no_guest(postgres_server: str, tmp_path: Path) -> None:
    first, second = new_database(postgres_server), new_database(postgres_server)
    case = Case(tmp_path, first)
    try:
        server = case.create("kept")
        case.nacre("down")
        assert "servers of another cloud" in case.refused("--database", second)
        assert case.host()["state"] == "barred"
        kept(case, server["id"])
        case.nacre("down")
        case.up()
        assert case.until_active("kept", 1)[0]["id"] == server["id"]
    finally:
        nacre(case.data, "down", **case.environ)


def test_a_restored_build_ends_no_guest_and_the_bar_stays_until_an_operator_decides(tmp_path: Path) -> None:
    """However much the restored cloud is worked with meanwhile."""
    case = Slow(tmp_path)
    try:
        server = {"server": {**case.body["server"], "name": "built"}}
        built = case.call("POST", "compute", "/servers", server)["server"]["id"]
        time.sleep(1.5)
        backup = tmp_path / "backup.db"
        with sqlite3.connect(case.data / "control" / "nacre.db") as source, sqlite3.connect(backup) as target:
            source.backup(target)
        case.until_active("built", 1)
        late = case.create("late")["id"]
        case.nacre("down")
        for file in database_of(case):
            file.unlink()
        shutil.copy(backup, case.data / "control" / "nacre.db")
        assert "later state of the database" in case.refused()
        for name in ("a", "b", "c"):
            case.call("POST", "compute", "/servers", {"server": {**case.body["server"], "name": name}})
            time.sleep(2)
        assert case.host()["state"] == "barred"
        assert case.guests() == {built, late}
        found = {s["id"]: s["status"] for s in case.call("GET", "compute", "/servers/detail")["servers"]}
        assert found[built] == "BUILD"
        assert case.accept() == 1
        [again] = case.until_active("built", 1)
        assert again["id"] == built
        kept(case, built, late)
    finally:
        nacre(case.data, "down", **case.environ)
