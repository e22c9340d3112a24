"""What happens to a cloud: processes are killed and frozen, connections cut and held, by dice."""

import collections
import contextlib
import heapq
import random
import subprocess
import time
from collections.abc import Callable
from itertools import count

import psycopg

from tests.chaos.fleet import Fleet, Member

#: The shortest freeze, in seconds.
SHORTEST = 0.01


class Faults:
    """longest: seconds that a process may stay frozen, or a way to the database held; pause: seconds between two faults
    on the average."""

    def __init__(self, fleet: Fleet, dice: random.Random, longest: float, pause: float):
        self._fleet, self._dice, self._longest, self._pause = fleet, dice, longest, pause
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self._start_at: dict[str, float] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.log: list[str] = []

    def run(self, seconds: float) -> None:
        """Until the time is over; what is broken then stays so."""
        kinds = [self._kill] * 4 + [self._freeze] * 5 + [self._terminate] * 2 + [self._cut] * 2 + [self._hold] + [
            self._cut_rpc] * 2
        end = time.monotonic() + seconds
        following = time.monotonic() + 1.0
        while (now := time.monotonic()) < end:
            while self._later and self._later[0][0] <= now:
                heapq.heappop(self._later)[2]()
            self._supervise(now)
            if now >= following:
                following = now + self._dice.expovariate(1 / self._pause)
                self._dice.choice(kinds)()
            time.sleep(0.005)

    def _say(self, kind: str, what: str) -> None:
        self.counts[kind] += 1
        self.log.append(f"{time.strftime('%H:%M:%S')}.{int(time.time() * 1000) % 1000:03} {kind} {what}")

    def _after(self, seconds: float, what: Callable[[], object]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), what))

    def _span(self) -> float:
        """From milliseconds to the longest, each order of magnitude as likely."""
        return float(SHORTEST * (self._longest / SHORTEST) ** self._dice.random())

    def _some(self, of: list[Member]) -> Member | None:
        running = [m for m in of if m.alive and not m.frozen]
        return self._dice.choice(running) if running else None

    def _kill(self) -> None:
        member = self._some(self._fleet.members)
        if member is not None:
            away = self._dice.uniform(0.0, 3.0)
            self._say("kill -9", f"{member.name} for {away:.2f} s")
            member.kill()
            self._start_at[member.name] = time.monotonic() + away

    def _supervise(self, now: float) -> None:
        """Whoever is not there is started again: after a kill, or because it ended by itself."""
        for member in self._fleet.members:
            if not member.alive:
                if member.name not in self._start_at:
                    self._say("ended", member.name)
                    self._start_at[member.name] = now + 0.2
                if self._start_at[member.name] <= now:
                    del self._start_at[member.name]
                    member.start()

    def _freeze(self) -> None:
        member = self._some(self._fleet.members)
        if member is not None:
            away = self._span()
            self._say("freeze", f"{member.name} for {away:.3f} s")
            member.freeze()
            self._after(away, lambda: member.thaw() if member.alive and member.frozen else None)

    def _terminate(self) -> None:
        """The database ends connections: all, or one."""
        server, _, name = self._fleet.database.rpartition("/")
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            pids = [row[0] for row in connection.execute(
                "select pid from pg_stat_activity where datname = %s and application_name = 'nacre'", [name])]
            chosen = sorted(pids) if self._dice.random() < 0.5 else self._dice.sample(sorted(pids), min(1, len(pids)))
            self._say("terminate", f"{len(chosen)} of {len(pids)} backends")
            connection.execute("select pg_terminate_backend(pid) from unnest(%s::int[]) pid", [chosen])

    def _cut(self) -> None:
        member = self._dice.choice(self._fleet.controls)
        if member.wire is not None:
            self._say("cut", f"{member.name} from the database: {member.wire.cut()} connections")

    def _hold(self) -> None:
        """Nothing passes between a control and the database, and nobody is told."""
        wire, away = self._dice.choice(self._fleet.controls).wire, self._span()
        if wire is not None:
            self._say("hold", f"for {away:.3f} s")
            wire.hold()
            self._after(away, wire.release)

    def _cut_rpc(self) -> None:
        """Connections to a process's RPC port are reset; needs root."""
        member = self._dice.choice(self._fleet.members)
        with contextlib.suppress(OSError):
            done = subprocess.run(["ss", "-K", "-t", "state", "established", f"sport = :{member.rpc_port}"],
                                  capture_output=True, text=True, check=False)
            self._say("cut rpc", f"{member.name}: {max(0, len(done.stdout.splitlines()) - 1)} connections")
