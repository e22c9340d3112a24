"""Which host translates for a router: the gateway host. Pure.

A term is one election's outcome; its number rises with each. A host that hears of a higher term than its own stops
translating, and what others send goes to the highest term that they know: so two hosts that both think themselves
elected do not both count for long.
"""

import hashlib
from collections.abc import Iterable, Sequence

import msgspec


class Term(msgspec.Struct, frozen=True):
    """host None: nobody was elected yet."""

    host: str | None
    number: int


class Candidate(msgspec.Struct, frozen=True):
    """A host. reaches: the networks to which its bridges or tunnels lead. load: of how many routers it is the gateway
    host."""

    name: str
    alive: bool
    reaches: frozenset[str]
    load: int = 0


class Seat(msgspec.Struct, frozen=True):
    """A router's gateway, for which a host is wanted. network: the external one; inner: those of its interfaces."""

    router: str
    network: str
    term: Term
    inner: frozenset[str] = frozenset()


def elect(seats: Iterable[Seat], hosts: Sequence[Candidate]) -> dict[str, Term]:
    """The new terms, by router. Who stands stays; where nobody could take over, all stays as it is: the former host may
    come back. Who reaches the inner networks, too, goes before who does not. The least loaded takes over, and of such
    the one that comes first by a hash of router and host: the routers of a host that is lost go to many.

    >>> elect([Seat("r", "n", Term(None, 0))], [Candidate("h", True, frozenset("n"))])
    {'r': Term(host='h', number=1)}
    """
    able = {host.name: host for host in hosts if host.alive}
    load, found = {name: host.load for name, host in able.items()}, dict[str, Term]()
    for seat in sorted(seats, key=lambda each: each.router):
        outside = [name for name, host in able.items() if seat.network in host.reaches]
        fitting = [name for name in outside if seat.inner <= able[name].reaches] or outside
        if seat.term.host in fitting or not fitting:
            continue
        chosen = min(fitting, key=lambda name: (load[name], _rank(seat.router, name)))
        load[chosen] += 1
        found[seat.router] = Term(chosen, seat.term.number + 1)
    return found


def _rank(router: str, host: str) -> bytes:
    return hashlib.blake2b(f"{router}\0{host}".encode(), digest_size=8).digest()
