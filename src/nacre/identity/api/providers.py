"""What every part of the API works with, and how its routes name what they ask of the policy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nacre.base.errors import Forbidden, NacreError
from nacre.base.serving import gate
from nacre.base.serving.gate import Gate, Subject, Target, asks
from nacre.base.web import Request
from nacre.identity.keys.vault import Vault
from nacre.identity.records import Kind, find, missing
from nacre.identity.service import IdentityService
from nacre.identity.store import Store

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Providers:
    """The objects that handlers share."""

    identity: IdentityService
    vault: Vault  # for secrets that must be read again: blobs of credentials

    @property
    def store(self) -> Store:
        return self.identity.store

    def row(self, kind: Kind, param: str) -> Target:
        """What the URL's `param` names. That it is not there only those learn who may ask about any."""
        async def target(request: Request) -> Subject:
            id = request.params[param]
            row = await self.store.read(lambda conn: find(conn, kind, id))
            return Subject(about(kind, row), row, missing=missing(kind, id))
        return target


def asking(*rules: str, about: Target | None = None, parts: tuple[str, ...] = ()) -> Gate:
    """A gate that asks one of `identity:rules`."""
    return asks(*(f"identity:{rule}" for rule in rules), about=about,
                parts=tuple(f"identity:{part}" for part in parts))


def stated(make: Callable[[Request], Row]) -> Target:
    """What the request itself says: names with dots, the absent ones left out."""
    return gate.stated(lambda request: facts(make(request)))


def facts(values: Row) -> dict[str, Any]:
    """A target for rules: what is absent is nobody's, but for the domain of a role, which may be no domain."""
    return {k: v for k, v in values.items() if v is not None or k == "target.role.domain_id"}


def about(kind: Kind, row: Row | None) -> dict[str, Any]:
    """The policy target that a row is; None: it is not there."""
    if row is None:
        return {}
    return facts({f"target.{kind.name}.{k}": row[k] or None for k in ("id", "domain_id", "name", "user_id")
                  if k in row})


def refused(rule: str) -> NacreError:
    """Keystone's words."""
    return Forbidden(f"You are not authorized to perform the requested action: {rule}.")
