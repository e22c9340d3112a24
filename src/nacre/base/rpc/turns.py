"""How much of a process one host may have at a time: so many verbs are at work, some more wait, the rest is refused. Of
a verb that says how things are (`codec.latest`) one is at work and one waits: a later one takes its place."""

from collections import deque

import msgspec

from nacre.base.rpc.codec import Request


class _Host(msgspec.Struct):
    """What is at work for one host, and what waits. last: by the verb, of those of which only the last counts."""

    working: int = 0
    waiting: deque[Request] = msgspec.field(default_factory=deque)
    alone: set[tuple[str, str]] = msgspec.field(default_factory=set)
    last: dict[tuple[str, str], Request] = msgspec.field(default_factory=dict)


class Turns:
    """at_once: verbs at work for one host; waiting: how many more may wait."""

    def __init__(self, at_once: int, waiting: int):
        self._at_once, self._waiting = at_once, waiting
        self._hosts: dict[str, _Host] = {}

    def __len__(self) -> int:
        """Of how many hosts something is at work."""
        return len(self._hosts)

    def full(self, who: str, *, latest: bool) -> bool:
        """Whether there is no room for one more of the host, not even to wait."""
        host = self._hosts.get(who)
        return host is not None and not latest and (
            host.working >= self._at_once and len(host.waiting) >= self._waiting)

    def come(self, who: str, request: Request, *, latest: bool) -> tuple[bool, Request | None]:
        """A request for which there is room. Whether it runs now, and whose place it took if it waits in another's."""
        host, verb = self._hosts.setdefault(who, _Host()), (request.namespace, request.verb)
        if latest:
            if verb in host.alone:
                before = host.last.get(verb)
                host.last[verb] = request
                return False, before
            host.alone.add(verb)
        elif host.working < self._at_once:
            host.working += 1
        else:
            host.waiting.append(request)
            return False, None
        return True, None

    def done(self, who: str, request: Request, *, latest: bool) -> Request | None:
        """One that ran is over. The next to run in its place."""
        host, verb = self._hosts[who], (request.namespace, request.verb)
        if latest:
            if (following := host.last.pop(verb, None)) is not None:
                return following
            host.alone.discard(verb)
        elif host.waiting:
            return host.waiting.popleft()
        else:
            host.working -= 1
        if not host.working and not host.alone:
            del self._hosts[who]
        return None
