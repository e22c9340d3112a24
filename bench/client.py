"""A light client for benchmarks: works against any OpenStack-compatible cloud named in a clouds.yaml."""

import json
import os
import time
from pathlib import Path
from typing import Any

from nacre.cli.client import Session


class Cloud(Session):
    """One cloud of a clouds.yaml ($OS_CLIENT_CONFIG_FILE or the file given), logged in."""

    def __init__(self, name: str, file: str | None = None, microversion: str = "2.90"):
        super().__init__(Path(file or os.environ.get("OS_CLIENT_CONFIG_FILE", "clouds.yaml")), name, microversion, 300)
        self.login()

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
