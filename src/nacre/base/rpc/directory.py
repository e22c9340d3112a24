"""Who may speak to a process, and where others are found. One a transport. Asked for each message, so nothing here
looks through all that are known."""

from collections import Counter
from collections.abc import Callable

from nacre.base.errors import Unavailable
from nacre.base.rpc.server import Peer
from nacre.base.rpc.target import Target

#: Where a process listens: (address, public key).
Where = tuple[str, str]


class Directory:
    """Peers by their public keys, and ways to processes by topic and name. shut_out: the names of those whose key was
    revoked. leaves: told when somewhere a process listens no more, while that may not be all that is to be said."""

    def __init__(self, leaves: Callable[[], None] = lambda: None) -> None:
        self._leaves = leaves
        self.peers: dict[str, Peer] = {}
        self.shut_out: set[str] = set()
        self._keys: dict[Peer, list[str]] = {}
        self._ways: dict[str, dict[str, Where]] = {}
        self._listening: Counter[Where] = Counter()
        self._left: set[Where] = set()

    def register(self, public_key: str, peer: Peer) -> None:
        """Let the holder of this key in, under this name and role."""
        if self.peers.get(public_key) != peer:
            self._drop(public_key)
            self.peers[public_key] = peer
            self._keys.setdefault(peer, []).append(public_key)
        self.shut_out.discard(peer.name)

    def revoke(self, public_key: str) -> None:
        """Shut a peer out, at once: also on connections that it has."""
        if (peer := self._drop(public_key)) is not None and peer not in self._keys:
            self.shut_out.add(peer.name)

    def _drop(self, public_key: str) -> Peer | None:
        if (peer := self.peers.pop(public_key, None)) is not None:
            self._keys[peer].remove(public_key)
            if not self._keys[peer]:
                del self._keys[peer]
        return peer

    def key_of(self, peer: Peer) -> str:
        """The key that a peer proved to have; empty: none is known."""
        return next(iter(self._keys.get(peer, ())), "")

    def route(self, topic: str, server: str, address: str, public_key: str) -> None:
        """Say where a process of a topic answers, and by which key it is known."""
        where = (address, public_key)
        if self._ways.get(topic, {}).get(server) != where:
            self.unroute(topic, server)
            self._ways.setdefault(topic, {})[server] = where
            self._listening[where] += 1

    def unroute(self, topic: str, server: str) -> None:
        """That process is not there any more."""
        if (where := self._ways.get(topic, {}).pop(server, None)) is not None:
            self._listening[where] -= 1
            if not self._listening[where]:
                del self._listening[where]
                self._left.add(where)
                self._leaves()

    def ways(self, target: Target) -> list[Where]:
        """To the target's server, or to each of its topic. Raises Unavailable if none is known."""
        known = self._ways.get(target.topic, {})
        servers = known if target.server is None else [target.server]
        found = [known[server] for server in servers if server in known]
        if not found:
            raise Unavailable(details=f"No process is known that serves {target.namespace} as "
                                      f"{target.server or target.topic}.")
        return found

    def left(self) -> list[Where]:
        """Where no process listens any more, as far as is known, since this was asked before."""
        found = [where for where in self._left if where not in self._listening]
        self._left.clear()
        return found
