"""Proving a password costs much: who asks for it in masses waits for itself, and is refused beyond a measure."""

import asyncio
import time
from collections import Counter

import httpx
import pytest
from identity_cloud import BASE, PASSWORDS, V3, Lab, by_password, project

from nacre.base.errors import TooMany, Unavailable
from nacre.base.serving import slots as slots_of
from nacre.base.serving.slots import Slots, source
from nacre.base.serving.sources import source_of
from nacre.identity.passwords import Passwords


def client(lab: Lab, address: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=lab.app, client=(address, 1)), base_url=BASE + V3)


async def test_three_hundred_bad_logins_keep_nobody_waiting(lab: Lab) -> None:
    # As slow as in a real cloud, on a machine that has little to give.
    lab.identity.passwords = Passwords(time_cost=2, memory=19456, waiting=(40, 80))
    good = await lab.identity.passwords.hash(PASSWORDS["demo"])
    async with await lab.admin() as admin:
        user = (await admin.get("/users", params={"name": "demo"})).json()["users"][0]["id"]
    from nacre.identity import tables as t
    await lab.db.run(lambda conn: conn.execute(t.users.update().where(t.users.c.id == user).values(password_hash=good)))
    async with client(lab, "192.0.2.66") as bad, client(lab, "192.0.2.7") as fine:
        flood = [asyncio.ensure_future(bad.post("/auth/tokens", json={"auth": by_password(f"u{n % 7}", "wrong")}))
                 for n in range(300)]
        await asyncio.sleep(0.05)
        begin = time.monotonic()
        answer = await fine.post("/auth/tokens", json={"auth": by_password(
            "demo", PASSWORDS["demo"], project("demo"))})
        took = time.monotonic() - begin
        said = await asyncio.gather(*flood)
    assert answer.status_code == 201 and took < 1.5, took
    assert {each.status_code for each in said} == {401, 429}
    refused = [each for each in said if each.status_code == 429]
    assert len(refused) >= 200 and all(each.headers["retry-after"] == "1" for each in refused)
    assert refused[0].json()["error"]["title"] == "Too Many Requests" and "limit" in refused[0].text


async def test_of_many_addresses_so_many_wait(lab: Lab) -> None:
    lab.identity.passwords = Passwords(time_cost=1, memory=8, parallel=1, waiting=(2, 4))
    clients = [client(lab, f"192.0.2.{n}") for n in range(8)]
    said = await asyncio.gather(*(each.post("/auth/tokens", json={"auth": by_password("u", "wrong")})
                                  for each in clients))
    for each in clients:
        await each.aclose()
    assert {each.status_code for each in said} <= {401, 503}
    assert all("retry-after" in each.headers for each in said if each.status_code == 503)


async def test_sources_take_turns() -> None:
    slots, order = Slots(1, 5, 20), list[str]()
    gate = asyncio.Event()

    async def work(who: str) -> None:
        source.set(who)
        async with slots.slot():
            await gate.wait()
            order.append(who)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(work("a")) for _ in range(5)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(work(who)) for who in ("b", "c", "b")]
    await asyncio.sleep(0)
    tasks[2].cancel()  # of those that wait
    gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["a", "a", "b", "c", "a", "b", "a"]
    async with slots.slot():
        pass
    assert slots._free == 1 and not slots._queues and slots._count == 0


async def test_two_sources_that_wait_for_all_places_keep_out_no_third(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots_of, "REST", 0.0)
    slots, refused, done = Slots(1, 40, 80), Counter[str](), list[str]()
    gate, ends = asyncio.Event(), list[asyncio.Task[None]]()

    async def work(who: str) -> None:
        source.set(source_of(who))
        try:
            async with slots.slot():
                await gate.wait()
                done.append(who)
        except (TooMany, Unavailable) as error:
            refused[f"{type(error).__name__} {who}"] += 1

    def ask(who: str, times: int = 1) -> None:
        ends.extend(asyncio.create_task(work(who)) for _ in range(times))

    ask("2001:db8::1")  # is at it
    await asyncio.sleep(0)
    for n in range(41):
        ask(f"2001:db8::{n + 2:x}")  # one network: one source
    ask("192.0.2.1", 41)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert refused.total() == 2 and slots._count == 80
    ask("198.51.100.1")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert slots._count == 80 and refused["TooMany 192.0.2.1"] == 1 and refused["Unavailable 198.51.100.1"] == 0
    assert sum(n for who, n in refused.items() if who.startswith("Unavailable")) == 1, "the newest of one of the many"
    ask("192.0.2.1", 3)  # who is dropped, and comes again, drops nobody who has fewer
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*ends)
    assert "198.51.100.1" in done[:4] and slots._free == 1 and slots._count == 0 and not slots._queues


async def test_where_each_has_as_much_nobody_makes_room_for_another() -> None:
    slots, tasks = Slots(1, 5, 2), list[asyncio.Task[None]]()

    async def work(who: str) -> None:
        source.set(who)
        async with slots.slot():
            await asyncio.sleep(3600)

    for who in "aabc":
        tasks.append(asyncio.create_task(work(who)))
        await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="limit"):
        await tasks[3]
    tasks[1].cancel()
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(work("b")))
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(work("c")))  # takes b's second place, as b's own task ends
    await asyncio.sleep(0)
    tasks[4].cancel()
    await asyncio.sleep(0)
    assert slots._count == 2 and set(slots._queues) == {"b", "c"}, "nobody's turn was given back twice"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert slots._free == 1 and slots._count == 0


def test_what_is_given_out_at_once_is_one_source() -> None:
    assert source_of("2001:db8::1") == source_of("2001:db8:0:0:ffff::2") != source_of("2001:db8:0:1::1")
    assert source_of("::ffff:192.0.2.1") == source_of("192.0.2.1") != source_of("::ffff:192.0.2.2")
    assert source_of("") == "" and source_of("fe80::1%eth0").startswith("fe80::")


async def test_a_refusal_says_which_limit() -> None:
    slots = Slots(1, 1, 2)

    async def held(who: str) -> None:
        source.set(who)
        async with slots.slot():
            await asyncio.sleep(5)

    tasks = [asyncio.create_task(held(who)) for who in ("a", "a", "b")]
    await asyncio.sleep(0.01)
    for who, error in (("a", TooMany), ("c", Unavailable)):
        source.set(who)
        with pytest.raises(error, match="limit"):
            async with slots.slot():
                pass
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
