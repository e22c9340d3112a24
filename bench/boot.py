"""How fast servers come and go: against any OpenStack-compatible endpoint.

    python bench/boot.py --cloud nacre --clouds .nacre/clouds.yaml [--quick] [--json FILE]

Measures: token issue and validation; time to the 202 and to ACTIVE, sequential and at concurrency 10, with and
without a port; servers per second to all ACTIVE for 100 and 1,000; deletes; list and show latencies. Everything made is
deleted. The cloud needs one image and one flavor of at least 64 MB; quotas of the project are lifted where allowed.
"""

import argparse
import json
import platform
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from client import Cloud, summary, timed

POLL = 0.005


class Bench:
    """The measurements over one cloud."""

    def __init__(self, cloud: Cloud):
        self.cloud = cloud
        self.image = cloud.call("GET", "image", "/images")["images"][0]["id"]
        flavors = cloud.call("GET", "compute", "/flavors/detail")["flavors"]
        self.flavor = min((f for f in flavors if f["ram"] >= 64), key=lambda f: (f["ram"], f["disk"]))["id"]
        self.network = self._network()

    def _network(self) -> str:
        for net in self.cloud.call("GET", "network", "/networks?name=bench")["networks"]:
            return str(net["id"])
        net = self.cloud.call("POST", "network", "/networks", {"network": {"name": "bench"}})["network"]
        self.cloud.call("POST", "network", "/subnets", {"subnet": {
            "network_id": net["id"], "ip_version": 4, "cidr": "10.99.0.0/16"}})
        return str(net["id"])

    def lift_quotas(self) -> None:
        """-1 for what the runs need; a cloud that forbids it keeps its own."""
        project = self.cloud.call("GET", "identity", "/auth/projects" if self.cloud.roots["identity"].endswith("/v3")
                                  else "/v3/auth/projects")["projects"]
        mine = next(p["id"] for p in project if p["name"] == self.cloud.auth["project_name"])
        url = self.cloud.roots["compute"] + f"/os-quota-sets/{mine}"
        self.cloud.raw("PUT", url, {"quota_set": {"instances": -1, "cores": -1, "ram": -1}})
        url = self.cloud.roots["network"] + f"/quotas/{mine}"
        self.cloud.raw("PUT", url, {"quota": {"port": -1, "security_group": -1}})

    def lift(self, other: Cloud, instances: int) -> None:
        """So many servers for another cloud's project."""
        project = next(p["id"] for p in self.cloud.call("GET", "identity", "/v3/projects")["projects"]
                       if p["name"] == other.auth["project_name"])
        self.cloud.call("PUT", "compute", f"/os-quota-sets/{project}", {
            "quota_set": {"instances": instances, "cores": -1, "ram": -1}})

    def create(self, name: str, port: bool, count: int = 1) -> str:
        body = {"server": {"name": name, "imageRef": self.image, "flavorRef": self.flavor, "min_count": count,
                           "max_count": count, "networks": [{"uuid": self.network}] if port else "none"}}
        return str(self.cloud.call("POST", "compute", "/servers", body)["server"]["id"])

    def wait_active(self, server: str) -> None:
        while True:
            status = self.cloud.call("GET", "compute", f"/servers/{server}")["server"]["status"]
            if status == "ACTIVE":
                return
            if status == "ERROR":
                fault = self.cloud.call("GET", "compute", f"/servers/{server}")["server"].get("fault")
                raise SystemExit(f"server {server} went to ERROR: {fault}")
            time.sleep(POLL)

    def wait_all(self, prefix: str, count: int) -> None:
        """Until `count` servers of that name prefix are ACTIVE, by the list."""
        while True:
            path = f"/servers?limit=1000&name=^{prefix}&status="
            active = 0 if count > 1000 else len(self.cloud.call("GET", "compute", path + "ACTIVE")["servers"])
            if active >= count:
                return
            if self.cloud.call("GET", "compute", path + "ERROR")["servers"]:
                raise SystemExit("a server went to ERROR")
            time.sleep(0.05)

    def delete_all(self, prefix: str) -> tuple[int, float]:
        """Delete by name prefix at concurrency 10; (how many, seconds until the last is gone)."""
        begin, total = time.perf_counter(), 0
        while servers := self.cloud.call("GET", "compute", f"/servers?limit=1000&name=^{prefix}")["servers"]:
            if not total:
                total = len(servers)
                with ThreadPoolExecutor(10) as pool:
                    list(pool.map(lambda s: self.cloud.raw(
                        "DELETE", self.cloud.roots["compute"] + f"/servers/{s['id']}"), servers))
            time.sleep(0.02)
        return total, time.perf_counter() - begin

    def sequential(self, port: bool, rounds: int) -> dict[str, Any]:
        accepted, active = [], []
        for n in range(rounds):
            begin = time.perf_counter()
            took, server = timed(self.create, f"seq{n}", port)
            accepted.append(took)
            self.wait_active(server)
            active.append((time.perf_counter() - begin) * 1000)
        self.delete_all("seq")
        return {"202": summary(accepted), "active": summary(active)}

    def crowd(self, port: bool, count: int, workers: int = 10) -> dict[str, Any]:
        """`count` creates at the given concurrency, to all ACTIVE."""
        cpu, begin = self._client_cpu(), time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            accepted = list(pool.map(lambda n: timed(self.create, f"crowd{n}", port)[0], range(count)))
        self.wait_all("crowd", count)
        took = time.perf_counter() - begin
        client = self._client_cpu() - cpu
        gone, seconds = self.delete_all("crowd")
        return {"202": summary(accepted), "servers_per_s": round(count / took, 1),
                "client_cpu_s": round(client, 2), "deletes_per_s": round(gone / seconds, 1)}

    def one_request(self, port: bool, count: int) -> dict[str, Any]:
        begin = time.perf_counter()
        accepted, _ = timed(self.create, "multi", port, count)
        self.wait_all("multi", count)
        took = time.perf_counter() - begin
        self.delete_all("multi")
        return {"202_ms": round(accepted, 1), "servers_per_s": round(count / took, 1)}

    def reads(self, count: int) -> dict[str, Any]:
        """List and show, with `count` servers with a port each."""
        self.create("reads", True, count)
        self.wait_all("reads", count)
        one = self.cloud.call("GET", "compute", "/servers?limit=1")["servers"][0]["id"]
        paths = {"show": ("compute", f"/servers/{one}"), f"detail_{count}": ("compute", "/servers/detail?limit=1000"),
                 "ports": ("network", "/ports"), "flavors": ("compute", "/flavors/detail")}
        result: dict[str, Any] = {}
        for name, (service, path) in paths.items():
            result[name] = summary([timed(self.cloud.call, "GET", service, path)[0] for _ in range(30)])
            result[name]["per_s_at_8"] = self.rate(lambda s=service, p=path: self.cloud.call("GET", s, p))
        self.delete_all("reads")
        return result

    def tokens(self, rounds: int) -> dict[str, Any]:
        root = self.cloud.auth["auth_url"].rstrip("/")
        issue = [timed(self.cloud.raw, "POST", root + "/auth/tokens", self.cloud.password_body())[0]
                 for _ in range(rounds)]
        rescope = {"auth": {"identity": {"methods": ["token"], "token": {"id": self.cloud.token}},
                            "scope": self.cloud.password_body()["auth"]["scope"]}}
        subject = {"X-Subject-Token": self.cloud.token}
        return {"issue_by_password": summary(issue),
                "rescope_per_s": self.rate(lambda: self.cloud.raw("POST", root + "/auth/tokens", rescope)),
                "validate_per_s_at_8": self.rate(lambda: self.cloud.raw("GET", root + "/auth/tokens", None, subject))}

    def ports(self, rounds: int) -> dict[str, Any]:
        made: list[str] = []

        def make() -> None:
            body = {"port": {"network_id": self.network}}
            made.append(self.cloud.call("POST", "network", "/ports", body)["port"]["id"])

        one = summary([timed(make)[0] for _ in range(rounds)])
        one["per_s_at_8"] = self.rate(make, seconds=1.0)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda p: self.cloud.call("DELETE", "network", f"/ports/{p}"), made))
        return one

    @staticmethod
    def rate(function: Any, workers: int = 8, seconds: float = 2.0) -> float:
        """Calls a second at that concurrency."""
        end, done, lock = time.perf_counter() + seconds, [0], threading.Lock()

        def loop() -> None:
            n = 0
            while time.perf_counter() < end:
                function()
                n += 1
            with lock:
                done[0] += n

        with ThreadPoolExecutor(workers) as pool:
            for future in [pool.submit(loop) for _ in range(workers)]:
                future.result()
        return round(done[0] / seconds, 1)

    @staticmethod
    def _client_cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cloud", default="nacre")
    parser.add_argument("--clouds", default=None, help="clouds.yaml")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no 1,000")
    parser.add_argument("--json", default=None, help="also write the result here")
    args = parser.parse_args()
    bench = Bench(Cloud(args.cloud, args.clouds))
    bench.lift_quotas()
    rounds = 5 if args.quick else 20
    machine = f"{platform.machine()} {platform.release()}"
    result: dict[str, Any] = {"machine": machine, "date": time.strftime("%Y-%m-%d")}

    def measure(name: str, function: Any, *values: Any) -> None:
        result[name] = function(*values)
        print(name, json.dumps(result[name]), flush=True)

    measure("tokens", bench.tokens, rounds)
    for port in (False, True):
        word = "port" if port else "no port"
        measure(f"sequential, {word}", bench.sequential, port, rounds)
        measure(f"100 at concurrency 10, {word}", bench.crowd, port, 20 if args.quick else 100)
        measure(f"one request for 50, {word}", bench.one_request, port, 10 if args.quick else 50)
    if not args.quick:
        measure("1000 at concurrency 10, port", bench.crowd, True, 1000)
    measure("ports", bench.ports, rounds)
    measure("reads of 100", bench.reads, 10 if args.quick else 100)
    if args.json:
        with open(args.json, "w") as out:
            json.dump(result, out, indent=1)


if __name__ == "__main__":
    main()
