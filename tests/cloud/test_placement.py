"""Placement as users and operators see it: real processes, one host."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.client import Cloud

from nacre.cli.supervisor import free_port
from tests.cloud.process_lab import Lab, nacre

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


class PlacementLab(Lab):
    """With figures for Prometheus."""

    def __init__(self, folder: Path):
        self.metrics = free_port()
        super().__init__(folder)

    def up(self) -> None:
        self.environ |= {"NACRE_METRICS_PORT": str(self.metrics), "NACRE_NODE_NAME": "compute-seven"}
        super().up()

    def create(self, name: str, hints: dict[str, Any] | None = None, who: Cloud | None = None, **more: Any
               ) -> tuple[int, Any]:
        body = {"server": {**self.body["server"], "name": name, **more}, "os:scheduler_hints": hints or {}}
        cloud = who or self.cloud
        status, _, data = cloud.raw("POST", f"{cloud.roots['compute']}/servers", body)
        return status, json.loads(data)

    def until_error(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """The servers of that name, as their own user sees them."""
        while True:
            servers: Any = self.call("GET", "compute", f"/servers/detail?name=^{name}")["servers"]
            if len([s for s in servers if s["status"] == "ERROR"]) == count:
                return [s for s in servers if s["status"] == "ERROR"]

    def trace(self, server: str) -> Any:
        return json.loads(self.nacre("trace", server, "--json"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlacementLab]:
    made = PlacementLab(tmp_path_factory.mktemp("placement"))
    made.lift_quotas()
    yield made
    made.nacre("down")


def host_of(lab: PlacementLab) -> str:
    admin = Cloud("nacre", str(lab.data / "clouds.yaml"))
    return str(admin.call("GET", "compute", "/os-hypervisors")["hypervisors"][0]["hypervisor_hostname"])


def test_a_plan_changes_nothing_and_says_where(lab: PlacementLab) -> None:
    plan = json.loads(lab.nacre("plan", "--flavor", "m1.tiny", "--count", "3", "--json"))
    assert plan == {"count": 3, "placed": 3, "hosts": [{"host": host_of(lab), "count": 3}], "reason": None,
                    "nearest": None}
    assert plan == json.loads(lab.nacre("plan", "--flavor", "m1.tiny", "--count", "3", "--json"))
    assert lab.call("GET", "compute", "/servers")["servers"] == []
    words = lab.nacre("plan", "--flavor", "m1.tiny", "--hint", "disk_shares=7")
    assert "0 of 1 would be placed" in words and "1 lacks 7 shares of a disk" in words
    assert f"nearest: {host_of(lab)} lacks 7 shares of a disk" in words.replace("\n", " ")


def test_a_plan_is_for_administrators_and_names_what_is_wrong(lab: PlacementLab) -> None:
    body = {"plan": {"flavorRef": lab.body["server"]["flavorRef"], "imageRef": lab.body["server"]["imageRef"]}}
    plans = f"{lab.cloud.roots['compute']}/os-nacre-plans"
    assert lab.cloud.raw("POST", plans, body)[0] == 403
    admin = Cloud("nacre", str(lab.data / "clouds.yaml"))
    for change, field in (({"count": 0}, "count"), ({"count": 1001}, "count"), ({"more": 1}, "more"),
                          ({"flavorRef": "none"}, "Flavor none")):
        status, _, data = admin.raw("POST", plans, {"plan": {**body["plan"], **change}})
        assert status == 400 and field in json.loads(data)["badRequest"]["message"], data
    done = nacre(lab.data, "plan", "--flavor", "nothing")
    assert done.returncode == 1 and "m1.tiny" in done.stderr


def test_why_no_host_fits_without_naming_hosts_to_users(lab: PlacementLab) -> None:
    status, _ = lab.create("toomuch", {"disk_shares": 5})
    assert status == 202
    (server,) = lab.until_error("toomuch")
    host = host_of(lab)
    assert server["fault"]["message"] == ("No valid host was found. 0 of 1 hosts fit: 1 lacks 5 shares of a disk; the "
                                          "nearest lacks 5 shares of a disk")
    assert host not in json.dumps(server)
    trace = lab.trace(server["id"])  # an administrator's view
    (step,) = [s for s in trace["actions"][0]["steps"] if s["step"] == "schedule"]
    assert step["result"] == "Error"
    admin = Cloud("nacre", str(lab.data / "clouds.yaml"))
    fault = admin.call("GET", "compute", f"/servers/{server['id']}")["server"]["fault"]
    assert fault["details"] == f"{host} lacks 5 shares of a disk"


@pytest.mark.parametrize(("hints", "field"), [
    ({"query": '["=", "$nothing", 1]'}, "query"), ({"query": "no"}, "query"), ({"scheduler_host_match": "("}, "match"),
    ({"network_bandwidth": -1}, "network_bandwidth"), ({"disk_bandwidth": "much"}, "disk_bandwidth"),
    ({"disk_shares": 10**9}, "disk_shares"), ({"query": {"a": 1}}, "query")])
def test_hints_that_cannot_be_read_are_refused_by_name(lab: PlacementLab, hints: dict[str, Any], field: str) -> None:
    status, answer = lab.create("bad", hints)
    assert status == 400 and field in answer["badRequest"]["message"]


def test_hints_that_name_a_host_are_for_administrators(lab: PlacementLab) -> None:
    for hint in ({"scheduler_host": host_of(lab)}, {"selected_dir": "/srv"}):
        assert lab.create("named", hint)[0] == 403


def test_an_anti_affinity_group_has_one_server_a_host_and_min_count_takes_what_there_is(lab: PlacementLab) -> None:
    group = lab.cloud.call("POST", "compute", "/os-server-groups", {"server_group": {
        "name": "apart", "policy": "anti-affinity"}})["server_group"]["id"]
    lab.create("apart", {"group": group}, min_count=1, max_count=3)
    failed = lab.until_error("apart", 2)
    assert {s["fault"]["message"] for s in failed} == {
        "No valid host was found. 0 of 1 hosts fit: 1 has a server of the group"}
    (built,) = {s["id"] for s in lab.call("GET", "compute", "/servers?name=^apart")["servers"]} - {
        s["id"] for s in failed}
    lab.wait(built, "ACTIVE")
    soft = lab.cloud.call("POST", "compute", "/os-server-groups", {"server_group": {
        "name": "soft", "policy": "soft-anti-affinity"}})["server_group"]["id"]
    lab.create("soft", {"group": soft}, min_count=2, max_count=2)
    lab.until_active("soft", 2)


def test_an_aggregate_counts_at_once(lab: PlacementLab) -> None:
    admin, host = Cloud("nacre", str(lab.data / "clouds.yaml")), host_of(lab)
    made = admin.call("POST", "compute", "/os-aggregates", {"aggregate": {"name": "fast", "availability_zone": "east"}})
    ident = made["aggregate"]["id"]
    admin.call("POST", "compute", f"/os-aggregates/{ident}/action", {"add_host": {"host": host}})
    lab.create("east", availability_zone="east")
    lab.until_active("east", 1)
    admin.call("POST", "compute", f"/os-aggregates/{ident}/action", {"set_metadata": {"metadata": {
        "filter_tenant_id": "nobody"}}})
    lab.create("others")
    assert "1 is kept for other projects" in lab.until_error("others")[0]["fault"]["message"]
    for server in lab.call("GET", "compute", "/servers?name=east")["servers"]:  # type: ignore[attr-defined]
        lab.cloud.raw("DELETE", f"{lab.cloud.roots['compute']}/servers/{server['id']}")
        lab.wait(server["id"], "gone")
    admin.call("POST", "compute", f"/os-aggregates/{ident}/action", {"remove_host": {"host": host}})
    lab.create("again")
    lab.until_active("again", 1)


def test_figures_for_prometheus(lab: PlacementLab) -> None:
    text = urllib.request.urlopen(f"http://127.0.0.1:{lab.metrics}/metrics", timeout=10).read().decode()
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("nacre_"))
    assert float(figures["nacre_scheduler_placed_total"]) >= 3
    assert float(figures['nacre_scheduler_hosts_kept_out_total{reason="lack disk"}']) >= 1
    assert float(figures["nacre_scheduler_request_seconds_count"]) >= 3
