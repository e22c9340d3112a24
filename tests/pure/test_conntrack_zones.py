"""Which conntrack zones are given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import BuildFailed
from nacre.node.ovs.zones import FIRST, LAST, choose

zone = st.integers(FIRST, LAST)


@given(st.sets(zone, max_size=50), st.integers(FIRST - 1, LAST), st.integers(0, 50))
def test_free_ones_and_the_one_given_last_is_the_last_to_come_again(taken: set[int], last: int, count: int) -> None:
    given = choose(taken, last, count)
    assert len(set(given)) == count and not set(given) & taken and all(FIRST <= one <= LAST for one in given)
    assert last not in given and given == choose(taken, last, count)


def test_they_go_round_and_come_to_an_end() -> None:
    assert choose(set(), FIRST - 1, 2) == [FIRST, FIRST + 1]
    assert choose({FIRST}, LAST - 1, 2) == [LAST, FIRST + 1]
    assert choose(set(range(FIRST, LAST)), FIRST, 1) == [LAST]
    with pytest.raises(BuildFailed, match="no conntrack zone left"):
        choose(set(range(FIRST, LAST)), FIRST, 2)
