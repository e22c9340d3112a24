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
    "lose": {(vm, None): ("error", None) for vm in ("active", "stopped", "paused", "suspended")},
    "found running": {("error", None): ("active", None)},
    "found stopped": {("error", None): ("stopped", None)},
    "found paused": {("error", None): ("paused", None)},
    "found suspended": {("error", None): ("suspended", None)},
    # power, asked for
    "stop": {("active", None): ("active", "powering-off"), ("error", None): ("error", "powering-off")},
    "start": {("stopped", None): ("stopped", "powering-on")},
    "reboot-soft": {("active", None): ("active", "rebooting")},
    "reboot-hard": {(vm, task): (vm, "rebooting_hard") for vm in ("active", "stopped", "paused", "suspended", "error")
                    for task in (None, "rebooting")},
    "pause": {("active", None): ("active", "pausing")},
    "unpause": {("paused", None): ("paused", "unpausing")},
    "suspend": {("active", None): ("active", "suspending")},
    "resume": {("suspended", None): ("suspended", "resuming")},
    # a rebuild, and as it turned out
    "rebuild": {(vm, None): (vm, "rebuilding") for vm in ("active", "stopped", "error")},
    "rebuilt": {(vm, "rebuilding"): ("active", None) for vm in ("active", "error")},
    "rebuilt stopped": {("stopped", "rebuilding"): ("stopped", None)},
    "rebuild failed": {(vm, "rebuilding"): ("error", None) for vm in ("active", "stopped", "error")},
    # power, as it turned out
    "stopped": {(vm, "powering-off"): ("stopped", None) for vm in ("active", "error")} | {
        (vm, None): ("stopped", None) for vm in ("active", "paused", "suspended")},
    "running": {("stopped", "powering-on"): ("active", None), ("active", "rebooting"): ("active", None),
                ("paused", "unpausing"): ("active", None), ("suspended", "resuming"): ("active", None),
                **{(vm, None): ("active", None) for vm in ("stopped", "paused", "suspended")},
                **{(vm, "rebooting_hard"): ("active", None)
                   for vm in ("active", "stopped", "paused", "suspended", "error")}},
    "paused": {("active", "pausing"): ("paused", None), ("active", None): ("paused", None)},
    "suspended": {("active", "suspending"): ("suspended", None), ("active", None): ("suspended", None)},
    "give up": {(vm, task): (vm, None) for vm, task in (
        ("active", "powering-off"), ("error", "powering-off"), ("stopped", "powering-on"), ("active", "rebooting"),
        ("active", "pausing"), ("paused", "unpausing"), ("active", "suspending"), ("suspended", "resuming"),
        *((vm, "rebooting_hard") for vm in ("active", "stopped", "paused", "suspended", "error")))},
    # an administrator's word, whatever goes on; what was never built cannot be said to be there
    "reset-active": {(vm, "*"): ("active", None) for vm in ("active", "stopped", "paused", "suspended", "error")},
    "reset-error": {("*", "*"): ("error", None)},
    # the end
    "delete": {("*", "*"): ("*", "deleting")},
    "deleted": {("*", "deleting"): ("deleted", None)},
}

#: What begins a new epoch: a host's orders, so that an older one is refused there, and what ends an order's wait.
ORDERED = frozenset(("stop", "start", "reboot-soft", "reboot-hard", "pause", "unpause", "suspend", "resume",
                     "rebuild", "reset-active", "reset-error"))

#: What a client called the action, for the error it gets.
NAMES = {"reboot-soft": "reboot", "reboot-hard": "reboot", "reset-active": "resetState",
         "reset-error": "resetState"}


def after(state: State, event: str) -> State | None:
    """The state after `event`; None: this one forbids it. What is being deleted can only be deleted."""
    if state[0] == "deleted" or (state[1] == "deleting" and event not in ("delete", "deleted")):
        return None
    for before, then in TABLE[event].items():
        if before[0] in ("*", state[0]) and before[1] in ("*", state[1]):
            return (state[0] if then[0] == "*" else then[0], then[1])
    return None


def step(state: State, event: str, server_id: str = "") -> State:
    """As `after`. Raises Conflict in a state that forbids it."""
    if (found := after(state, event)) is not None:
        return found
    what, value = ("task_state", state[1]) if state[1] else ("vm_state", state[0])
    raise Conflict(f"Cannot '{NAMES.get(event, event)}' instance {server_id} while it is in {what} {value}")


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    def name(state: State) -> str:
        return "_".join(part.replace("-", "_").replace("*", "any") for part in state if part)

    lines = [f"    {name(before)} --> {name(then)}: {event}" for event, moves in TABLE.items()
             for before, then in moves.items()]
    return "\n".join([
        "# A server's states", "", "Generated from `compute/states.py`; a test compares.", "", "```mermaid",
        "stateDiagram-v2", "    [*] --> building_scheduling: create", *lines, "    deleted --> [*]", "```", ""])


if __name__ == "__main__":
    print(diagram(), end="")
