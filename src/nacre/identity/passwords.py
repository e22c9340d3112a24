"""Passwords: argon2, off the loop, a few at a time, and as slow for users that do not exist."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MAX_PASSWORD = 4096


class Passwords:
    """Hashes and verifies. memory in KiB; parallel: how many run at once (each takes a core and `memory`)."""

    def __init__(self, *, time_cost: int = 2, memory: int = 19456, parallel: int = 2):
        self._hasher = PasswordHasher(time_cost=time_cost, memory_cost=memory, parallelism=1)
        self._parallel = parallel
        self._slots: asyncio.Semaphore | None = None
        self._decoy = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """The text to store."""
        async with self._slot():
            return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether it is the one. `stored` None (no such user, or no password): no, after as long a time."""
        async with self._slot():
            return await asyncio.to_thread(self._verify, stored or self._decoy, password) and stored is not None

    def _slot(self) -> asyncio.Semaphore:
        if self._slots is None:  # made in the loop that uses it
            self._slots = asyncio.Semaphore(self._parallel)
        return self._slots

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False
