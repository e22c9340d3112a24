"""What the scheduler counts, for Prometheus (`[metrics] port`)."""

import re
from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

PLACED = Counter("nacre_scheduler_placed", "Servers for which a host was chosen")
REFUSED = Counter("nacre_scheduler_refused", "Servers for which no host was found")
KEPT_OUT = Counter("nacre_scheduler_hosts_kept_out", "Hosts that refused requests passed over", ["reason"])
HOSTS = Gauge("nacre_scheduler_hosts", "Hosts in the queues")
SECONDS = Histogram("nacre_scheduler_request_seconds", "Time of a placement request, all its servers together",
                    buckets=(.00003, .0001, .0003, .001, .003, .01, .03, .1, .3, 1))


def refused(servers: int, reasons: Mapping[str, int]) -> None:
    """Count a refusal of so many servers; reasons: how many hosts each kept out."""
    REFUSED.inc(servers)
    for reason, hosts in reasons.items():
        KEPT_OUT.labels(label(reason)).inc(hosts)


def label(reason: str) -> str:
    """A reason without what differs from request to request: "lack memory", "are not in"."""
    if reason.startswith("lack "):
        return re.sub(r"^lack (?:[\d.]+|any) (?:\S+ of (?:a )?)?", "lack ", reason)[:40]
    return " ".join(reason.split()[:3])
