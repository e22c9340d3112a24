"""Messages to hosts about their wiring: one at a time each, and silent hosts hold up nobody."""

import asyncio

from nacre.base.errors import Unavailable
from nacre.network.hosts.notifications import QUIET, Notice, Notifier


class Hosts:
    """Whoever is in `silent` answers only after a while, with an error; the others when `open` is set."""

    def __init__(self, *silent: str):
        self.silent, self.open, self.heard = set(silent), asyncio.Event(), list[Notice]()
        self.asked = 0

    async def notify(self, notice: Notice) -> None:
        self.asked += 1
        if notice.host in self.silent:
            await asyncio.sleep(0.01)
            raise Unavailable("no answer")
        await self.open.wait()
        self.heard.append(notice)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_comes_while_a_message_is_under_way_goes_into_the_next():
    hosts = Hosts()
    notifier = Notifier(hosts.notify)
    for n in range(1, 6):
        notifier.add([Notice("h", frozenset({f"p{n}"}), n, n - 1)])
        await settle()
    assert hosts.asked == 1
    hosts.open.set()
    await settle()
    assert [n.ports for n in hosts.heard] == [{"p1"}, {"p2", "p3", "p4", "p5"}]
    assert (hosts.heard[1].n, hosts.heard[1].before) == (5, 1)


async def test_silent_hosts_are_left_alone_and_hold_up_nobody(monkeypatch):
    hosts = Hosts(*(f"silent-{n}" for n in range(50)))
    hosts.open.set()
    notifier = Notifier(hosts.notify)
    for n in range(100):
        notifier.add([Notice(host, frozenset({"p"}), n, n - 1) for host in (*sorted(hosts.silent), "h")])
        await asyncio.sleep(0.001)
    assert len(hosts.heard) == 100 and hosts.asked == 150  # one try each
    loop = asyncio.get_running_loop()
    later = loop.time() + QUIET[0] + 1
    monkeypatch.setattr(loop, "time", lambda: later)
    hosts.silent.clear()
    notifier.add([Notice("silent-0", frozenset({"p"}), 101, 100)])
    await settle()
    assert hosts.heard[-1].host == "silent-0"
