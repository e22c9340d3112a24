"""The table of states: what it allows, what it refuses, and that the docs show it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import Conflict
from nacre.compute.states import TABLE, State, diagram, step

STATES = sorted({s for moves in TABLE.values() for pair in moves.items() for s in pair if "*" not in s}, key=str)


def test_a_build_and_its_end() -> None:
    state: State = ("building", "scheduling")
    for event, after in (("place", ("building", "networking")), ("place", ("building", "networking")),
                         ("build", ("active", None)), ("stop", ("active", "powering-off")),
                         ("stopped", ("stopped", None)),
                         ("start", ("stopped", "powering-on")), ("running", ("active", None)),
                         ("delete", ("active", "deleting")), ("deleted", ("deleted", None))):
        state = step(state, event)
        assert state == after


@pytest.mark.parametrize(("state", "event"), [
    (("stopped", None), "stop"), (("active", None), "start"), (("building", "networking"), "stop"),
    (("active", "deleting"), "build"), (("building", "deleting"), "build"), (("stopped", None), "reboot-soft")])
def test_what_is_refused_says_why(state: State, event: str) -> None:
    with pytest.raises(Conflict, match=r"Cannot '\w+' instance x while it is in (vm_state|task_state) "):
        step(state, event, "x")


@given(st.sampled_from(STATES), st.lists(st.sampled_from(sorted(TABLE)), max_size=12))
def test_whatever_happens_the_state_is_in_the_table_and_deleted_is_final(state: State, events: list[str]) -> None:
    gone = False
    for event in events:
        try:
            after = step(state, event)
        except Conflict:
            continue
        assert not gone
        assert after in STATES or after[1] == "deleting"
        state, gone = after, after[0] == "deleted"


@given(st.sampled_from([s for s in STATES if s[0] != "deleted"]))
def test_anything_can_be_deleted(state: State) -> None:
    assert step(step(state, "delete"), "deleted") == ("deleted", None)


def test_the_diagram_in_the_docs_is_the_table() -> None:
    assert (Path(__file__).parents[2] / "docs" / "states.md").read_text() == diagram()
