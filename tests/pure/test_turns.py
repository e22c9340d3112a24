"""Turns of projects: one that sends very much holds up itself alone."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from nacre.base.context import Context
from nacre.base.errors import NacreError, TooMany
from nacre.base.serving.gate import AUTHENTICATED, PUBLIC
from nacre.base.serving.turns import Turns
from nacre.base.web import OSLO_BODY, App, Reply, Request, Route, Service
from nacre.image.api.data import DataApi
from nacre.image.api.images import ImagesApi
from nacre.image.api.service import _image_routes


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


class Cloud:
    """One route that answers when it is let, over an app with turns."""

    def __init__(self, turns: Turns):
        self.let, self.working, self.most = asyncio.Event(), Counter[str](), Counter[str]()
        service = Service("s", "/s", [
            Route("GET", "/wait", self.wait, AUTHENTICATED), Route("GET", "/quick", self.quick, AUTHENTICATED),
            Route("PUT", "/data", self.wait, AUTHENTICATED, raw=True),
            Route("POST", "/open", self.quick, PUBLIC, body=lambda _, body: body),
            Route("POST", "/made", self.quick, "make", body=lambda _, body: body)], self.fault)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(
            App([service], self.who, lambda who, *_: who.user_id != "reader", turns=turns)), base_url="http://cloud")

    async def who(self, token: str) -> Context:
        project, _, user = token.partition(" ")
        return Context(request_id="r", user_id=user or "u", project_id=project)

    async def wait(self, request: Request) -> None:
        project = request.context.project_id or ""
        self.working[project] += 1
        self.most[project] = max(self.most[project], self.working[project])
        await self.let.wait()
        self.working[project] -= 1

    async def quick(self, request: Request) -> None:
        """At once."""

    def fault(self, error: NacreError, status: int, request: Request) -> Reply:
        return Reply({"message": error.message}, status)

    def ask(self, project: str, path: str = "wait", method: str = "GET") -> asyncio.Task[httpx.Response]:
        return asyncio.ensure_future(self.http.request(method, f"/s/{path}", headers={"x-auth-token": project}))

    def slow(self, who: str, come: asyncio.Event) -> asyncio.Task[httpx.Response]:
        """A request whose body comes when it is let."""
        async def body() -> AsyncIterator[bytes]:
            yield b"{"
            await come.wait()
            yield b"}"
        return asyncio.ensure_future(self.http.post("/s/made", headers={"x-auth-token": who}, content=body()))


async def test_others_are_answered_while_one_waits_and_its_rest_is_refused() -> None:
    cloud = Cloud(Turns(at_once=3, waiting=5))
    many = [cloud.ask("red") for _ in range(10)]
    await until(lambda: sum(task.done() for task in many) == 2)
    refused = [task.result() for task in many if task.done()]
    assert {a.status_code for a in refused} == {429} and refused[0].headers["retry-after"] == "1"
    assert "3 requests" in refused[0].text and "5 more" in refused[0].text
    assert (await cloud.ask("blue", "quick")).status_code == 200
    cloud.let.set()
    assert Counter(a.status_code for a in await asyncio.gather(*many)) == {200: 8, 429: 2}
    assert cloud.most["red"] == 3
    assert (await cloud.ask("red", "quick")).status_code == 200


async def test_a_long_upload_takes_nobodys_turn() -> None:
    cloud = Cloud(Turns(at_once=1, waiting=0))
    upload = cloud.ask("red", "data", "PUT")
    await until(lambda: cloud.working["red"] == 1)
    assert (await cloud.ask("red", "quick")).status_code == 200
    cloud.let.set()
    assert (await upload).status_code == 200


@pytest.mark.parametrize("late", [False, True])
async def test_who_goes_away_leaves_its_turn_to_the_next(late: bool) -> None:
    turns, order = Turns(at_once=1, waiting=9), list[str]()

    async def one(name: str, end: asyncio.Event) -> None:
        async with turns.turn("red"):
            order.append(name)
            await end.wait()
        if late and name == "a":  # its turn came to the second in this moment
            second.cancel()

    end = asyncio.Event()
    first, second, third = (asyncio.ensure_future(one(name, end)) for name in "abc")
    await until(lambda: order == ["a"])
    if not late:
        second.cancel()
        await asyncio.sleep(0)
    end.set()
    await asyncio.gather(first, second, third, return_exceptions=True)
    assert order == ["a", "c"] and second.cancelled()
    async with turns.turn("red"):
        assert turns._places["red"].working >= 1
    await until(lambda: not turns._places)


async def test_what_is_answered_at_once_leaves_room_between() -> None:
    """A hundred requests that wait for nothing, and one of another project that came after them."""
    turns, order = Turns(at_once=2, waiting=200), list[str]()

    async def one(project: str) -> None:
        async with turns.turn(project):
            order.append(project)

    await asyncio.gather(*(one("red") for _ in range(100)), one("blue"))
    assert order.index("blue") <= 2 and len(order) == 101


async def test_refusals_leave_room_between() -> None:
    """A hundred that are refused at once, and what another project asks after them, in three steps."""
    turns, order = Turns(at_once=5, waiting=0), list[str]()

    async def one(project: str) -> None:
        try:
            async with turns.turn(project):
                for _ in range(3):
                    await asyncio.sleep(0)
        except TooMany:
            pass
        order.append(project)

    async with turns.turn("red"), turns.turn("red"), turns.turn("red"), turns.turn("red"), turns.turn("red"):
        await asyncio.gather(*(one("red") for _ in range(100)), one("blue"))
    assert order.index("blue") <= 30 and len(order) == 101 and not turns._refused


async def test_nobody_may_wait() -> None:
    turns = Turns(at_once=1, waiting=0)
    async with turns.turn("red"):
        with pytest.raises(TooMany):
            async with turns.turn("red"):
                pass


async def test_bodies_that_wait_are_bounded_together() -> None:
    """What waits is in memory. One may always wait, however large it is."""
    turns = Turns(at_once=1, waiting=9, size=1000)

    async def one(size: int) -> None:
        async with turns.turn("red", size=size):
            await asyncio.sleep(0)

    async with turns.turn("red", size=5000):
        waiting = [asyncio.ensure_future(one(size)) for size in (5000, 0, 1, 400)]
        await until(lambda: [task.done() for task in waiting] == [False, True, True, True])
        for task in waiting[1:]:
            with pytest.raises(TooMany, match="1000 bytes of bodies"):
                await task
    await waiting[0]
    async with turns.turn("red"):
        waiting = [asyncio.ensure_future(one(size)) for size in (600, 400, 1)]
        await until(lambda: [task.done() for task in waiting] == [False, False, True])
    await asyncio.gather(*waiting, return_exceptions=True)
    await until(lambda: not turns._places)


async def test_who_is_slow_with_bodies_holds_up_nobody_else() -> None:
    cloud, come = Cloud(Turns(at_once=2, waiting=1)), asyncio.Event()
    slow = [cloud.slow("red ann", come) for _ in range(4)]
    await until(lambda: any(task.done() for task in slow))
    assert [task.result().status_code for task in slow if task.done()] == [429], "so many bodies of one user are held"
    for who in ("red bob", "red ann", "blue ann"):
        assert (await cloud.ask(who, "quick")).status_code == 200
    quick = asyncio.Event()
    quick.set()
    assert (await cloud.slow("red bob", quick)).status_code == (await cloud.slow("blue ann", quick)).status_code == 200
    come.set()
    assert Counter(answer.status_code for answer in await asyncio.gather(*slow)) == {200: 3, 429: 1}


async def test_who_may_not_is_told_before_the_body_is_there() -> None:
    cloud = Cloud(Turns(at_once=1, waiting=0))
    for _ in range(3):
        assert (await cloud.slow("red reader", asyncio.Event())).status_code == 403


async def test_users_of_a_project_take_turns_and_one_with_many_makes_room() -> None:
    cloud = Cloud(Turns(at_once=1, waiting=4))
    many = [cloud.ask("red ann") for _ in range(5)]
    await until(lambda: cloud.working["red"] == 1)
    await asyncio.sleep(0)
    others = [cloud.ask("red bob", "quick") for _ in range(2)]
    await until(lambda: sum(task.done() for task in many) == 2)
    assert {task.result().status_code for task in many if task.done()} == {429}, "ann's newest made room for bob"
    cloud.let.set()
    assert Counter(answer.status_code for answer in await asyncio.gather(*many)) == {200: 3, 429: 2}
    assert [answer.status_code for answer in await asyncio.gather(*others)] == [200, 200]


async def test_of_somebody_unknown_no_large_body_is_taken() -> None:
    cloud = Cloud(Turns())
    for size, status in ((OSLO_BODY, 200), (OSLO_BODY + 1, 413)):
        body = b'"' + b"x" * (size - 2) + b'"'
        assert (await cloud.http.post("/s/open", content=body)).status_code == status
        assert (await cloud.http.post("/s/made", content=body, headers={"x-auth-token": "red"})).status_code == 200


def test_only_uploads_take_no_turn() -> None:
    nothing: Any = None
    routes = _image_routes(ImagesApi(nothing, nothing, nothing), DataApi(nothing))
    assert {(route.method, route.path) for route in routes if route.raw} == {
        ("PUT", "/v2/images/{image_id}/file"), ("PUT", "/v2/images/{image_id}/stage")}
