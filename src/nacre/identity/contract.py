"""What others may ask of identity: who a token is, and what a caller may do."""

from collections.abc import Mapping
from typing import Any, Protocol

from nacre.base.context import Context


class Identity(Protocol):
    """Tokens and names."""

    async def authenticate(self, token: str) -> Context:
        """The caller behind a token. Raises Unauthenticated."""
        ...

    async def project_exists(self, project_id: str) -> bool:
        """Whether an enabled or disabled project of that id exists."""
        ...


class Policy(Protocol):
    """The compiled oslo.policy rules of all services."""

    def check(self, context: Context, rule: str, target: Mapping[str, Any] | None = None) -> None:
        """Raises Forbidden unless `context` may do `rule` to `target` (default: its own project's things)."""
        ...

    def allows(self, context: Context, rule: str, target: Mapping[str, Any] | None = None) -> bool: ...
