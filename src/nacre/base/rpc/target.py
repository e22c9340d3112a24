"""Who a message is for."""

import msgspec


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """topic: a role ("control", "node"); server: one process of it (a host's name); namespace: which contract;
    version: the contract's, major.minor: a server takes its own major and any minor up to its own. foreign: whoever
    answers is no part of control: what its errors say is for operators."""

    topic: str
    namespace: str
    server: str | None = None
    version: str = "1.0"
    foreign: bool = False
