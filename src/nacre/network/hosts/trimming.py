"""Differences that are older than all changes that are kept go, and those of what is gone; and what was read whole for
hosts that do not ask any more; and up to which change there was news of what hosts route that were removed."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import sqlalchemy as sa
import structlog

from nacre.base.bounds import pieces
from nacre.base.clock import Clock
from nacre.base.db import Database
from nacre.base.durable import changes as outbox
from nacre.network.hosts.members import MEMBERS, Numbered
from nacre.network.hosts.notifications import GROUP, NETWORK, DifferenceNotifier
from nacre.network.hosts.placed import PLACED
from nacre.network.hosts.routed import ROUTED, ROUTING
from nacre.network.hosts.wholes import Shared

Nodes = Callable[[sa.Connection, Collection[str]], Collection[str]]

log = structlog.get_logger()

KINDS: tuple[tuple[str, Numbered[Any, Any]], ...] = (GROUP, MEMBERS), (NETWORK, PLACED)
#: Seconds between two looks; so many things of one transaction, between which others write.
TRIM, AT_ONCE = 60.0, 100


async def run(db: Database, clock: Clock, notifier: DifferenceNotifier, shared: Shared, nodes: Nodes) -> None:
    """For ever. nodes: as `NetworkParts`."""
    while True:
        await clock.sleep(TRIM)
        shared.tidy()
        try:
            await trim(db, notifier)
            await forget_hosts(db, notifier, nodes)
        except Exception as error:
            log.info("differences that are too old are not trimmed yet", why=str(error))


async def trim(db: Database, notifier: DifferenceNotifier) -> None:
    """Once: in the database, and in what the notifier keeps."""
    for _, things in KINDS:
        for some in pieces(await db.read(things.going), AT_ONCE):
            await db.run(partial(things.trim, ids=some))
    for kind, things in (*KINDS, (ROUTED, PLACED)):
        last = notifier.last[kind]
        for some in pieces(last, AT_ONCE):
            for id in set(some) - await db.read(partial(things.owned, ids=some)):
                last.pop(id, None)


async def forget_hosts(db: Database, notifier: DifferenceNotifier, nodes: Nodes) -> None:
    """Those that are no hosts of the cloud any more: whatever was written of them after they were removed. One that
    joins again begins anew, and asks for all."""
    last = notifier.last[ROUTING]
    for some in pieces(last, AT_ONCE):
        here = await db.read(partial(_here, nodes=nodes, names=some))
        if gone := set(some) - here:
            await db.run(partial(_forget, gone=gone))
            for host in gone:
                last.pop(host, None)


def _here(connection: sa.Connection, nodes: Nodes, names: Collection[str]) -> set[str]:
    return set(nodes(connection, names))


def _forget(connection: sa.Connection, gone: Collection[str]) -> None:
    for host in gone:
        outbox.forget(connection, ROUTING, host)
