"""What the scheduler counts, for `/metrics`."""

from prometheus_client import Counter, Gauge, Histogram

DECISIONS = Counter("nacre_scheduler_placed", "Servers for which a host was chosen")
REFUSED = Counter("nacre_scheduler_refused", "Servers for which no host was found")
HOSTS = Gauge("nacre_scheduler_hosts", "Hosts in the queues")
SECONDS = Histogram("nacre_scheduler_request_seconds", "Time of a placement request, all its servers together",
                    buckets=(.00003, .0001, .0003, .001, .003, .01, .03, .1, .3, 1))
