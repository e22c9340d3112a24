"""What keeps a story, or one server of it, from going on: hosts that may have it, and take no orders of ours."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

from nacre.base.durable.stories import Story
from nacre.compute.contract import Server, StoryOrder
from nacre.conductor.build import BarredOn
from nacre.conductor.stories import Blocked
from nacre.scheduler.registry import HostRegistry


def barred_on(registry: HostRegistry, load: Callable[[Iterable[str]], Awaitable[Sequence[Server]]]) -> BarredOn:
    """Nothing is done about a server that a barred host has, unless it is where the database says: which state of the
    database is right is not known yet."""
    def has(host: str, server_id: str) -> bool:
        state = registry.states.get(host)
        return state is not None and not state.barred and any(h.server_id == server_id for h in state.report.held)

    async def find(server_ids: Collection[str]) -> Mapping[str, str]:
        claimed = registry.claimed(server_ids)
        there = {s.id: s.host for s in await load(claimed)} if claimed else {}
        return {id: by for id, by in claimed.items() if not has(there.get(id, ""), id)}

    return find


def blocked(registry: HostRegistry, claimed: BarredOn, nodes: Callable[[], Collection[str]]) -> Blocked:
    """What another life began is built nowhere before every host had the chance to say that it has it. A build leaves
    out by itself what may not be touched."""
    async def find(story: Story, order: StoryOrder) -> str:
        if story.kind == "build":
            host = registry.unmet(nodes()) if story.lease.epoch > 1 else None
        else:
            host = next(iter((await claimed(order.server_ids)).values()), None)
        return f"Host {host} may have it, and takes no orders." if host else ""

    return find
