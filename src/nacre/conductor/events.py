"""The steps of a story for one server, timed as they happen."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from nacre.base.clock import Clock
from nacre.base.crash import point
from nacre.compute.contract import Event
from nacre.node.contract import Step


class ActionEvents:
    """The events of one action on a server, collected: `steps` is what the action will show."""

    def __init__(self, clock: Clock):
        self._clock = clock
        self.steps: list[Event] = []

    @contextmanager
    def step(self, name: str, host: str | None = None) -> Iterator[None]:
        """Time the block as a step; an error is recorded with its words and raised on."""
        begin = self._now()
        point(f"control {name} begins")
        try:
            yield
        except BaseException as error:
            self._add(name, begin, host, "Error", str(error) or type(error).__name__)
            raise
        point(f"control {name} done")
        self._add(name, begin, host, "Success", None)

    def record(self, name: str, details: str, host: str | None = None) -> None:
        """A decision that took no time worth measuring."""
        self._add(name, self._now(), host, "Success", details)

    def failed(self, name: str, details: str) -> None:
        """A decision that nothing can be done."""
        self._add(name, self._now(), None, "Error", details)

    def add(self, prefix: str, steps: Iterable[Step], host: str) -> None:
        """Steps that a host timed itself."""
        for s in steps:
            self.steps.append(Event(name=f"{prefix}.{s.name}", host=host, result="Success",
                                    started_at=_moment(s.started), finished_at=_moment(s.finished)))

    def _add(self, name: str, begin: datetime, host: str | None, result: str, details: str | None) -> None:
        self.steps.append(Event(name=name, started_at=begin, finished_at=self._now(), host=host, result=result,
                                details=details))

    def _now(self) -> datetime:
        return self._clock.now().replace(tzinfo=None)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
