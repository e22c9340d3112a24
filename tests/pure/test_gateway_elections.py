"""Gateway hosts: who is elected, and what follows whatever happens to the hosts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.network.l3.elections import Candidate, Seat, Term, elect

NAMES = ("h1", "h2", "h3", "h4")
hosts = st.lists(st.builds(Candidate, st.sampled_from(NAMES), st.booleans(),
                           st.frozensets(st.sampled_from("ab"), max_size=2)), unique_by=lambda h: h.name)
seats = st.lists(st.builds(Seat, st.uuids().map(str), st.sampled_from("ab"), st.builds(
    Term, st.sampled_from((None, *NAMES)), st.integers(0, 9))), unique_by=lambda s: s.router, max_size=12)


@settings(deadline=None, max_examples=60)
@given(seats, hosts)
def test_who_is_elected_can_serve_and_who_can_serve_stays(given_seats: list[Seat],
                                                          given_hosts: list[Candidate]) -> None:
    found = elect(given_seats, given_hosts)
    able = {(h.name, network) for h in given_hosts if h.alive for network in h.reaches}
    for seat in given_seats:
        stands, anybody = (seat.term.host, seat.network) in able, any(n == seat.network for _, n in able)
        assert (seat.router in found) == (anybody and not stands)
        if new := found.get(seat.router):
            assert (new.host, seat.network) in able and new.number == seat.term.number + 1


@settings(deadline=None, max_examples=60)
@given(seats, hosts)
def test_an_election_is_the_same_wherever_it_is_held_and_settles(given_seats: list[Seat],
                                                                 given_hosts: list[Candidate]) -> None:
    found = elect(given_seats, given_hosts)
    assert found == elect(list(reversed(given_seats)), list(reversed(given_hosts)))
    after = [Seat(s.router, s.network, found.get(s.router, s.term)) for s in given_seats]
    assert elect(after, given_hosts) == {}


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40))
def test_routers_spread_over_hosts(count: int) -> None:
    found = elect([Seat(f"r{n}", "a", Term(None, 0)) for n in range(count)],
                  [Candidate(name, True, frozenset("a")) for name in NAMES])
    loads = [sum(term.host == name for term in found.values()) for name in NAMES]
    assert max(loads) - min(loads) <= 1


def test_who_reaches_the_inner_networks_goes_before_who_does_not() -> None:
    some, every = Candidate("h1", True, frozenset("a")), Candidate("h2", True, frozenset("ai"))
    wanted = Seat("r", "a", Term(None, 0), frozenset("i"))
    assert elect([wanted], [some, every]) == {"r": Term("h2", 1)}
    assert elect([wanted], [some]) == {"r": Term("h1", 1)}  # better than nobody, for the networks that it reaches
    stands = Seat("r", "a", Term("h1", 1), frozenset("i"))
    assert elect([stands], [some]) == {} and elect([stands], [some, every]) == {"r": Term("h2", 2)}
