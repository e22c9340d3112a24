"""The stream of creates and deletes."""

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

from nacre.base.clock import Clock
from nacre.simulation.plan import Plan, Size

#: Virtual seconds between two looks whether all is done, and how long that may take.
LOOK, PATIENCE = 1.0, 3600.0


class Cloud(Protocol):
    """What the load needs of a cloud."""

    @property
    def clock(self) -> Clock: ...

    async def create(self, size: Size, number: int) -> str:
        """Accepts a server; its id."""
        ...

    async def delete(self, server_id: str) -> None: ...

    async def busy(self) -> int:
        """How many servers are being built or deleted."""
        ...


class Load:
    """Creates at random moments, each followed by its delete a lifetime later."""

    def __init__(self, plan: Plan, cloud: Cloud, say: Callable[[int], None] = lambda number: None):
        self._plan, self._cloud, self._say = plan, cloud, say
        self._dice = random.Random(f"{plan.seed}/load")  # noqa: S311 - a simulation's dice
        self._living: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until the last server that was asked for stands, or was refused; drain: until all are gone."""
        plan, dice = self._plan, self._dice
        shares = [s.share for s in plan.sizes]
        async with asyncio.TaskGroup() as group:
            for number in range(plan.servers):
                await asyncio.sleep(dice.expovariate(plan.rate))
                size = dice.choices(plan.sizes, shares)[0]
                life = plan.lifetime * dice.uniform(0.5, 1.5)
                server_id = await self._cloud.create(size, number)
                self._living[server_id] = group.create_task(self._live(server_id, life))
                self._say(number + 1)
            await self._quiet()
            for task in self._living.values():
                task.cancel()
        if plan.drain:
            for server_id in tuple(self._living):
                await self._cloud.delete(server_id)
            await self._quiet()

    async def _live(self, server_id: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._cloud.delete(server_id)
        del self._living[server_id]

    async def _quiet(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self._cloud.busy():
                await self._cloud.clock.sleep(LOOK)
