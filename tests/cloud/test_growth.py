"""What becomes of one server costs the same however many others there are: counted in steps of the database, and no
statement on its way looks through a table that grows. Nothing is timed."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from nacre.base.durable import tables as durable
from nacre.compute import tables as t
from nacre.compute.catalog.tables import server_groups
from tests.cloud.virtual_lab import VirtualCloud, virtually

#: SQLite says so when it has done so many steps more.
GRAIN = 50
#: Tables with rows for each server, or each thing that was done to one.
GROWING = ("servers", "allocations", "server_actions", "server_events", "server_tags", "changes", "ports",
           "port_bindings", "port_addresses")
NOW = datetime(2026, 1, 1)


def fill(connection: sa.Connection, count: int) -> None:
    """Servers that stand, written past the service: each with its room, its history, a tag, and a group in ten."""
    flavor = {"id": "f", "name": "f", "memory_mb": 512, "vcpus": 1, "root_gb": 1}
    rows = [{
        "id": f"s{n}", "server_id": f"s{n}", "name": f"s{n}", "project_id": "p", "user_id": "u", "vm_state": "active",
        "task_state": None, "power_state": "running", "host": f"h{n % 50}", "allocation_id": f"a{n}", "epoch": 1,
        "created_at": NOW, "updated_at": NOW, "flavor_id": "f", "memory_mb": 512, "vcpus": 1, "flavor": flavor,
        "metadata": {}, "tags": ["t"], "image_id": "i", "image_properties": {}, "security_groups": [],
        "trusted_certs": [], "hints": {}, "tag": "t", "purpose": "build", "state": "held", "disk_mb": 1024,
        "group_id": f"g{n % 1000}" if n % 10 == 0 else None, "action": "create", "request_id": f"r{n}",
        "started_at": NOW} for n in range(count)]
    for table in (t.servers, t.server_tags, t.actions):
        connection.execute(sa.insert(table), [{c.name: r[c.name] for c in table.c if c.name in r and not (
            c.name == "id" and table is t.actions)} for r in rows])
    connection.execute(sa.insert(t.allocations), [
        {c.name: r[c.name] for c in t.allocations.c if c.name in r} | {"id": r["allocation_id"]} for r in rows])
    connection.execute(sa.insert(t.events), [
        {"server_id": r["id"], "request_id": r["request_id"], "name": f"step {n}", "started_at": NOW}
        for r in rows for n in range(5)])
    connection.execute(sa.insert(durable.changes), [{"kind": "server", "id": r["id"], "project_id": "p", "at": NOW}
                                                    for r in rows])


class Watch:
    """What the database did while it was watched: its steps, and the statements that looked through a whole table."""

    def __init__(self, engine: sa.Engine):
        self._engine, self.steps = engine, 0
        self.whole: dict[str, str] = {}
        self._seen: set[str] = set()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        sa.event.listen(self._engine, "before_cursor_execute", self._explain)
        self._handle(self._step)
        try:
            yield
        finally:
            self._handle(None)
            sa.event.remove(self._engine, "before_cursor_execute", self._explain)

    def _step(self) -> None:
        self.steps += GRAIN

    def _handle(self, handler: Any) -> None:
        with self._engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            raw.set_progress_handler(handler, GRAIN)

    def _explain(self, _: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if statement in self._seen or not statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            return
        self._seen.add(statement)
        many = rest[-1]
        steps, raw = self.steps, cursor.connection
        plan = raw.execute("EXPLAIN QUERY PLAN " + statement, parameters[0] if many else parameters).fetchall()
        self.steps = steps
        for *_, line in plan:
            if (found := re.match(r"SCAN (\w+)", line)) and found[1] in GROWING:
                self.whole[f"{line}: {statement}"] = line


async def life(cloud: VirtualCloud, watch: Watch) -> None:
    """One server from its create to its end, with the sweeps and reports of a minute."""
    async def one(**hints: Any) -> str:
        (server,) = await cloud.create(**hints)
        await cloud.until(server, "active")
        return server

    grouped = await one(group="group")  # what is made once is made before
    with watch():
        servers = [await one(), await one(group="group"), await one(different_host=[grouped])]
        for server in servers:
            await cloud.act(server, "stop")
            await cloud.until(server, "stopped")
            await cloud.act(server, "start")
            await cloud.until(server, "active")
        await asyncio.sleep(60)
        for server in servers:
            await cloud.act(server, "delete")
            await cloud.until(server, "deleted")
        await asyncio.sleep(10)


def lived(folder: Path, others: int) -> Watch:
    found: list[Watch] = []

    async def story(cloud: VirtualCloud) -> None:
        def unit(connection: sa.Connection) -> None:
            connection.execute(sa.insert(server_groups).values(
                id="group", name="g", project_id="p", user_id="u", policy="anti-affinity",
                rules={"max_server_per_host": 9}, created_at=NOW))
            if others:
                fill(connection, others)

        await cloud.db.run(unit)
        await asyncio.sleep(5)
        found.append(Watch(cloud.db.engine))
        await life(cloud, found[0])

    virtually(folder, story, hosts=2)
    return found[0]


def test_one_server_costs_the_same_beside_twenty_thousand(tmp_path: Path) -> None:
    few, many = lived(tmp_path / "few", 0), lived(tmp_path / "many", 20_000)
    assert not many.whole, "\n".join(many.whole)
    assert many.steps <= 1.25 * few.steps + 100 * GRAIN, (few.steps, many.steps)
