"""Whom the stories work with, and how patient they are."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from nacre.base.clock import Clock
from nacre.compute.contract import Ledger, Progress
from nacre.conductor.hosts import Hosts
from nacre.image.contract import Images
from nacre.network.contract import Network
from nacre.scheduler.contract import Hosts as HostRegistry
from nacre.scheduler.contract import Scheduler


@dataclass(frozen=True)
class StoryDeps:
    """Everything a story may call. cloud: its id, which every order carries; zones: host -> availability zone;
    attempts: hosts that are tried for a server; builds: servers built at the same time by one process."""

    cloud: Callable[[], str]
    ledger: Ledger
    progress: Progress
    scheduler: Scheduler
    registry: HostRegistry
    network: Network
    images: Images
    hosts: Hosts
    clock: Clock
    zones: Callable[[], Awaitable[Mapping[str, str]]]
    attempts: int = 3
    builds: int = 50
