"""Stop, start, reboot: towards a wanted state, so that a repeated call is harmless."""

import msgspec

from nacre.base.errors import NotFound
from nacre.node.contract import Guest
from nacre.node.journal import Entry
from nacre.node.servers.state import HostState

ACTIONS = ("start", "stop", "reboot-soft", "reboot-hard")
POLL = 0.25


class Power:
    """The power of one host's guests."""

    def __init__(self, host: HostState):
        self._host = host

    async def switch(self, server_id: str, epoch: int, action: str) -> Guest:
        async with self._host.locks(server_id):
            entry = self._host.journal.check(server_id, epoch)
            if entry is None or entry.stage != "running":
                raise NotFound(f"Server {server_id} is not on this host.")
            if epoch > entry.epoch:
                entry = await self._host.journal.write(msgspec.structs.replace(entry, epoch=epoch))
            power = (await self._host.hypervisor.guests()).get(server_id, "missing")
            if action in ("stop", "reboot-soft") and power == "running":
                await self._shut_down(server_id)
            elif action == "reboot-hard" or (action == "stop" and power == "paused"):
                await self._host.hypervisor.halt(server_id)
            if action.startswith("reboot") or (action == "start" and power != "running"):
                await self._boot(entry)
            guests = await self._host.hypervisor.guests()
            self._host.told[server_id] = guests.get(server_id, "missing")
        self._host.changed.set()
        return self._host.guest(entry, guests)

    async def _shut_down(self, server_id: str) -> None:
        await self._host.hypervisor.shutdown(server_id)
        end = self._host.clock.monotonic() + self._host.settings.shutdown_timeout
        while (await self._host.hypervisor.guests()).get(server_id) == "running":
            if self._host.clock.monotonic() >= end:
                await self._host.hypervisor.halt(server_id)
                return
            await self._host.clock.sleep(POLL)

    async def _boot(self, entry: Entry) -> None:
        await self._host.hypervisor.boot(entry.server_id)
        if entry.spawn is not None and entry.spawn.ports:
            await self._host.wiring.wire(entry.spawn.ports, entry.spawn.networks)
        await self._host.hypervisor.resume(entry.server_id)
