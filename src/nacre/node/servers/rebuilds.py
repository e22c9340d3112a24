"""A server made anew where it is: of another image or the same, in the room that it has.

What it is made of is fetched and made beside what there is, while the guest goes on. Then the journal says that the old
is given up (`rebuilding`), and only then is anything of it touched: a guest of that stage is not started by any order
but a rebuild, which begins it again.
"""

import asyncio

import msgspec
import structlog

from nacre.base.errors import BuildFailed, NacreError, NotFound, Refused
from nacre.base.undo import Undo
from nacre.node.contract import WAITING, BuildOrder, Guest, RebuildOrder, SpawnOrder
from nacre.node.journal import Entry, Unwritable, unwritten
from nacre.node.servers.limits import rates
from nacre.node.servers.state import NodeState
from nacre.node.servers.step_timer import StepTimer
from nacre.node.servers.works import Doing

log = structlog.get_logger()


class Rebuilds:
    """Rebuilds of one host."""

    def __init__(self, node: NodeState):
        self._node = node

    async def rebuild(self, order: RebuildOrder, doing: Doing) -> Guest:
        """Raises NotFound, Refused, BuildFailed."""
        node = self._node
        doing.begin(WAITING)
        async with node.locks(order.server_id):
            entry = node.journal.get(order.allocation)
            if entry is None or entry.order is None or entry.stage not in ("running", "rebuilding"):
                raise NotFound(f"Server {order.server_id} is not on this host.")
            if order.epoch < node.journal.seen(order.server_id):
                raise Refused(f"a later order for server {order.server_id} was seen here")
            if entry.stage == "rebuilding" or entry.order.epoch != order.epoch:
                try:
                    entry = await self._anew(entry, _wanted(entry.order, order), order, doing)
                except (Refused, BuildFailed):
                    raise
                except NacreError as error:
                    raise BuildFailed(error.message, type=error.type, details=error.details) from error
                except Unwritable as error:
                    raise unwritten(error) from error
                except Exception as error:
                    log.exception("a rebuild failed unexpectedly", server=order.server_id)
                    raise BuildFailed(f"unexpected on {node.settings.host}: {type(error).__name__}: {error}") from error
            return await node.guest(entry)

    async def _anew(self, entry: Entry, wanted: BuildOrder, order: RebuildOrder, doing: Doing) -> Entry:
        node, server_id = self._node, order.server_id
        doing.begin("image and disks")
        steps = await node.hypervisor.prepare(wanted, doing.progress, anew=True)
        spawn = SpawnOrder(cloud=order.cloud, allocation=order.allocation, server_id=server_id, epoch=order.epoch,
                           ports=order.ports, networks=order.networks, guest=order.guest)
        entry = await node.journal.write(msgspec.structs.replace(
            entry, epoch=order.epoch, stage="rebuilding", order=wanted, switch=None,
            spawn=msgspec.structs.replace(spawn, guest=None)))
        timer = StepTimer(node.clock)
        doing.begin("domain")
        async with Undo(but=asyncio.CancelledError) as undo:
            undo.add(node.hypervisor.halt, server_id)
            with timer.step("replace"):
                await node.hypervisor.replace(server_id, keep_ephemeral=order.keep_ephemeral)
            steps += await node.hypervisor.define(wanted, spawn)
            await node.wiring.limit(rates(wanted, [port.id for port in spawn.ports]))
            await node.wiring.wire(spawn.ports, spawn.networks)
            doing.begin("boot")
            with timer.step("boot"):
                await (node.hypervisor.resume if order.start else node.hypervisor.halt)(server_id)
            return await node.journal.write(msgspec.structs.replace(
                entry, stage="running", steps=(*steps, *timer.steps)))


def _wanted(had: BuildOrder, order: RebuildOrder) -> BuildOrder:
    """As its build was ordered, but for what is new: no secrets, as the journal keeps it."""
    return msgspec.structs.replace(
        had, epoch=order.epoch, image=order.image, kernel=order.kernel, ramdisk=order.ramdisk,
        config_drive=order.config_drive, guest=msgspec.structs.replace(
            order.guest, user_data=None, metadata={}, admin_password=None, files=()))
