"""What every part of the API works with, and how its routes name what they ask of the policy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.errors import Forbidden, NacreError
from nacre.base.serving import gate
from nacre.base.serving.gate import Gate, Subject, Target, asks
from nacre.base.web import Request
from nacre.identity import tables as t
from nacre.identity.keys.vault import Vault
from nacre.identity.records import Kind, find, missing
from nacre.identity.service import IdentityService
from nacre.identity.store import Store

Row = Mapping[str, Any]


class UserLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one user may have of what users make for themselves, and the bytes of a credential's blob. credentials:
    those of EC2 among them; trusts: as the trustor."""

    credentials: int = 100
    application_credentials: int = 100
    access_rules: int = 500
    trusts: int = 200
    credential_bytes: int = 16384

    def room(self, conn: sa.Connection, what: str, user_id: str) -> None:
        """Raises Forbidden, as Keystone does, unless the user may have one more. what: one of the fields."""
        column = _OWNERS[what]
        most = getattr(self, what)
        if (conn.scalar(sa.select(sa.func.count()).where(column == user_id)) or 0) >= most:
            raise Forbidden(f"Unable to create additional {what.replace('_', ' ')}, maximum of {most} already exceeded "
                            "for user.")


_OWNERS = {"credentials": t.credentials.c.user_id, "application_credentials": t.application_credentials.c.user_id,
           "access_rules": t.access_rules.c.user_id, "trusts": t.trusts.c.trustor_user_id}


@dataclass(frozen=True)
class Providers:
    """The objects that handlers share."""

    identity: IdentityService
    vault: Vault  # for secrets that must be read again: blobs of credentials
    limits: UserLimits = field(default_factory=UserLimits)

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
