"""A delete at any moment of a build: nothing is left, nothing is called a fault, and nobody is said to be silent."""

import asyncio
from pathlib import Path
from typing import Any

import structlog

from nacre.base.rpc.memory import Faults as Messages
from nacre.compute.history import History
from tests.cloud.virtual_lab import VirtualCloud, virtually

#: Seconds that each step takes, so that a build takes less than `TIMES * STEP`.
SLOW = {"prepare": 0.5, "define": 0.5, "resume": 0.3, "destroy": 0.1}
TIMES, STEP = 60, 0.03


def false_words(logs: list[Any]) -> list[Any]:
    """What should not be said, as nothing went wrong."""
    return [entry for entry in logs if entry["log_level"] in ("error", "critical") or entry.get("exc_info")
            or "not confirm" in entry["event"] or "answer" in str(entry.get("why", "")) + entry["event"]]


async def said(cloud: VirtualCloud, server: str) -> str:
    """All that a server's history says."""
    history = History(cloud.db)
    found = await history.actions(server)
    steps = [step for action in found for step in (await history.action(server, action.request_id))[1]]
    return " ".join(filter(None, (*(a.message for a in found), *(s.details for s in steps))))


def test_a_delete_at_any_moment_of_a_build(tmp_path: Path) -> None:
    async def story(cloud: VirtualCloud) -> None:
        cloud.hub.faults = Messages(delay=(0.002, 0.02))
        for faults in cloud.faults.values():
            faults.delay.update(SLOW)
        reached = set[str | None]()
        for n in range(TIMES):
            (server,) = await cloud.create()
            await asyncio.sleep(n * STEP)
            row = await cloud.row(server)
            reached.add(f"{row.vm_state} {row.task_state}")
            with structlog.testing.capture_logs() as logs:
                await cloud.act(server, "delete")
                await cloud.until(server, "deleted", seconds=30)
                await asyncio.sleep(2.5)  # for what was begun: no sweep is needed
                assert not false_words(logs), (n, logs)
                assert await cloud.left() == {"stories": 0, "ending": 0}, n
            assert "answer" not in await said(cloud, server)
            assert not any(cloud.guests(host) for host in cloud.faults), n
        assert reached == {"building scheduling", "building networking", "active None"}

    virtually(tmp_path, story, hosts=2)


def test_many_deletes_at_once_in_the_middle_of_their_builds(tmp_path: Path) -> None:
    """Of one request, so that one story has all of them."""
    async def story(cloud: VirtualCloud) -> None:
        for faults in cloud.faults.values():
            faults.delay.update(SLOW)
        servers = await cloud.create(40)
        await asyncio.sleep(1)
        with structlog.testing.capture_logs() as logs:
            await asyncio.gather(*(cloud.act(server, "delete") for server in servers[::2]))
            for server in servers[::2]:
                await cloud.until(server, "deleted", seconds=60)
            for server in servers[1::2]:
                await cloud.until(server, "active", seconds=60)
            await asyncio.sleep(5)
        assert not false_words(logs), logs
        assert await cloud.left() == {"stories": 0, "ending": 0}
        assert {*cloud.guests("host0"), *cloud.guests("host1")} == set(servers[1::2])

    virtually(tmp_path, story, hosts=2)
