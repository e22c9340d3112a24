"""What the host part of the API asks about servers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

#: The servers on each of these hosts, as (id, domain name) pairs.
HostCounts = Callable[[Sequence[str]], Awaitable[Mapping[str, Sequence[tuple[str, str]]]]]
