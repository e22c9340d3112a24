"""The rows of sealed keys, as units of work. A key is staged, then primary, then secondary, then gone.

The staged key is the next primary: every control has had time to read it before the first thing is sealed by it.
"""

import base64
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import sqlalchemy as sa
from cryptography.fernet import Fernet

from nacre.base.errors import NacreError
from nacre.identity.tables import sealed_keys

STAGED, PRIMARY, SECONDARY = "staged", "primary", "secondary"
#: What is rotated, and made at the first start. Besides there is the `authority`, made at the first use of TLS.
PURPOSES = ("token", "credential", "join")
SIZE = 32

_K = sealed_keys.c


class NoKeys(NacreError):
    """The database holds no keys of that purpose."""


class Sealer(Protocol):
    """What rows need of the seal key."""

    def seal(self, purpose: str, number: int, secret: bytes) -> bytes: ...
    def open(self, purpose: str, number: int, blob: bytes) -> bytes: ...


@dataclass(frozen=True, repr=False)
class Key:
    """An opened key. Its secret is in no representation of it."""

    number: int
    secret: bytes

    @cached_property
    def fernet(self) -> Fernet:
        """For what is encrypted with it."""
        return Fernet(base64.urlsafe_b64encode(self.secret))

    def __repr__(self) -> str:
        return f"Key({self.number})"


def held(conn: sa.Connection, *purposes: str) -> list[sa.RowMapping]:
    """The rows of these purposes (none named: of all), by purpose and number."""
    query = sa.select(sealed_keys).order_by(_K.purpose, _K.number)
    return list(conn.execute(query.where(_K.purpose.in_(purposes)) if purposes else query).mappings())


def primary(rows: Sequence[sa.RowMapping], purpose: str) -> sa.RowMapping:
    """Of the rows of a purpose that which seals now. Raises NoKeys."""
    for row in rows:
        if row["purpose"] == purpose and row["state"] == PRIMARY:
            return row
    raise NoKeys(f"The database holds no {purpose} keys: start the cloud once, then they are made.")


def add(conn: sa.Connection, seal: Sealer, key: tuple[str, int, str, bytes], now: float) -> None:
    """A new row. key: purpose, number, state, secret."""
    purpose, number, state, secret = key
    conn.execute(sa.insert(sealed_keys).values(
        purpose=purpose, number=number, state=state, blob=seal.seal(purpose, number, secret), created_at=now,
        changed_at=now))


def begin(conn: sa.Connection, seal: Sealer, purpose: str, now: float, secrets: Sequence[bytes]) -> None:
    """The first keys of a purpose. secrets: in the order of their numbers, the last the staged one's."""
    states = [SECONDARY] * (len(secrets) - 2) + [PRIMARY, STAGED]
    for number, (state, secret) in enumerate(zip(states, secrets, strict=True), 1):
        add(conn, seal, (purpose, number, state, secret), now)


def rotate(conn: sa.Connection, seal: Sealer, purpose: str, now: float) -> None:
    """The staged key becomes the primary, which becomes a secondary; a new one is staged. Raises NoKeys."""
    there = held(conn, purpose)
    newest = max(primary(there, purpose)["number"], *(row["number"] for row in there))
    for state, becomes in ((PRIMARY, SECONDARY), (STAGED, PRIMARY)):
        conn.execute(sa.update(sealed_keys).where(_K.purpose == purpose, _K.state == state).values(
            state=becomes, changed_at=now))
    add(conn, seal, (purpose, newest + 1, STAGED, os.urandom(SIZE)), now)


def reseal(conn: sa.Connection, old: Sealer, new: Sealer) -> int:
    """Seals every row anew; how many they were."""
    rows = held(conn)
    for row in rows:
        purpose, number = row["purpose"], row["number"]
        conn.execute(sa.update(sealed_keys).where(_K.purpose == purpose, _K.number == number).values(
            blob=new.seal(purpose, number, old.open(purpose, number, row["blob"]))))
    return len(rows)


def retired(conn: sa.Connection) -> list[tuple[str, int, float]]:
    """Purpose, number and time of retirement of every secondary key."""
    return [(r.purpose, r.number, r.changed_at) for r in conn.execute(
        sa.select(_K.purpose, _K.number, _K.changed_at).where(_K.state == SECONDARY))]


def remove(conn: sa.Connection, keys: Collection[tuple[str, int]]) -> None:
    """Secondary keys, by purpose and number."""
    for purpose, number in keys:
        conn.execute(sa.delete(sealed_keys).where(
            _K.purpose == purpose, _K.number == number, _K.state == SECONDARY))


def shown(row: Any) -> dict[str, Any]:
    """A row for people: never the key."""
    return {name: row[name] for name in ("purpose", "number", "state", "created_at", "changed_at")}
