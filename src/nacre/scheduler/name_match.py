"""`scheduler_host_match`: a regular expression from a user, over the names of many hosts, in linear time (FLOW A8)."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import re2
from numpy.typing import NDArray

from nacre.base.errors import BadRequest

if TYPE_CHECKING:
    from nacre.scheduler.host_queue import HostQueue

MAX_PATTERN = 255
#: How many patterns' answers are kept a queue.
KEPT = 64
#: What means something else in one long text than in single names: anchors of the whole text, raw bytes, flags.
_OF_WHOLE_TEXT = ("\\A", "\\z", "\\Z", "\\C", "\\Q", "(?")


class NamePattern:
    """A compiled pattern: found in a name, or not. Raises BadRequest where it is none."""

    def __init__(self, text: str):
        if len(text) > MAX_PATTERN:
            raise BadRequest(f"scheduler_host_match is longer than {MAX_PATTERN} characters.",
                             field="scheduler_host_match")
        self.text = text
        self._search = _compiled(text, lines=False)

    def found_in(self, name: str) -> bool:
        return self._search.search(name) is not None

    def lines(self, names: list[bytes]) -> NDArray[np.intp]:
        """The indexes of the names with a match, in one pass over all of them."""
        if any(sign in self.text for sign in _OF_WHOLE_TEXT):
            return np.array([n for n, name in enumerate(names) if self.found_in(name.decode())], dtype=np.intp)
        search, text = _compiled(self.text, lines=True).search, b"\n".join(names)
        ends = np.cumsum([len(name) + 1 for name in names])  # where the next name begins
        found, position = [], 0
        while position <= len(text) and (match := search(text, position)):
            line = int(np.searchsorted(ends, match.start(), side="right"))
            if line >= len(names):
                break
            found.append(line)
            position = int(ends[line])
        return np.array(found, dtype=np.intp)


@lru_cache(maxsize=256)
def _compiled(text: str, *, lines: bool) -> Any:
    options = re2.Options()
    options.never_nl, options.log_errors = lines, False
    try:
        return re2.compile(f"(?m){text}".encode() if lines else text, options)
    except re2.error as error:
        raise BadRequest(f"scheduler_host_match is no regular expression: {error}",
                         field="scheduler_host_match") from None


class NameIndex:
    """A queue's names, and which of them the last patterns matched. Made anew when a host comes or goes."""

    def __init__(self, queue: "HostQueue"):
        self._queue = queue
        self._names: list[bytes] = []
        self._rows: dict[str, NDArray[np.intp]] = {}

    def forget(self) -> None:
        self._names, self._rows = [], {}

    def known(self, pattern: NamePattern) -> NDArray[np.intp] | None:
        """The rows that match, if that was asked before."""
        return self._rows.get(pattern.text)

    def rows(self, pattern: NamePattern) -> NDArray[np.intp]:
        """The rows whose names match, in ascending order."""
        if (known := self._rows.get(pattern.text)) is not None:
            return known
        if not self._names:
            self._names = [host.name.encode() if host else b"" for host in self._queue.hosts]
        if len(self._rows) >= KEPT:
            del self._rows[next(iter(self._rows))]
        hosts = self._queue.hosts
        found = self._rows[pattern.text] = np.array(
            [row for row in pattern.lines(self._names) if hosts[row] is not None], dtype=np.intp)
        return found
