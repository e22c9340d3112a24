"""Secrets that must be read again (blobs of credentials, OAuth's), encrypted with the credential keys.

The vault is unlocked inside the unit of work that writes or reads the texts: so the key is the primary of that very
transaction, and is there as long as a text needs it, however long a process was stopped in between.
"""

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
import structlog
from cryptography.fernet import InvalidToken

from nacre.base.errors import NacreError
from nacre.identity import tables as t
from nacre.identity.keys import rows
from nacre.identity.keys.rows import Key

log = structlog.get_logger()

PURPOSE = "credential"
#: Documents whose `sealed` is encrypted.
SEALED_DOCUMENTS = ("consumer", "oauth_request", "oauth_access")
#: How many texts are encrypted anew in one transaction.
BATCH = 200

_C, _D = t.credentials.c, t.documents.c


class Unreadable(NacreError):
    """No key of this cloud opens the text."""


class Unlocked:
    """The credential keys of one transaction."""

    def __init__(self, primary: Key, keys: Mapping[int, Key]):
        self.primary, self._keys = primary, keys

    def encrypt(self, text: str) -> str:
        """What to keep: the key's number, a dot, a Fernet token."""
        return f"{self.primary.number}.{self.primary.fernet.encrypt(text.encode()).decode()}"

    def decrypt(self, kept: str) -> str:
        """What was encrypted. Raises Unreadable."""
        number, _, token = kept.partition(".")
        key = self._keys.get(int(number)) if number.isascii() and number.isdigit() else None
        try:
            if key is not None:
                return key.fernet.decrypt(token).decode()
        except InvalidToken:
            pass
        raise Unreadable("A stored secret cannot be read: the key that it was encrypted with is not there.")

    def renewed(self, kept: str) -> str | None:
        """The same under the primary key; None if it is so already, or cannot be read."""
        if kept.startswith(f"{self.primary.number}."):
            return None
        try:
            return self.encrypt(self.decrypt(kept))
        except Unreadable:
            log.warning("a stored secret cannot be read with any key")
            return None


class Vault:
    """opened: the key of a row."""

    def __init__(self, opened: Callable[[Any], Key]):
        self._opened = opened

    def unlock(self, conn: sa.Connection) -> Unlocked:
        """For this transaction only. Raises NoKeys."""
        found = rows.held(conn, PURPOSE)
        keys = {row["number"]: self._opened(row) for row in found}
        return Unlocked(keys[rows.primary(found, PURPOSE)["number"]], keys)

    def renew(self, conn: sa.Connection, after: str) -> str | None:
        """Encrypts some of the older credentials with the primary key. after: the last id that was looked at; what is
        returned is the next such, None at the end."""
        batch = _renew(conn, self.unlock(conn), after, BATCH)
        return batch[-1] if len(batch) == BATCH else None

    def retire(self, conn: sa.Connection) -> None:
        """Encrypts with the primary key what is not yet, and removes the secondary keys, which nothing needs then."""
        unlocked = self.unlock(conn)
        _renew(conn, unlocked, "", None)
        rewrite_documents(conn, unlocked.renewed)
        rows.remove(conn, [(p, n) for p, n, _ in rows.retired(conn) if p == PURPOSE])


def _renew(conn: sa.Connection, unlocked: Unlocked, after: str, limit: int | None) -> list[str]:
    """The ids of credentials that another key than the primary encrypted, as many as were looked at."""
    query = sa.select(_C.id, _C.secret).where(
        _C.id > after, _C.secret.not_like(f"{unlocked.primary.number}.%")).order_by(_C.id).limit(limit)
    found = conn.execute(query).all()
    _write(conn, {id: unlocked.renewed(kept) for id, kept in found})
    return [id for id, _ in found]


def rewrite(conn: sa.Connection, change: Callable[[str], str | None]) -> None:
    """Replaces every encrypted text by what `change` makes of it; None: it stays."""
    _write(conn, {id: change(kept) for id, kept in conn.execute(sa.select(_C.id, _C.secret))})
    rewrite_documents(conn, change)


def rewrite_documents(conn: sa.Connection, change: Callable[[str], str | None]) -> None:
    """As `rewrite`, of documents only."""
    found = conn.execute(sa.select(_D.kind, _D.id, _D.extra).where(_D.kind.in_(SEALED_DOCUMENTS))).all()
    for kind, id, extra in found:
        if "sealed" in extra and (new := change(extra["sealed"])) is not None:
            conn.execute(sa.update(t.documents).where(_D.kind == kind, _D.id == id).values(
                extra={**extra, "sealed": new}))


def _write(conn: sa.Connection, texts: Mapping[str, str | None]) -> None:
    for id, text in texts.items():
        if text is not None:
            conn.execute(sa.update(t.credentials).where(_C.id == id).values(secret=text))
