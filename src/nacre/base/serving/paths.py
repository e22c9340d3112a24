"""What lies at which path: a tree of segments, of which some are parameters. And pages of what is listed there: what
follows a marker, and where the next page is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote, urlencode

T = TypeVar("T")


@dataclass(frozen=True)
class Paths(Generic[T]):
    """A segment and what is below it. below: by literal segment; None: whatever a parameter takes."""

    below: "dict[str | None, Paths[T]]" = field(default_factory=dict)
    here: list[tuple[tuple[str, ...], T]] = field(default_factory=list)  # with the names of its parameters

    def add(self, path: str, what: T) -> None:
        """path: "/servers/{server_id}"."""
        parts, at = [p for p in path.split("/") if p], self
        for part in parts:
            at = at.below.setdefault(None if part[0] == "{" else part, Paths())
        at.here.append((tuple(p[1:-1] for p in parts if p[0] == "{"), what))

    def find(self, path: str) -> list[tuple[T, dict[str, str]]]:
        """All that is there, with the path's parameters; literal segments win over parameters."""
        level: list[tuple[Paths[T], tuple[str, ...]]] = [(self, ())]
        for segment in (unquote(s) for s in path.split("/") if s):
            level = [(at.below[key], values if key else (*values, segment))
                     for at, values in level for key in (segment, None) if key in at.below]
        found = [(what, dict(zip(names, values, strict=True))) for at, values in level for names, what in at.here]
        return sorted(found, key=lambda f: len(f[1]))


def after(items: Sequence[T], marker: str, ident: Callable[[T], str]) -> Sequence[T] | None:
    """The items that follow the one of that id; None: it is not among them."""
    place = next((n for n, item in enumerate(items) if ident(item) == marker), None)
    return None if place is None else items[place + 1:]


def link(here: str, query: Sequence[tuple[str, str]], **changed: str | None) -> str:
    """The address of another page: that query, with these parameters in the place of its own; None: without it."""
    rest = [(name, value) for name, value in query if name not in changed]
    rest += [(name, value) for name, value in changed.items() if value is not None]
    return f"{here}?{urlencode(rest)}" if rest else here
