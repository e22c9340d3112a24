"""The cloud's keys, for a control and for `nacre keys`: made, opened, rotated, and removed when nothing needs them."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
import structlog

from nacre.base.clock import Clock
from nacre.base.db import Database
from nacre.base.errors import Unavailable
from nacre.identity.keys import adopt, rows
from nacre.identity.keys.rows import Key
from nacre.identity.keys.seal import Seal, SealError, SealKey
from nacre.identity.keys.vault import Vault
from nacre.identity.tables import users

log = structlog.get_logger()

#: How long a join token may live at most, in seconds: its key is kept for so long.
JOIN_SECONDS = 7 * 86400.0
#: Clocks of controls differ, and a control may be stopped between choosing a key and using it.
MARGIN = 600.0
#: How often a control looks whether an old key may go.
TEND_SECONDS = 60.0


class Keys:
    """The rows and the seal key that opens them. token_lifetime: in seconds."""

    def __init__(self, db: Database, clock: Clock, seal: Seal, token_lifetime: float):
        self.db, self.clock, self._seal = db, clock, seal
        self._lifetimes = {"token": token_lifetime, "join": JOIN_SECONDS}
        self._opened: dict[tuple[str, int], tuple[bytes, Key]] = {}
        self.vault, self._ready = Vault(self.opened), False

    async def open(self) -> None:
        """At start: make the keys that are not there yet, or take them over from an earlier release's files, and open
        every one. Raises SealError if the seal key is not theirs. Called again it does nothing."""
        if self._ready:
            return
        found, made = await self.held(), False
        if not found and not self._seal.load():
            self._seal.make()
            made = True
        self._open_all(found)
        if missing := set(rows.PURPOSES) - {row["purpose"] for row in found}:
            await self.db.run(self._begin)
            found = await self.held()
            log.info("keys were made", purposes=sorted(missing))
        try:
            known = self._open_all(found)
        except SealError:
            if made:  # another control was first, with a seal key of its own: this one seals nothing
                self._seal.forget()
            raise
        if not adopt.remove(self._seal.folder, known):
            log.warning("files of keys that are not this cloud's were left", folder=str(self._seal.folder))
        self._ready = True

    async def held(self, *purposes: str) -> list[sa.RowMapping]:
        """The rows, sealed. Raises DatabaseUnavailable."""
        return await self.db.read(lambda conn: rows.held(conn, *purposes))

    def opened(self, row: Any) -> Key:
        """The key of a row. One that is known stays so if the seal key was changed and this control has not got the
        new one yet. Raises Unavailable."""
        name = row["purpose"], row["number"]
        blob, known = self._opened.get(name, (b"", None))
        if known is None or blob != row["blob"]:
            try:
                known = Key(row["number"], self._seal.open(*name, row["blob"]))
            except SealError as error:
                log.error("a key cannot be opened", purpose=name[0], number=name[1], why=str(error))
                if known is None:
                    raise Unavailable("The cloud's keys cannot be opened here. Tell the operator.") from None
            self._opened[name] = row["blob"], known
        return known

    async def rotate(self, purpose: str) -> None:
        """Seal with the staged key from now on. What credential keys encrypted is encrypted anew before this returns.
        Raises NoKeys, SealError."""
        self._open_all(await self.held())  # what a wrong seal key sealed would be lost
        now = self._now()
        await self.db.run(lambda conn: rows.rotate(conn, self._seal, purpose, now))
        if purpose == "credential":
            await self._renew_credentials()

    async def reseal(self, new: SealKey) -> int:
        """Seal every key anew, in one transaction; how many they were. Raises SealError."""
        return await self.db.run(lambda conn: rows.reseal(conn, self._seal, new))

    async def authority(self, make: Callable[[], bytes]) -> bytes:
        """The secret of the certificate authority, made at the first call anywhere. Raises SealError."""
        def unit(conn: sa.Connection) -> None:
            if not rows.held(conn, "authority"):
                rows.add(conn, self._seal, ("authority", 1, rows.PRIMARY, made), now)
        found = await self.held("authority")
        if not found:
            made, now = make(), self._now()
            await self.db.run(unit)
            found = await self.held("authority")
        row = rows.primary(found, "authority")
        return self._seal.open("authority", row["number"], row["blob"])

    async def tend(self) -> None:
        """For ever: remove keys when nothing that they sealed can be valid any more."""
        while True:
            await self.clean()
            await self.clock.sleep(TEND_SECONDS)

    async def clean(self) -> None:
        """Once what `tend` does."""
        old, now = await self.db.read(rows.retired), self._now()
        if any(purpose == "credential" for purpose, _, _ in old):
            await self._renew_credentials()
        due = [(purpose, number) for purpose, number, since in old
               if purpose in self._lifetimes and since + self._lifetimes[purpose] + MARGIN < now]
        if due:
            await self.db.run(lambda conn: rows.remove(conn, due))
            log.info("old keys were removed", keys=due)

    async def _renew_credentials(self) -> None:
        after: str | None = ""
        while after is not None:
            after = await self.db.run(partial(self.vault.renew, after=after))
        await self.db.run(self.vault.retire)

    def _open_all(self, found: Sequence[sa.RowMapping]) -> dict[str, list[bytes]]:
        """The secrets by purpose. Raises SealError."""
        known: dict[str, list[bytes]] = {}
        for row in found:
            known.setdefault(row["purpose"], []).append(
                self._seal.open(row["purpose"], row["number"], row["blob"]))
        return known

    def _begin(self, conn: sa.Connection) -> None:
        """The first keys of every purpose that has none. Files are another cloud's if the database is new."""
        there, now = {row["purpose"] for row in rows.held(conn)}, self._now()
        old = adopt.files(self._seal.folder) if conn.scalar(sa.select(users.c.id).limit(1)) else {}
        for purpose in rows.PURPOSES:
            if purpose in there:
                continue
            secrets = old.get(purpose) or [os.urandom(rows.SIZE), os.urandom(rows.SIZE)]
            rows.begin(conn, self._seal, purpose, now, secrets)
            if purpose == "credential" and purpose in old:
                adopt.encrypt_anew(conn, secrets, Key(len(secrets) - 1, secrets[-2]))

    def _now(self) -> float:
        return self.clock.now().timestamp()
