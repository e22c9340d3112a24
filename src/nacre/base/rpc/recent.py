"""What is remembered of the messages of many peers: so much of each, and so much of all, the oldest forgotten first."""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """Values by peer and message id. each: how many of one peer, so that none pushes out what is known of the others;
    total: of all."""

    def __init__(self, each: int, total: int):
        self._each, self._total = each, total
        self._values: OrderedDict[tuple[str, bytes], V] = OrderedDict()
        self._of: dict[str, deque[bytes]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: tuple[str, bytes]) -> bool:
        return key in self._values

    def get(self, who: str, id: bytes) -> V | None:
        return self._values.get((who, id))

    def add(self, who: str, id: bytes, value: V) -> None:
        """One that is not known yet."""
        own = self._of.setdefault(who, deque())
        if len(own) >= self._each:
            del self._values[who, own.popleft()]
        own.append(id)
        self._values[who, id] = value
        if len(self._values) > self._total:
            (oldest, id), _ = self._values.popitem(last=False)
            self._of[oldest].popleft()
            if not self._of[oldest]:
                del self._of[oldest]
