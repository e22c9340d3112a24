"""The keys of one purpose as this process knows them: read at most once a second, and when a new number is met."""

import asyncio
import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

from nacre.identity.keys import rows
from nacre.identity.keys.rows import Key

if TYPE_CHECKING:
    from nacre.identity.keys.store import Keys

#: How long another process may go on sealing with a key that was replaced, in seconds.
POLL_SECONDS = 1.0


class Ring:
    """known: every key that may have sealed something valid, by number."""

    def __init__(self, keys: "Keys", purpose: str):
        self._keys, self._purpose = keys, purpose
        self.known: dict[int, Key] = {}
        self._primary = 0
        self._lock, self._looks, self._looked_at = asyncio.Lock(), 0, float("-inf")

    async def primary(self) -> Key:
        """The key to seal with. Raises NoKeys, Unavailable."""
        await self.refresh()
        return self.known[self._primary]

    async def refresh(self) -> None:
        """Notice what other processes rotated."""
        if self._keys.clock.monotonic() - self._looked_at >= POLL_SECONDS:
            await self._look()

    async def meet(self, number: int | None) -> None:
        """Before something is opened that names this key: know it, if it is there. None: it names none."""
        await self.refresh()
        if number is not None and number not in self.known and number > min(self.known):  # else it is gone for good
            await self._look()

    async def _look(self) -> None:
        """Read the keys: those who ask while that goes on share the next reading."""
        asked = self._looks
        async with self._lock:
            if self._looks > asked:
                return
            self._looks += 1
            now = self._keys.clock.monotonic()
            found = await self._keys.held(self._purpose)
            self.known = {row["number"]: self._keys.opened(row) for row in found}
            self._primary = rows.primary(found, self._purpose)["number"]
            self._looked_at = now


class Signer:
    """Signatures that only a control can make and verify: of join tokens."""

    def __init__(self, ring: Ring):
        self._ring = ring

    async def sign(self, payload: bytes) -> str:
        """The signature: the key's number, a dot, an HMAC of SHA-256 in URL-safe base64."""
        return _signature(await self._ring.primary(), payload)

    async def verify(self, payload: bytes, signature: str) -> bool:
        """Whether a control of this cloud signed exactly that. False too for a signature whose key is gone."""
        number = number_of(signature)
        if number is None:
            return False
        await self._ring.meet(number)
        key = self._ring.known.get(number)
        return key is not None and hmac.compare_digest(_signature(key, payload).encode(), signature.encode())


def number_of(text: str) -> int | None:
    """The number of the key that a text names before its first dot; None if it names none, in the one way to do it."""
    head, dot, _ = text.partition(".")
    plain = dot and head.isascii() and head.isdigit() and len(head) < 10 and head[0] != "0"
    return int(head) if plain else None


def _signature(key: Key, payload: bytes) -> str:
    made = hmac.new(key.secret, payload, hashlib.sha256).digest()
    return f"{key.number}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"
