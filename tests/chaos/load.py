"""Users of a cloud that breaks: each thread creates, deletes, stops, starts and describes servers of its own at some
control, and knows what must be true of them at the end."""

import collections
import contextlib
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.fleet import NO_ANSWER, Fleet

#: Servers of one user at once, and how many seconds an answer is waited for.
MOST, TIMEOUT = 8, 6.0
#: What a request may be answered while the cloud breaks: nothing was decided, or the server is at something else.
LATER = {503, 504}


@dataclass
class Known:
    """A server as its user knows it. there: True, False (deleted), None (nobody can say); metadata: key -> the last
    value that was confirmed; late: key -> values that nobody answered for, which may be written at any time."""

    name: str
    id: str = ""
    there: bool | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    late: dict[str, set[str]] = field(default_factory=dict)


class Load:
    """`running`; then `known`, `wrong` (answers that may not be) and `counts` are read."""

    def __init__(self, fleet: Fleet, seed: int, users: int):
        self._fleet, self._stop = fleet, threading.Event()
        self.known: list[Known] = []
        self.wrong: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.slowest = 0.0
        self._seed, self._users = seed, users

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(self._users) as pool:
            users = [pool.submit(self._run, n, random.Random(f"{self._seed}-{n}")) for n in range(self._users)]
            try:
                yield
            finally:
                self._stop.set()
        for user in users:
            user.result()

    def _run(self, user: int, dice: random.Random) -> None:
        mine: list[Known] = []
        verbs = [self._delete] * 3 + [self._power] * 3 + [self._describe] * 3 + [self._look] * 2
        number = 0
        while not self._stop.is_set():
            alive = [k for k in mine if k.id and k.there]
            if not alive or (len(alive) < MOST and dice.random() < 0.35):
                number += 1
                mine.append(self._create(dice, f"user{user}-{number}"))
                self.known.append(mine[-1])
            else:
                dice.choice(verbs)(dice, dice.choice(alive))
            time.sleep(dice.uniform(0.0, 0.2))

    def _ask(self, dice: random.Random, method: str, path: str, body: Any = None, good: int = 200,
             allowed: frozenset[int] = frozenset()) -> tuple[int | None, Any]:
        """Status and answer of some control; None: no answer, or one that decides nothing."""
        begin, control = time.monotonic(), dice.randrange(len(self._fleet.controls))
        try:
            status, answer = self._fleet.ask(control, method, "compute", path, body, timeout=TIMEOUT)
        except NO_ANSWER:
            self.counts["no answer"] += 1
            time.sleep(0.2)
            return None, None
        if status in LATER:
            self.counts[f"{status}"] += 1
            return None, answer
        self.slowest = max(self.slowest, time.monotonic() - begin)
        if status != good and status not in allowed:
            self.wrong.append(f"{time.strftime('%H:%M:%S')} control-{control} {method} {path}: {status} {answer}")
        self.counts[f"{method.lower()} {status}"] += 1
        return status, answer

    def _create(self, dice: random.Random, name: str) -> Known:
        known = Known(name)
        status, answer = self._ask(dice, "POST", "/servers", {"server": {**self._fleet.server, "name": name}}, 202)
        if status == 202:
            known.id, known.there = answer["server"]["id"], True
            self.counts["created"] += 1
        elif status is not None:
            known.there = False
        return known

    def _delete(self, dice: random.Random, known: Known) -> None:
        status, _ = self._ask(dice, "DELETE", f"/servers/{known.id}", None, 204)
        known.there = False if status == 204 else None if status is None else known.there
        self.counts["deleted"] += status == 204

    def _power(self, dice: random.Random, known: Known) -> None:
        action = dice.choice(("os-stop", "os-start"))
        self._ask(dice, "POST", f"/servers/{known.id}/action", {action: None}, 202, frozenset({409}))

    def _describe(self, dice: random.Random, known: Known) -> None:
        key, value = f"key{dice.randrange(3)}", f"{dice.random()}"
        status, _ = self._ask(dice, "PUT", f"/servers/{known.id}/metadata/{key}", {"meta": {key: value}},
                              200, frozenset({409}))
        if status is None:  # a frozen process may read it when it goes on, after answers to later ones
            known.late.setdefault(key, set()).add(value)
        elif status == 200:
            known.metadata[key] = value

    def _look(self, dice: random.Random, known: Known) -> None:
        self._ask(dice, "GET", f"/servers/{known.id}")
