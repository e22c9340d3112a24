"""Whom the stories work with, and how patient they are."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from nacre.base.clock import Clock
from nacre.compute.contract import Progress
from nacre.conductor.hosts import Hosts
from nacre.image.contract import Images
from nacre.network.contract import Network
from nacre.scheduler.contract import Scheduler


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of a host's silence, and numbers of attempts."""

    #: Before the spawn is sent, another host may be tried after this.
    before_spawn: float = 60.0
    #: After that only this host will do, so longer.
    after_spawn: float = 300.0
    #: For taking back, deleting and power.
    cleanup: float = 60.0
    attempts: int = 3
    #: Servers built at the same time by one conductor.
    builds: int = 50


@dataclass(frozen=True)
class Parts:
    """Everything a story may call."""

    progress: Progress
    scheduler: Scheduler
    network: Network
    images: Images
    hosts: Hosts
    clock: Clock
    zones: Callable[[], Awaitable[Mapping[str, str]]]
    #: Stories whose lease this process lost: what they were doing is their next runner's business now.
    lost: set[str] = field(default_factory=set)
    patience: Patience = field(default_factory=Patience)
