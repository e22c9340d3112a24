"""Differences that are older than all changes that are kept go, and those of what is gone; and what was read whole for
hosts that do not ask any more."""

from functools import partial
from typing import Any

import structlog

from nacre.base.bounds import pieces
from nacre.base.clock import Clock
from nacre.base.db import Database
from nacre.network.hosts.members import MEMBERS, Numbered
from nacre.network.hosts.notifications import GROUP, NETWORK, DifferenceNotifier
from nacre.network.hosts.placed import PLACED
from nacre.network.hosts.routed import ROUTED
from nacre.network.hosts.wholes import Shared

log = structlog.get_logger()

KINDS: tuple[tuple[str, Numbered[Any, Any]], ...] = (GROUP, MEMBERS), (NETWORK, PLACED)
#: Seconds between two looks; so many things of one transaction, between which others write.
TRIM, AT_ONCE = 60.0, 100


async def run(db: Database, clock: Clock, notifier: DifferenceNotifier, shared: Shared) -> None:
    """For ever."""
    while True:
        await clock.sleep(TRIM)
        shared.tidy()
        try:
            await trim(db, notifier)
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
