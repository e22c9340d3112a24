"""What must hold: at every effect of a hypervisor, at every report that a control process takes in, and once all is
quiet (`settled.py`)."""

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from nacre.compute.tables import allocations, servers
from nacre.scheduler.contract import HostReport
from tests.simulation import database

if TYPE_CHECKING:
    from tests.simulation.hosts import Host
    from tests.simulation.world import World

#: A guest that does these is there, whatever its disks are.
LIVE = ("running", "paused")
#: What a host does about a guest's power -> the server's task meanwhile.
TASKS = {"stop": "powering-off", "start": "powering-on", "reboot-soft": "rebooting", "reboot-hard": "rebooting_hard"}


class Checker:
    """sacred: the server of another cloud, whose guest nobody may touch."""

    def __init__(self, world: "World"):
        self.world, self.sacred = world, ""
        self._ordered: dict[str, int] = {}

    def look(self) -> None:
        """What the database noted."""
        for law, server_id in database.broken(self.world.db):
            self.world.history.blame(law, server_id)

    async def hypervisor(self, host: "Host", verb: str, server_id: str) -> None:
        """A host is about to do something to a guest."""
        history = self.world.history
        history.add(host.name, verb, server_id)
        if server_id == self.sacred or host is self.world.stranger:
            history.blame("a host of another cloud was meddled with:", verb, server_id)
        if verb in ("define", "boot", "resume"):
            for other in self.world.hosts:
                guest = other.hypervisor.servers.get(server_id)
                if other is not host and guest is not None and guest.power in LIVE:
                    history.blame("one guest on two hosts:", server_id, host.name, other.name)
        if verb == "destroy" and (guest := host.hypervisor.servers.get(server_id)) is not None and guest.power:
            self._may_go(host, server_id)

    def order(self, host: "Host", server_id: str, epoch: int, action: str) -> None:
        """A host begins to carry out an order: none that is older than what was done, and none that nobody waits for.
        One that was given up may come late, if nothing came after it."""
        if epoch < self._ordered.get(server_id, 0):
            self.world.history.blame("an older order is carried out:", host.name, action, server_id)
        self._ordered[server_id] = epoch
        with self.world.db.engine.connect() as connection:
            row = connection.execute(sa.select(servers).where(servers.c.id == server_id)).mappings().one()
        if row["epoch"] == epoch and row["task_state"] not in (TASKS[action], "deleting") and not (
                row["deleted"] or row["fault"]):
            self.world.history.blame("nobody waits for an order:", host.name, action, server_id, row["task_state"])

    def _may_go(self, host: "Host", server_id: str) -> None:
        """A guest is destroyed only where the database has ordered its end, or its build never ended."""
        with self.world.db.engine.connect() as connection:
            rows = connection.execute(sa.select(allocations.c.id, allocations.c.state).where(
                allocations.c.server_id == server_id, allocations.c.host == host.name)).all()
            live = connection.execute(sa.select(servers.c.allocation_id).where(
                servers.c.id == server_id, servers.c.deleted.is_(False), sa.or_(
                    servers.c.task_state.is_(None), servers.c.task_state != "deleting"))).scalar()
        if not rows:
            self.world.history.blame("a guest was destroyed that the database does not know of:", server_id, host.name)
        elif any(row.id == live and row.state == "held" for row in rows) and len(rows) == 1:
            self.world.history.blame("the guest of a living server was destroyed:", server_id, host.name)

    def scheduler(self, control: str, scheduler: Any) -> "Watched":
        return Watched(self.world, control, scheduler)


class Watched:
    """The scheduler of one life of a control process: of each host it takes in reports in their order only."""

    def __init__(self, world: "World", control: str, real: Any):
        self.real, self._world, self._control = real, world, control
        self._taken: dict[str, tuple[int, int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def report(self, report: HostReport, *, anew: bool = False) -> bool:
        taken: bool = await self.real.report(report, anew=anew)
        if taken:
            last = self._taken.get(report.host, (0, 0))
            if report.number <= last and not anew:
                self._world.history.blame("an older report counts:", self._control, report.host, report.number, last)
            self._taken[report.host] = report.number
        return taken
