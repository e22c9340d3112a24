"""What a request may say at most: counted before anything is made of it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from nacre.base.errors import BadRequest
from nacre.base.serving.inputs import MAX_PARTS
from nacre.compute.api.servers.parse import hints_of


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """hints: of a server, and values in each of them; hint_bytes: of all these, as JSON; networks: of a server."""

    hints: int = 100
    hint_bytes: int = 16384
    networks: int = 100

    def check_body(self, body: Any) -> None:
        """The hints and networks of a body that nobody has looked at yet: looking closely at very many takes long.
        Raises BadRequest."""
        servers = body.get("servers") if isinstance(body, dict) else None
        batch = servers[:MAX_PARTS] if isinstance(servers, list) else ()  # more are the schema's to refuse
        for part in (body.get("server") if isinstance(body, dict) else None, *batch):
            named = part.get("networks") if isinstance(part, dict) else None
            if isinstance(named, list) and len(named) > self.networks:
                raise BadRequest(f"networks: {len(named)} were given, but {self.networks} are the most of a server.",
                                 field="networks")
        for part in (body, *batch):
            hints = hints_of(part) if isinstance(part, dict) else None
            if isinstance(hints, dict):
                self.check_hints(hints)

    def check_hints(self, hints: Mapping[str, Any]) -> None:
        """Raises BadRequest."""
        if len(hints) > self.hints:
            raise BadRequest(f"os:scheduler_hints: {len(hints)} hints were given, but {self.hints} are the most.",
                             field="os:scheduler_hints")
        for name, value in hints.items():
            if isinstance(value, list | dict) and len(value) > self.hints:
                raise BadRequest(f"os:scheduler_hints.{name[:64]}: {len(value)} values were given, but {self.hints} "
                                 "are the most.", field=f"os:scheduler_hints.{name[:64]}")
        try:
            size = max(len(msgspec.json.encode(hints)), len(msgspec.msgpack.encode(hints)))
        except OverflowError:
            raise BadRequest("os:scheduler_hints: a number has more than 64 bits.",
                             field="os:scheduler_hints") from None
        if size > self.hint_bytes:
            raise BadRequest(f"os:scheduler_hints: {size} bytes were given, but {self.hint_bytes} are the most.",
                             field="os:scheduler_hints")


DEFAULTS = Limits()
