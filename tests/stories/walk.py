"""What runs of ours because of one create: from `POST /servers` with a port until the server is ACTIVE, in one process,
with a simulated guest."""

import ast
import asyncio
import contextlib
import contextvars
import re
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import FrameType
from typing import Any

from tests.stories.whole_cloud import WholeCloud, whole_cloud

import nacre
from nacre.base.db import Database

ROOT = Path(nacre.__file__).parent
#: Creates that are watched.
TIMES = 8
HEAD = """# The walk of one create

Every module of Nacre that runs because of a `POST /servers` (an image, a network) until the server's first ACTIVE, with
a simulated guest and all services in one process: {modules} modules, in the order in which they are first met. They
have {lines} lines; the functions that run have {ran}. What hosts say all the time is not in it, nor clients that look.
Measured, and written anew by `python -m tests.stories.walk > docs/walks/create.md`; held by
`tests/stories/test_walk.py`.

| module | lines | of them run | what it is |
|---|---|---|---|
"""

#: Whether what runs now does so because of a request that is watched: tasks have it from whoever made them.
_watched = contextvars.ContextVar("watched", default=False)


class Profile:
    """The functions of ours that are called because of what `cause` does: file -> first lines, in the order of their
    first call."""

    def __init__(self) -> None:
        self.called: dict[str, set[int]] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and _watched.get() and code.co_filename.startswith(str(ROOT)):
            self.called.setdefault(code.co_filename, set()).add(code.co_firstlineno)

    @contextlib.asynccontextmanager
    async def on(self, db: Database) -> AsyncIterator[None]:
        """Also in the thread that writes to this database, whose units run as those do that sent them."""
        async def run(unit: Callable[[Any], Any]) -> Any:
            context = contextvars.copy_context()
            return await plain(lambda conn: context.run(unit, conn))

        plain = db.run
        await plain(lambda _: sys.setprofile(self))
        threading.setprofile(self)
        sys.setprofile(self)
        db.run = run  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            db.run = plain  # type: ignore[method-assign]
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
            await plain(lambda _: sys.setprofile(None))


async def create(cloud: WholeCloud, name: str, ids: dict[str, str]) -> None:
    """One server with a port, until ACTIVE. Only the POST is watched, and what comes of it."""
    token = _watched.set(True)
    try:
        made = await cloud.ask("demo", "POST", "compute", "/servers", {"server": {
            "name": name, "flavorRef": ids["flavor"], "imageRef": ids["image"],
            "networks": [{"uuid": ids["network"]}]}})
    finally:
        _watched.reset(token)
    assert made.status_code == 202, made.text
    server = made.json()["server"]["id"]
    while (seen := await shown(cloud, server))["status"] == "BUILD":
        await asyncio.sleep(0.01)
    assert seen["status"] == "ACTIVE", seen


async def shown(cloud: WholeCloud, server: str) -> dict[str, Any]:
    answer = await cloud.ask("demo", "GET", "compute", f"/servers/{server}")
    return dict(answer.json()["server"])


async def prepared(cloud: WholeCloud) -> dict[str, str]:
    """A network with a subnet, an image, a flavor, and a token: what a user has before."""
    net = (await cloud.ask("demo", "POST", "network", "/networks", {"network": {"name": "n"}})).json()["network"]["id"]
    await cloud.ask("demo", "POST", "network", "/subnets",
                    {"subnet": {"network_id": net, "ip_version": 4, "cidr": "10.9.0.0/24"}})
    image = (await cloud.ask("demo", "POST", "image", "/images", {
        "name": "i", "disk_format": "raw", "container_format": "bare"})).json()["id"]
    await cloud.http.put(f"/image/v2/images/{image}/file", content=b"\0" * 1024, headers={
        "X-Auth-Token": await cloud.token("demo"), "Content-Type": "application/octet-stream"})
    while not (await cloud.ask("admin", "GET", "compute", "/os-hypervisors")).json()["hypervisors"]:
        await asyncio.sleep(0.01)
    flavors = (await cloud.ask("demo", "GET", "compute", "/flavors")).json()["flavors"]
    return {"network": net, "image": image, "flavor": flavors[0]["id"]}


async def walk(folder: Path) -> list[Profile]:
    """What ran for each of `TIMES` creates."""
    async with whole_cloud(folder) as cloud:
        ids = await prepared(cloud)
        await create(cloud, "warm", ids)  # what is read once in a process's life is no stop of the walk
        profiles = [Profile() for _ in range(TIMES)]
        for n, profile in enumerate(profiles):
            async with profile.on(cloud.control.db):
                await create(cloud, f"s{n}", ids)
        return profiles


def common(profiles: list[Profile]) -> Profile:
    """The functions that ran each time."""
    both = Profile()
    for file in set.intersection(*({*profile.called} for profile in profiles)):
        if first := set.intersection(*(profile.called[file] for profile in profiles)):
            both.called[file] = first
    return both


def modules(profile: Profile) -> list[Path]:
    """Those that ran, in the order in which they are first met."""
    return [Path(file).relative_to(ROOT) for file in profile.called]


def lines_run(profile: Profile, module: Path) -> int:
    """Lines of the module's functions that ran."""
    first, lines = profile.called[str(ROOT / module)], set[int]()
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            begin = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            if begin in first:
                lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def page(profile: Profile) -> str:
    """`docs/walks/create.md`: the stops in the order in which they are first met, each with its first words."""
    stops, total, ran = [], 0, 0
    for module in modules(profile):
        text = (ROOT / module).read_text()
        words = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
        size, part = len(text.splitlines()), lines_run(profile, module)
        total, ran = total + size, ran + part
        stops.append(f"| `{module}` | {size} | {part} | {re.split(r'(?<=[.]) ', words)[0]} |")
    return HEAD.format(modules=len(stops), lines=total, ran=ran) + "\n".join(stops) + "\n"


def stops(page: str) -> set[str]:
    """The modules that a page names."""
    return set(re.findall(r"^\| `(\S+\.py)` \|", page, re.M))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(page(asyncio.run(walk(Path(folder)))[0]))
