"""Where the time of a build goes on this host: named steps, in order."""

from collections.abc import Iterator
from contextlib import contextmanager

from nacre.base.clock import Clock
from nacre.base.crash import point
from nacre.node.contract import Step


class StepTimer:
    """Collects steps. A step that fails is kept too: it is the one to look at."""

    def __init__(self, clock: Clock):
        self._clock, self._steps = clock, list[Step]()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times its block under this name."""
        begin = self._clock.now().timestamp()
        point(f"node {name} begins")
        try:
            yield
            point(f"node {name} done")
        finally:
            self._steps.append(Step(name=name, started=begin, finished=self._clock.now().timestamp()))

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(self._steps)
