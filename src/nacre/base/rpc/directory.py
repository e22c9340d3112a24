"""Who may speak to a process, and where others are found. One a transport."""

from nacre.base.errors import Unavailable
from nacre.base.rpc.server import Peer
from nacre.base.rpc.target import Target

#: Where a process listens: (address, public key).
Where = tuple[str, str]


class Directory:
    """Peers by their public keys, and ways to processes by topic and name. shut_out: the names of those whose key was
    revoked."""

    def __init__(self) -> None:
        self.peers: dict[str, Peer] = {}
        self.shut_out: set[str] = set()
        self._ways: dict[tuple[str, str], Where] = {}

    def register(self, public_key: str, peer: Peer) -> None:
        """Let the holder of this key in, under this name and role."""
        self.peers[public_key] = peer
        self.shut_out.discard(peer.name)

    def revoke(self, public_key: str) -> None:
        """Shut a peer out, at once: also on connections that it has."""
        if (peer := self.peers.pop(public_key, None)) is not None and peer not in self.peers.values():
            self.shut_out.add(peer.name)

    def key_of(self, peer: Peer) -> str:
        """The key that a peer proved to have; empty: none is known."""
        return next((key for key, known in self.peers.items() if known == peer), "")

    def route(self, topic: str, server: str, address: str, public_key: str) -> None:
        """Say where a process of a topic answers, and by which key it is known."""
        self._ways[topic, server] = (address, public_key)

    def unroute(self, topic: str, server: str) -> None:
        """That process is not there any more."""
        self._ways.pop((topic, server), None)

    def ways(self, target: Target) -> list[Where]:
        """To the target's server, or to each of its topic. Raises Unavailable if none is known."""
        if target.server is not None:
            way = self._ways.get((target.topic, target.server))
            found = [way] if way else []
        else:
            found = [way for (topic, _), way in self._ways.items() if topic == target.topic]
        if not found:
            raise Unavailable(details=f"No process is known that serves {target.namespace} as "
                                      f"{target.server or target.topic}.")
        return found

    def knows(self, where: Where) -> bool:
        """Whether some process listens there, as far as is known."""
        return where in self._ways.values()
