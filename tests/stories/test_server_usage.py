"""What quotas of servers count is what there is, whatever is accepted, built, failed, deleted, refused, broken off."""

import asyncio
import contextlib
import random
from typing import Any

import msgspec
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests import schema

from nacre.base.clock import VirtualClock
from nacre.base.context import Context
from nacre.base.db import Database
from nacre.base.durable.processes import Process, Processes
from nacre.base.durable.stories import Lease, LeaseLost, Stories, Story
from nacre.base.errors import NotFound, QuotaExceeded
from nacre.compute.allocations import Ledger
from nacre.compute.catalog.flavors import Flavor, Flavors
from nacre.compute.catalog.keypairs import KeyPairs
from nacre.compute.catalog.quotas import Quotas
from nacre.compute.contract import Outcome, Place, ServerSpec, StoryOrder
from nacre.compute.create import CreateDeps
from nacre.compute.progress import Progress
from nacre.compute.servers import Servers
from nacre.compute.tables import servers, usage
from nacre.image.contract import ImageFacts
from nacre.scheduler.contract import Amounts

LIMITS = {"instances": 7, "cores": 20, "ram": 6000}
SIZES = (("small", 512, 1), ("large", 2048, 5))


class Surroundings:
    """An image for all, and a network that agrees to everything."""

    async def find(self, context: Context, image_id: str) -> ImageFacts:
        return ImageFacts(id=image_id, name="i", owner=None, status="active", disk_format="raw", size=1, virtual_size=1,
                          container_format="bare", checksum=None, os_hash_algo=None, os_hash_value=None)

    async def check(self, order: Any, count: int, least: int = 0) -> int:
        return count


class Broken(Exception):
    """What ends a transaction in its middle."""


class Life:
    """What users of two projects and the stories of their servers do, by dice."""

    def __init__(self, db: Database, dice: random.Random):
        clock, around = VirtualClock(), Surroundings()
        self.db, self.dice, self.flavors = db, dice, Flavors(db, clock)
        self.processes = Processes(db, clock)
        self.stories = Stories(db, clock, self.processes)
        self.progress, self.ledger = Progress(db, clock), Ledger(db, clock)
        self.servers = Servers(db, clock, CreateDeps(
            flavors=self.flavors, keypairs=KeyPairs(db, clock), quotas=Quotas(db, LIMITS), images=around,  # type: ignore[arg-type]
            network=around, policy=around), self.stories, self.accepted)  # type: ignore[arg-type]
        self.open: list[Story] = []
        self.requests = 0

    async def start(self) -> None:
        await self.processes.start(Process(id="control", role="control", name="control"))
        await self.processes.introduce(Process(id="node:h", role="node", name="h"))
        for name, memory, vcpus in SIZES:
            await self.flavors.create(Flavor(id=name, name=name, memory_mb=memory, vcpus=vcpus, root_gb=1))

    def accepted(self, story: Story) -> None:
        self.open.append(story)

    def who(self) -> Context:
        self.requests += 1
        return Context(request_id=f"req-{self.requests}", user_id=self.dice.choice("uv"),
                       project_id=self.dice.choice("pq"), roles=("member", "reader"))

    async def create(self) -> None:
        """One to three specs of one to three servers: all or none."""
        specs = tuple(ServerSpec(name="s", flavor_id=self.dice.choice(SIZES)[0], image_id="i", networks=(), tags=("t",),
                                 max_count=self.dice.randrange(1, 4)) for _ in range(self.dice.choice((1, 1, 1, 2))))
        with contextlib.suppress(QuotaExceeded):
            await self.servers.create(self.who(), specs)

    async def creates(self) -> None:
        """At once."""
        await asyncio.gather(*(self.create() for _ in range(4)))

    async def broken(self) -> None:
        """After the rows, before the commit."""
        insert = self.stories.insert

        def fail(*args: Any) -> Story:
            raise Broken

        self.stories.insert = fail  # type: ignore[method-assign]
        with contextlib.suppress(Broken):
            await self.create()
        self.stories.insert = insert  # type: ignore[method-assign]

    async def delete(self) -> None:
        """Any that is there; of one that is being deleted again too."""
        rows = await self.db.read(lambda c: c.execute(sa.select(servers.c.id)).scalars().all())
        if rows:
            with contextlib.suppress(NotFound):
                server = await self.servers.get(self.dice.choice(rows))
                times = self.dice.randrange(1, 3)
                await asyncio.gather(*(self.servers.delete(self.who(), server) for _ in range(times)))

    async def end(self) -> None:
        """A story: built or failed, or deleted; and its runner says so twice."""
        if not self.open:
            return
        story = self.open.pop(self.dice.randrange(len(self.open)))
        order = msgspec.msgpack.decode(story.order, type=StoryOrder)
        for _ in range(2):
            for server in order.server_ids:
                outcome = Outcome(server_id=server, request_id=order.context.request_id)
                with contextlib.suppress(LeaseLost, NotFound):
                    await (self.gone(story.lease, outcome) if story.kind == "delete" else
                           self.built(story.lease, outcome))
            with contextlib.suppress(LeaseLost):
                await self.progress.finish(story.lease)

    async def gone(self, lease: Lease, outcome: Outcome) -> None:
        ended = await self.ledger.end_all(lease, outcome.server_id)
        if self.dice.random() < 0.2:  # its process dies here, and the story is begun anew
            ended = await self.ledger.end_all(lease, outcome.server_id)
        await self.progress.deleted(lease, outcome, ended if self.dice.random() < 0.7 else ())

    async def built(self, lease: Lease, outcome: Outcome) -> None:
        place = Place(allocation=f"a{self.dice.random()}", host="h", zone="nova",
                      amounts=Amounts(memory_mb=1, vcpus=1, disk_mb=1))
        made = await self.ledger.allocate(lease, outcome.server_id, place)
        if made is None:
            return
        if self.dice.random() < 0.6:
            await self.progress.built(lease, made[0], outcome, last=False)
        else:
            await self.ledger.give_up(lease, made[0])
            await self.progress.failed(lease, outcome, freed=True)

    async def change(self) -> None:
        """A flavor is made anew with another size: servers keep theirs."""
        name, memory, vcpus = self.dice.choice(SIZES)
        await self.flavors.delete(name)
        await self.flavors.create(Flavor(id=name, name=name, memory_mb=memory + 100 * self.dice.randrange(3),
                                         vcpus=vcpus + self.dice.randrange(3), root_gb=1))

    def counted(self, connection: sa.Connection) -> dict[tuple[str, str], tuple[int, int, int]]:
        rows = connection.execute(sa.select(usage)).all()
        found = {(row.project_id, row.user_id): (row.instances, row.cores, row.ram) for row in rows}
        return {whose: taken for whose, taken in found.items() if any(taken)}

    def summed(self, connection: sa.Connection) -> dict[tuple[str, str], tuple[int, int, int]]:
        c = servers.c
        return {(r[0], r[1]): (r[2], r[3], r[4]) for r in connection.execute(sa.select(
            c.project_id, c.user_id, sa.func.count(), sa.func.sum(c.vcpus), sa.func.sum(c.memory_mb)).where(
            c.deleted.is_(False)).group_by(c.project_id, c.user_id))}


STEPS = ("create", "create", "creates", "broken", "delete", "delete", "end", "end", "end", "change")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow],
          phases=[Phase.reuse, Phase.generate])  # an example takes too long to try hundreds of smaller ones
@given(st.lists(st.sampled_from(STEPS), min_size=10, max_size=80), st.integers(0, 1 << 30))
def test_the_counters_are_the_sums(steps: list[str], seed: int) -> None:
    async def run() -> None:
        db = schema.in_memory()
        life = Life(db, random.Random(seed))
        await life.start()
        for step in steps:
            await getattr(life, step)()
            counted, summed = await db.read(life.counted), await db.read(life.summed)
            assert counted == summed, step
            for project in "pq":
                total = [sum(taken[n] for (p, _), taken in summed.items() if p == project) for n in range(3)]
                assert all(map(int.__le__, total, LIMITS.values())), (step, total)
        await db.close()

    asyncio.run(run())
