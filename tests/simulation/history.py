"""What happened, in order, and what should not have."""

import asyncio
import hashlib
from typing import Any


class History:
    """Lines of (time, who, what). Its digest is that of the run: the same seed gives the same."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.wrong: list[str] = []
        self._seen: set[str] = set()

    def add(self, who: str, what: str, *more: Any) -> None:
        now = asyncio.get_running_loop().time()
        self.lines.append(f"{now:9.3f} {who:8} {what}" + "".join(f" {each}" for each in more))

    def blame(self, what: str, *more: Any) -> None:
        """Something that must never be. The same is said once."""
        said = what + "".join(f" {each}" for each in more)
        if said not in self._seen:
            self._seen.add(said)
            self.add("WRONG", said)
            self.wrong.append(said)

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()[:16]
