"""Seven bugs, each the loss of one check: that the simulation finds them shows that it would find others."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

from nacre.base.durable.changes import Changes
from nacre.base.durable.stories import Lease
from nacre.base.errors import Unavailable
from nacre.network import work as network_work
from nacre.network.hosts import notifications
from nacre.node.journal import Journal
from nacre.node.servers.state import NodeState
from nacre.scheduler.registry import HostRegistry


def _without_the_lease() -> Any:
    """Who writes for a story is not asked whether it is still that story's runner."""
    return mock.patch.object(Lease, "check", lambda self, connection: None)


def _without_the_epoch() -> Any:
    """A host takes orders of attempts that are over."""
    return mock.patch.object(Journal, "check", lambda self, server_id, epoch: None)


@contextmanager
def _without_the_numbers() -> Iterator[None]:
    """A report counts whenever it comes."""
    hear = HostRegistry.hear

    def all_are_new(self: HostRegistry, report: Any, *, anew: bool) -> Any:
        return hear(self, report, anew=True)

    with mock.patch.object(HostRegistry, "hear", all_are_new):
        yield


def _without_the_outbox() -> Any:
    """What other control processes did is not read."""
    async def nothing(self: Changes) -> None:
        return None

    return mock.patch.object(Changes, "look", nothing)


def _without_the_cloud() -> Any:
    """A host takes orders of whatever cloud."""
    def admit(self: NodeState, cloud: str) -> None:
        if not self.met:
            raise Unavailable("not yet")

    return mock.patch.object(NodeState, "admit", admit)


def _without_the_differences() -> Any:
    """Hosts are not told what changed in the wiring."""
    return mock.patch.object(notifications, "affected", lambda work: {})


def _without_the_places() -> Any:
    """Where a port is now is not written down for the other hosts of its network."""
    return mock.patch.object(network_work.Changes, "placed", lambda self, network_id, *port_ids: None)


PLANTED: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "lease": _without_the_lease, "epoch": _without_the_epoch, "numbers": _without_the_numbers,
    "outbox": _without_the_outbox, "cloud": _without_the_cloud, "wiring": _without_the_differences,
    "places": _without_the_places}
