"""Users: they create, delete at any moment, stop, start, reboot, change metadata; and guests halt by themselves."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from nacre.base.errors import Interrupted, NacreError
from nacre.cloud.control import Control
from nacre.compute.contract import ServerSpec

if TYPE_CHECKING:
    from tests.simulation.world import Controller, World

#: Seconds that a user waits for an answer.
PATIENCE = 20.0
ACTIONS = ("delete", "delete", "delete", "stop", "start", "reboot-soft", "reboot-hard", "metadata", "metadata", "crash")


class Users:
    """created, deleted, metadata: what was accepted; deleting: what was asked for, heard or not."""

    def __init__(self, world: "World", seconds: float):
        self.world, self._seconds, self._dice = world, seconds, world.dice("users")
        self.created, self.deleted, self.deleting = list[str](), set[str](), set[str]()
        self.metadata: dict[str, set[str]] = defaultdict(set)
        self.ports: dict[str, int] = defaultdict(int)
        self._calls = 0

    async def run(self) -> None:
        """Until the last of them is content or gave up."""
        dice = self._dice
        lives = [self._live(random.Random(dice.random()), f"s{n}", dice.uniform(0.0, self._seconds * 0.75))
                 for n in range(dice.randint(14, 24))]
        await asyncio.gather(*lives)

    async def _live(self, dice: random.Random, name: str, begin: float) -> None:
        """One user's servers, from their create on."""
        await asyncio.sleep(begin)
        count, ports = dice.choice((1, 1, 1, 2, 3)), dice.choice((0, 0, 1))
        spec = ServerSpec(name=name, flavor_id=dice.choice(("small", "small", "middle", "large")),
                          image_id=self.world.image, networks=self.world.networks if ports else (), min_count=count,
                          max_count=count)
        for number in range(1, count + 1):
            self.ports[f"{name}-{number}" if count > 1 else name] = ports
        made = await self._ask(dice, f"create {name} x{count}", lambda c, who: c.servers.create(who, (spec,)))
        for server in made or ():
            self.created.append(server.id)
            self.world.history.add("user", name, "is", server.id)
        await asyncio.gather(*(self._use(random.Random(dice.random()), server.id) for server in made or ()))

    async def _use(self, dice: random.Random, server_id: str) -> None:
        end = asyncio.get_running_loop().time() + self._seconds * dice.uniform(0.1, 0.6)
        while asyncio.get_running_loop().time() < min(end, self._seconds):
            await asyncio.sleep(dice.choice((dice.uniform(0.0, 1.5), dice.uniform(1.0, 12.0))))
            action = dice.choice(ACTIONS)
            if action == "delete":
                self.deleting.add(server_id)
                await asyncio.gather(*(self._delete(dice, server_id) for _ in range(dice.choice((1, 1, 2)))))
                if server_id in self.deleted:
                    return
            elif action == "metadata":
                await asyncio.gather(*(self._mark(dice, server_id) for _ in range(dice.choice((1, 2, 3)))))
            elif action == "crash":
                await self._crash(server_id)
            else:
                await self._power(dice, server_id, action)

    async def _delete(self, dice: random.Random, server_id: str) -> None:
        async def delete(control: Control, who: Any) -> bool:
            await control.servers.delete(who, await control.servers.get(server_id))
            return True

        if await self._ask(dice, f"delete {server_id}", delete):
            self.deleted.add(server_id)

    async def _power(self, dice: random.Random, server_id: str, action: str) -> None:
        async def power(control: Control, who: Any) -> bool:
            await control.servers.power(who, await control.servers.get(server_id), action)
            return True

        await self._ask(dice, f"{action} {server_id}", power)

    async def _mark(self, dice: random.Random, server_id: str) -> None:
        self._calls += 1
        key = f"k{self._calls}"

        async def mark(control: Control, who: Any) -> bool:
            await control.servers.update(server_id, lambda server: {"metadata": {**server.metadata, key: "1"}})
            return True

        if await self._ask(dice, f"metadata {key} {server_id}", mark):
            self.metadata[server_id].add(key)

    async def _crash(self, server_id: str) -> None:
        """Its guest halts by itself."""
        for host in self.world.hosts:
            guest = host.hypervisor.servers.get(server_id)
            if guest is not None and guest.power == "running" and host.process is not None:
                self.world.history.add(host.name, "loses", server_id)
                await host.process.ask(host.hypervisor.crash_guest(server_id), 1.0)

    async def _ask(self, dice: random.Random, what: str, ask: Callable[[Control, Any], Awaitable[Any]]) -> Any:
        """What a control process answers, if it does. None: it refused, or nothing was heard."""
        self._calls += 1
        controller: Controller = dice.choice(self.world.controls)
        number, process = self._calls, controller.process
        self.world.history.add("user", f"#{number} asks {controller.name}:", what)
        if process is None or not controller.ready:
            return None
        from tests.simulation.world import WHO

        who = msgspec.structs.replace(WHO, request_id=f"req-{number}")
        work = await process.ask(ask(controller.control, who), PATIENCE)
        if work is None:
            self.world.history.add("user", f"#{number} heard nothing")
            return None
        try:
            found = work.result()
        except (NacreError, Interrupted) as error:
            self.world.history.add("user", f"#{number} is refused:", error.message)
            return None
        self.world.history.add("user", f"#{number} is done")
        return found
