"""Runs seeds: `python -m tests.simulation.run FIRST LAST [STEP] [--plant BUG] [--until-wrong] [--history]`, one
JSON line for each. Ids come from the seed by replacing os.urandom, and sets of texts are walked by their hashes: so
each batch of seeds has a process of its own, with PYTHONHASHSEED=0."""

import argparse
import asyncio
import gc
import json
import random
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import structlog

from nacre.base.errors import Interrupted
from nacre.simulation.seeds import seeded
from tests.simulation.faults import Weather
from tests.simulation.history import History
from tests.simulation.loop import SimulatedLoop
from tests.simulation.settled import problems
from tests.simulation.workload import Users
from tests.simulation.world import World

#: Virtual seconds in which things go wrong, and after which all must be well; between two looks then.
CHAOS, BOUND, LOOK = 36.0, 240.0, 2.0


class Result(msgspec.Struct):
    """What came of a seed. wrong: the laws that were broken; history: if any were, or it was asked for. virtual,
    seconds: how long it took, there and of the processor."""

    seed: int
    digest: str
    wrong: list[str]
    history: list[str]
    virtual: float
    seconds: float
    servers: int


async def _play(seed: int, folder: Path) -> tuple[World, Users]:
    world = World(seed, folder)
    _listen(world.history)
    await world.start()
    users, weather = Users(world, CHAOS), Weather(world, CHAOS)
    chaos = asyncio.gather(users.run(), weather.run())
    while not chaos.done():
        await asyncio.sleep(1)
        world.checker.look()
        if world.history.wrong:
            return world, users
    chaos.result()
    end, left = world.loop.time() + BOUND, ["not looked at"]
    while left and not world.history.wrong and world.loop.time() < end:
        for host in world.hosts:
            host.fetch()
        await asyncio.sleep(LOOK)
        world.checker.look()
        left = problems(world, users) if world.loop.time() > world.network.latest else left
    for problem in left if not world.history.wrong else ():
        world.history.blame(problem)
    return world, users


def _listen(history: History) -> None:
    """What the product did not expect is wrong, too."""
    def expect(logger: Any, method: str, event: dict[str, Any]) -> Any:
        error = sys.exc_info()[1]
        if event.get("exc_info") and not isinstance(error, Interrupted | OSError):
            history.blame(f"unexpected: {event['event']}:", repr(error))
        raise structlog.DropEvent

    structlog.configure(processors=[expect], cache_logger_on_first_use=False,
                        wrapper_class=structlog.make_filtering_bound_logger(30))


def play(seed: int, *, whole: bool = False) -> Result:
    """One seed, from nothing to its verdict. whole: with its history though all is well."""
    begin = time.process_time()
    shared = Path("/dev/shm")
    random.seed(seed)
    loop = SimulatedLoop()
    asyncio.set_event_loop(loop)
    with TemporaryDirectory(prefix="nacre-sim-", dir=shared if shared.is_dir() else None) as folder, seeded(seed):
        world, users = loop.run_until_complete(_play(seed, Path(folder)))
        took, history = loop.time(), world.history
        loop.over = True
        for host in (*world.hosts, world.stranger):
            if host.process is not None:
                host.manager.here.journal._db.close()
    return Result(
        seed=seed, digest=history.digest(), wrong=history.wrong, virtual=round(took, 1), servers=len(users.created),
        seconds=round(time.process_time() - begin, 2), history=history.lines if history.wrong or whole else [])


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("first", type=int)
    options.add_argument("last", type=int)
    options.add_argument("step", type=int, nargs="?", default=1)
    options.add_argument("--plant", default="")
    options.add_argument("--until-wrong", action="store_true")
    options.add_argument("--history", action="store_true")
    given = options.parse_args()
    sys.unraisablehook = lambda _: None  # what is collected after a run was killed in it
    gc.disable()
    from tests.simulation.planted import PLANTED

    with PLANTED[given.plant]() if given.plant else nullcontext():
        for number, seed in enumerate(range(given.first, given.last + 1, given.step)):
            result = play(seed, whole=given.history)
            print(json.dumps(msgspec.to_builtins(result)), flush=True)
            if result.wrong and given.until_wrong:
                return
            if number % 8 == 7:
                gc.collect()


if __name__ == "__main__":
    main()
