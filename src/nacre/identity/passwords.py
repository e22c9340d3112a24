"""Passwords: argon2, off the loop, a few at a time, and as slow for users that do not exist."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from nacre.base.serving.slots import Slots

MAX_PASSWORD = 4096


class Passwords:
    """Hashes and verifies. memory in KiB; parallel: how many run at once (each takes a core and `memory`); waiting: how
    many of one address, and of all, may wait for those. Beyond: TooMany, Unavailable."""

    def __init__(self, *, time_cost: int = 2, memory: int = 19456, parallel: int = 2,
                 waiting: tuple[int, int] = (40, 80)):
        self._hasher = PasswordHasher(time_cost=time_cost, memory_cost=memory, parallelism=1)
        self._slots = Slots(parallel, *waiting)
        self._decoy = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """The text to store."""
        async with self._slots.slot():
            return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether it is the one. `stored` None (no such user, or no password): no, after as long a time."""
        async with self._slots.slot():
            return await asyncio.to_thread(self._verify, stored or self._decoy, password) and stored is not None

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False
