"""A server's states, as one table: event -> (vm_state, task_state) before -> after. Nothing else changes a state.

`python -m nacre.compute.states` prints docs/states.md.
"""

from nacre.base.errors import Conflict

State = tuple[str, str | None]

#: `*` as a vm_state keeps the one there is; as a task_state it matches any.
TABLE: dict[str, dict[State, State]] = {
    # a build
    "place": {("building", "scheduling"): ("building", "networking"),
              ("building", "networking"): ("building", "networking")},
    "build": {("building", "scheduling"): ("active", None), ("building", "networking"): ("active", None)},
    "fail": {("building", "scheduling"): ("error", None), ("building", "networking"): ("error", None)},
    # found on a host that has it, by an operator's word; as it turned out there
    "adopt": {("error", None): ("active", None)},
    # not found on the host that should have it; found there after all
    "lose": {("active", None): ("error", None), ("stopped", None): ("error", None)},
    "found running": {("error", None): ("active", None)},
    "found stopped": {("error", None): ("stopped", None)},
    # power, asked for
    "stop": {("active", None): ("active", "powering-off"), ("error", None): ("error", "powering-off")},
    "start": {("stopped", None): ("stopped", "powering-on")},
    "reboot-soft": {("active", None): ("active", "rebooting")},
    "reboot-hard": {(vm, task): (vm, "rebooting_hard") for vm in ("active", "stopped", "error")
                    for task in (None, "rebooting")},
    # power, as it turned out
    "stopped": {(vm, "powering-off"): ("stopped", None) for vm in ("active", "error")} | {
        ("active", None): ("stopped", None)},
    "running": {("stopped", "powering-on"): ("active", None), ("active", "rebooting"): ("active", None),
                ("stopped", None): ("active", None),
                **{(vm, "rebooting_hard"): ("active", None) for vm in ("active", "stopped", "error")}},
    "give up": {(vm, task): (vm, None) for vm, task in (
        ("active", "powering-off"), ("error", "powering-off"), ("stopped", "powering-on"), ("active", "rebooting"),
        ("active", "rebooting_hard"), ("stopped", "rebooting_hard"), ("error", "rebooting_hard"))},
    # the end
    "delete": {("*", "*"): ("*", "deleting")},
    "deleted": {("*", "deleting"): ("deleted", None)},
}

#: Actions that a host is ordered to do: each has an epoch of its own, so that an older one is refused there.
ORDERED = frozenset(("stop", "start", "reboot-soft", "reboot-hard"))

#: What a client called the action, for the error it gets.
NAMES = {"reboot-soft": "reboot", "reboot-hard": "reboot"}


def step(state: State, event: str, server_id: str = "") -> State:
    """The state after `event`. Raises Conflict in a state that forbids it."""
    for before, after in TABLE[event].items():
        if before[0] in ("*", state[0]) and before[1] in ("*", state[1]) and state[0] != "deleted":
            return (state[0] if after[0] == "*" else after[0], after[1])
    what, value = ("task_state", state[1]) if state[1] else ("vm_state", state[0])
    raise Conflict(f"Cannot '{NAMES.get(event, event)}' instance {server_id} while it is in {what} {value}")


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    def name(state: State) -> str:
        return "_".join(part.replace("-", "_").replace("*", "any") for part in state if part)

    lines = [f"    {name(before)} --> {name(after)}: {event}" for event, moves in TABLE.items()
             for before, after in moves.items()]
    return "\n".join([
        "# A server's states", "", "Generated from `compute/states.py`; a test compares.", "", "```mermaid",
        "stateDiagram-v2", "    [*] --> building_scheduling: create", *lines, "    deleted --> [*]", "```", ""])


if __name__ == "__main__":
    print(diagram(), end="")
