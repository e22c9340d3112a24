"""The caller's side: a contract's methods, each sending one message. Derived, never written by hand."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol, TypeVar, cast

import msgspec

from nacre.base.errors import told_by
from nacre.base.rpc.codec import Answer, Request, Verb, error_from, verbs
from nacre.base.rpc.target import Target

C = TypeVar("C")

#: How long a call waits for its answer unless the client was prepared with another time, in seconds.
TIMEOUT = 30.0


class Sender(Protocol):
    """What a transport does for its clients."""

    async def ask(self, target: Target, request: Request, timeout: float) -> Answer:
        """The answer. Raises Unavailable if there is nobody, the queue is full, or no answer comes in time."""
        ...


@dataclass(frozen=True)
class Client:
    """Whom to ask, and how long to wait."""

    sender: Sender
    target: Target
    timeout: float = TIMEOUT

    def prepare(self, *, server: str | None = None, timeout: float | None = None,
                version: str | None = None) -> "Client":
        """The same client for one server of the topic, another time limit (seconds), or an older version."""
        changes: dict[str, Any] = {}
        if server is not None:
            changes["server"] = server
        if version is not None:
            changes["version"] = version
        target = msgspec.structs.replace(self.target, **changes) if changes else self.target
        return replace(self, target=target, timeout=self.timeout if timeout is None else timeout)

    async def send(self, verb: Verb, args: bytes) -> Any:
        """One message; its result."""
        request = Request(os.urandom(16), self.target.namespace, self.target.version, verb.name, msgspec.Raw(args))
        answer = await self.sender.ask(self.target, request, self.timeout)
        if answer.error is not None:
            error = error_from(answer.error)
            raise told_by(self.target.server or self.target.topic, error) if self.target.foreign else error
        return verb.result(answer.result)


def stub(contract: Callable[..., C], client: Client) -> C:
    """An object with the contract's methods that asks over `client`."""
    made: Any = _class
    return cast(C, made(contract)(client))


@cache
def _class(contract: type) -> Any:
    def init(self: Any, client: Client) -> None:
        self._client = client

    members: dict[str, Any] = {"__init__": init, "__slots__": ("_client",)}
    for name, verb in verbs(contract).items():
        members[name] = _method(verb)
    return type(f"{contract.__name__}Stub", (), members)


def _method(verb: Verb) -> Any:
    async def method(self: Any, *args: Any, **named: Any) -> Any:
        return await self._client.send(verb, verb.pack(*args, **named))

    method.__name__ = verb.name
    return method
