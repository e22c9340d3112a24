"""Who a message is for."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

F = TypeVar("F", bound=Callable[..., Any])


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """topic: a role ("control", "node"); server: one process of it (a host's name); namespace: which contract;
    version: the contract's, major.minor: a server takes its own major and any minor up to its own."""

    topic: str
    namespace: str
    server: str | None = None
    version: str = "1.0"


def cast(method: F) -> F:
    """Marks a contract's verb as fire and forget: acknowledged on receipt, no answer awaited."""
    method.__rpc_cast__ = True  # type: ignore[attr-defined]
    return method
