"""A light client for benchmarks: http.client with one kept-alive connection a thread, so that the client's own cost
stays small. Works against any OpenStack-compatible cloud named in a clouds.yaml."""

import http.client
import json
import os
import ssl
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

#: A connection that nobody used for so long (seconds) may be closed by the server at any moment.
IDLE = 2.0


class Cloud:
    """One cloud of a clouds.yaml ($OS_CLIENT_CONFIG_FILE or the file given)."""

    def __init__(self, name: str, file: str | None = None, microversion: str = "2.90"):
        path = Path(file or os.environ.get("OS_CLIENT_CONFIG_FILE", "clouds.yaml"))
        entry = yaml.safe_load(path.read_text())["clouds"][name]
        self.auth, self._trust = entry["auth"], ssl.create_default_context(cafile=entry.get("cacert"))
        self.microversion = microversion
        self._local = threading.local()
        self.token, self.roots = "", {}
        self.login()

    def password_body(self) -> dict[str, Any]:
        a = self.auth
        return {"auth": {"identity": {"methods": ["password"], "password": {"user": {
            "name": a["username"], "password": a["password"],
            "domain": {"name": a.get("user_domain_name", "Default")}}}},
            "scope": {"project": {"name": a["project_name"],
                                  "domain": {"name": a.get("project_domain_name", "Default")}}}}}

    def login(self) -> None:
        url = self.auth["auth_url"].rstrip("/") + "/auth/tokens"
        status, headers, body = self.raw("POST", url, self.password_body())
        if status != 201:
            raise SystemExit(f"no token: {status} {body!r}")
        self.token = headers["x-subject-token"]
        for service in json.loads(body)["token"]["catalog"]:
            self.roots[service["type"]] = next(
                e["url"] for e in service["endpoints"] if e["interface"] == "public").rstrip("/")
        for kind, version in (("network", "/v2.0"), ("image", "/v2")):
            if not self.roots[kind].endswith(version):
                self.roots[kind] += version

    def raw(self, method: str, url: str, body: Any = None, headers: dict[str, str] | None = None
            ) -> tuple[int, dict[str, str], bytes]:
        """One request on this thread's connection: status, headers in lower case, body. body: JSON, or bytes."""
        parts = urlsplit(url)
        pool: dict[str, http.client.HTTPConnection] = self._local.__dict__.setdefault("pool", {})
        if parts.netloc not in pool:
            pool[parts.netloc] = http.client.HTTPConnection(parts.netloc, timeout=300) if parts.scheme == "http" else (
                http.client.HTTPSConnection(parts.netloc, timeout=300, context=self._trust))
        connection = pool[parts.netloc]
        if time.monotonic() - self._local.__dict__.get("used", 0.0) > IDLE:
            connection.close()  # made anew by the request
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        send = {"X-Auth-Token": self.token, "Content-Type": "application/json",
                "OpenStack-API-Version": f"compute {self.microversion}", **(headers or {})}
        target = parts.path + ("?" + parts.query if parts.query else "")
        for attempt in (1, 2):
            try:
                connection.request(method, target, data, send)
                answer = connection.getresponse()
                self._local.used = time.monotonic()
                return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
            except (http.client.HTTPException, OSError):
                connection.close()
                if attempt == 2 or method != "GET":
                    raise
        raise AssertionError("not reached")

    def call(self, method: str, service: str, path: str, body: Any = None) -> Any:
        """The JSON of a call that must succeed."""
        status, _, data = self.raw(method, self.roots[service] + path, body)
        if status >= 400:
            raise SystemExit(f"{method} {service} {path}: {status} {data[:400]!r}")
        return json.loads(data) if data else None


def percentile(values: list[float], p: float) -> float:
    """The p-th percentile (0-100), nearest rank, of milliseconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(p / 100 * (len(ordered) - 1)))]


def summary(values: list[float]) -> dict[str, float]:
    return {"n": len(values), "p50_ms": round(percentile(values, 50), 2), "p99_ms": round(percentile(values, 99), 2),
            "min_ms": round(min(values), 2)}


def timed(function: Any, *args: Any) -> tuple[float, Any]:
    """Milliseconds and result of a call."""
    begin = time.perf_counter()
    result = function(*args)
    return (time.perf_counter() - begin) * 1000, result
