"""The answering side: finds the endpoint of a message, checks who may ask, runs it, turns errors into answers."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import msgspec
import structlog

from nacre.base.errors import Forbidden, Interrupted, NacreError, NotFound, Unavailable
from nacre.base.rpc.codec import Answer, Request, Verb, compatible, encode, failure, verbs
from nacre.base.rpc.recent import Recent
from nacre.base.rpc.target import Target

log = structlog.get_logger()

#: How many message ids are remembered, to drop what comes twice: of one peer, and of all.
REMEMBERED, REMEMBERED_IN_ALL = 1 << 10, 1 << 16

Allow = Sequence[str] | Mapping[str, Sequence[str]] | None


class Peer(msgspec.Struct, frozen=True):
    """Who sent a message, as proved by its key: a host's or process's name, and its role ("control", "node")."""

    name: str
    role: str


_peer: ContextVar[Peer | None] = ContextVar("rpc_peer", default=None)


def peer() -> Peer | None:
    """The sender of the message that is being answered; None outside of one (a direct call in this process)."""
    return _peer.get()


def _own_host(args: dict[str, Any], sender: Peer) -> None:
    """A node speaks only for itself: whatever host its message names, in an argument or a report, is its own."""
    if sender.role != "node":
        return
    for name, value in args.items():
        host = value if name == "host" else getattr(value, "host", None)
        if isinstance(host, str) and host != sender.name:
            raise Forbidden(f"Node {sender.name} may not speak for {host}.")


class Served(msgspec.Struct, frozen=True):
    """One endpoint. allow: roles that may ask (None: every known peer), for all verbs or verb by verb."""

    target: Target
    endpoint: Any
    verbs: dict[str, Verb]
    allow: Allow

    def check(self, verb: str, sender: Peer) -> None:
        """Raises Forbidden."""
        roles = self.allow.get(verb, ()) if isinstance(self.allow, Mapping) else self.allow
        if roles is not None and sender.role not in roles:
            raise Forbidden(f"A {sender.role} may not ask for {self.target.namespace}.{verb}.")


class Dispatcher:
    """The endpoints of one process."""

    def __init__(self) -> None:
        self.served: dict[str, Served] = {}
        self._seen = Recent[None](REMEMBERED, REMEMBERED_IN_ALL)

    def serve(self, target: Target, endpoint: Any, contract: type, allow: Allow) -> None:
        """Answer the contract's verbs with the endpoint's methods of the same names."""
        if missing := [name for name in verbs(contract) if not callable(getattr(endpoint, name, None))]:
            raise TypeError(f"{type(endpoint).__name__} does not have {contract.__name__}'s {', '.join(missing)}")
        self.served[target.namespace] = Served(target, endpoint, verbs(contract), allow)

    def latest(self, request: Request) -> bool:
        """Whether only the last of such requests of a host counts."""
        served = self.served.get(request.namespace)
        verb = served.verbs.get(request.verb) if served else None
        return verb is not None and verb.latest

    def again(self, request: Request, sender: Peer) -> bool:
        """Whether this message of the sender came before. Remembers it."""
        if (sender.name, request.id) in self._seen:
            return True
        self._seen.add(sender.name, request.id, None)
        return False

    async def answer(self, request: Request, sender: Peer) -> Answer:
        """Run the verb. Errors become part of the answer; unexpected ones are logged and told without detail."""
        token = _peer.set(sender)
        try:
            return Answer(request.id, None, msgspec.Raw(await self._run(request, sender)))
        except NacreError as error:
            return Answer(request.id, failure(error))
        except Interrupted as error:
            return Answer(request.id, failure(Unavailable(error.message, details=error.details)))
        except Exception:
            log.exception("rpc verb failed", namespace=request.namespace, verb=request.verb, peer=sender.name)
            return Answer(request.id, failure(NacreError(f"{request.namespace}.{request.verb} failed unexpectedly.")))
        finally:
            _peer.reset(token)

    async def _run(self, request: Request, sender: Peer) -> bytes:
        served = self.served.get(request.namespace)
        verb = served.verbs.get(request.verb) if served else None
        if served is None:  # perhaps not yet: the process is starting
            raise Unavailable(f"Nobody answers {request.namespace}.{request.verb} here.")
        if verb is None:
            raise NotFound(f"Nobody answers {request.namespace}.{request.verb} here.")
        if not compatible(request.version, served.target.version):
            raise NotFound(f"{request.namespace} {request.version} is not spoken here, {served.target.version} is.")
        served.check(request.verb, sender)
        args = verb.unpack(request.args)
        _own_host(args, sender)
        return encode(await getattr(served.endpoint, request.verb)(**args))
