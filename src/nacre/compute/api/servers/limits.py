"""What a request may say at most: counted before anything is made of it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from nacre.base.errors import BadRequest


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """hints: of a server, and values in each of them; hint_bytes: of all these, as JSON."""

    hints: int = 100
    hint_bytes: int = 16384

    def check_hints(self, hints: Mapping[str, Any]) -> None:
        """Raises BadRequest."""
        if len(hints) > self.hints:
            raise BadRequest(f"os:scheduler_hints: {len(hints)} hints were given, but {self.hints} are the most.",
                             field="os:scheduler_hints")
        for name, value in hints.items():
            if isinstance(value, list | dict) and len(value) > self.hints:
                raise BadRequest(f"os:scheduler_hints.{name[:64]}: {len(value)} values were given, but {self.hints} "
                                 "are the most.", field=f"os:scheduler_hints.{name[:64]}")
        if (size := len(msgspec.json.encode(hints))) > self.hint_bytes:
            raise BadRequest(f"os:scheduler_hints: {size} bytes were given, but {self.hint_bytes} are the most.",
                             field="os:scheduler_hints")


DEFAULTS = Limits()
