"""What a token means now: the user, the scope and the roles, read afresh. Nothing of it is in the token.

That is what makes a disabled user, project or domain and a removed role count at once.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.db import statements
from nacre.base.errors import Unauthenticated
from nacre.identity import ended
from nacre.identity import tables as t
from nacre.identity.tokens import Payload

Row = dict[str, Any]
MAX_DEPTH = 10
#: So far the clocks of control processes may differ, in seconds. What was issued later than that is refused meanwhile:
#: a process whose clock is ahead would issue what lives past its lifetime.
AHEAD = 300.0


_A, _M = t.assignments.c, t.memberships.c
_USER = sa.bindparam("user", type_=_A.actor_id.type)
#: The roles assigned to a user or its groups on a target, or above it to be inherited.
_ASSIGNED = sa.select(_A.role_id).where(
    sa.or_(sa.and_(_A.actor_type == "user", _A.actor_id == _USER),
           sa.and_(_A.actor_type == "group", _A.actor_id.in_(sa.select(_M.group_id).where(_M.user_id == _USER)))),
    sa.or_(sa.and_(_A.target_type == sa.bindparam("kind"), _A.target_id == sa.bindparam("target"),
                   _A.inherited.is_(False)),
           sa.and_(_A.inherited.is_(True), _A.target_id.in_(sa.bindparam("above", expanding=True)))))


class TrustBroken(Unauthenticated):
    """The trustor has lost a role of those that a trust delegates: it delegates none, as in Keystone."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A token's meaning. `user` is whom it acts as: with an impersonating trust, the trustor."""

    user: Row
    user_domain: Row
    project: Row | None = None
    project_domain: Row | None = None
    domain: Row | None = None
    system: bool = False
    roles: tuple[tuple[str, str], ...] = ()  # id, name; implied ones too
    trust: Row | None = None
    credential: Row | None = None  # the application credential
    access_rules: tuple[Row, ...] | None = None
    access: Row | None = None  # the OAuth access token

    @property
    def ends(self) -> float:
        """When what the token stands for ends (seconds since the epoch), with it the token."""
        lent = (self.trust, self.credential, self.access)
        return min((row["expires_at"] for row in lent if row and row["expires_at"] is not None), default=float("inf"))

    @property
    def delegated(self) -> bool:
        """Whether the token stands for less than its user: with it one must not get at more."""
        return self.trust is not None or self.credential is not None or self.access is not None


def derive(conn: sa.Connection, payload: Payload, now: float) -> Facts:
    """What `payload` means. Raises Unauthenticated for what is expired, revoked, disabled or gone, or was so since the
    token was issued."""
    facts = _derive(conn, payload, now)
    if ended.since(conn, payload.revision, _rests_on(payload, facts)):
        raise Unauthenticated
    return facts


def _rests_on(payload: Payload, facts: Facts) -> list[str]:
    """What may not have ended since. A trust's token rests on both of its users."""
    users = {payload.user_id, facts.user["id"], *([facts.trust["trustor_user_id"]] if facts.trust else ())}
    homes = {row["id"] for row in (facts.user_domain, facts.project, facts.project_domain, facts.domain) if row}
    target = facts.project or facts.domain or ({"id": "all"} if facts.system else None)
    grants = [ended.of_grant(user, target["id"]) for user in users] if target else []
    loans = [ended.of_loan(payload.scope_id)] if facts.delegated else []
    return [ended.of_token(payload.audit_id), *map(ended.of_user, users), *map(ended.of_project, homes), *grants,
            *loans]


def _derive(conn: sa.Connection, payload: Payload, now: float) -> Facts:
    if payload.expires_at <= now or payload.issued_at > now + AHEAD:
        raise Unauthenticated
    user, user_domain = live_user(conn, payload.user_id)
    base = Facts(user=user, user_domain=user_domain)
    match payload.scope:
        case "project":
            return _on_project(conn, base, payload.scope_id)
        case "domain":
            domain = live_domain(conn, payload.scope_id)
            return _with_roles(base, domain=domain, roles=roles_on(conn, user["id"], "domain", domain))
        case "system":
            return _with_roles(base, system=True, roles=roles_on(conn, user["id"], "system", None))
        case "trust":
            return _by_trust(conn, base, payload.scope_id, now)
        case "application_credential":
            return _by_credential(conn, base, payload.scope_id, now)
        case "oauth1":
            return _by_access(conn, base, payload.scope_id, now)
    return base


def live_user(conn: sa.Connection, id: str) -> tuple[Row, Row]:
    """An enabled user and its enabled domain. Raises Unauthenticated."""
    row = statements.one(conn, t.users, id=id)
    if row is None or not row["enabled"]:
        raise Unauthenticated
    return row, live_domain(conn, row["domain_id"])


def live_domain(conn: sa.Connection, id: str) -> Row:
    """An enabled domain. Raises Unauthenticated."""
    row = _project(conn, id)
    if row is None or not row["enabled"] or not row["is_domain"]:
        raise Unauthenticated
    return row


def live_project(conn: sa.Connection, id: str) -> tuple[Row, Row]:
    """An enabled project and its enabled domain (itself, if it acts as one). Raises Unauthenticated."""
    row = _project(conn, id)
    if row is None or not row["enabled"]:
        raise Unauthenticated
    return row, row if row["is_domain"] else live_domain(conn, row["domain_id"])


def roles_on(conn: sa.Connection, user_id: str, kind: str, target: Row | None) -> tuple[tuple[str, str], ...]:
    """The roles of a user on a project, a domain or (None) the system, with those that they imply."""
    return with_implied(conn, _assigned(conn, user_id, kind, target))


def _assigned(conn: sa.Connection, user_id: str, kind: str, target: Row | None) -> Sequence[str]:
    above = ancestors(conn, target) if kind == "project" and target else []
    return conn.scalars(_ASSIGNED, {"user": user_id, "kind": kind, "target": target["id"] if target else "all",
                                    "above": above}).all()


def ancestors(conn: sa.Connection, project: Row) -> list[str]:
    """The projects above, nearest first, then the domain."""
    above: list[str] = []
    parent = project["parent_id"]
    while parent and parent not in above and len(above) < MAX_DEPTH:
        above.append(parent)
        row = _project(conn, parent)
        parent = row["parent_id"] if row else None
    if project["domain_id"] and project["domain_id"] not in above:
        above.append(project["domain_id"])
    return above


def with_implied(conn: sa.Connection, role_ids: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Those roles and what they imply, as (id, name). Roles of one domain show only in what they imply."""
    wanted = _effective(conn, role_ids)
    rows = statements.find(conn, t.roles, ("name",), id=wanted, domain_id="") if wanted else ()
    return tuple((r["id"], r["name"]) for r in rows)


def _effective(conn: sa.Connection, role_ids: Iterable[str]) -> set[str]:
    if not (wanted := set(role_ids)):
        return wanted
    implied: dict[str, set[str]] = {}
    for row in statements.find(conn, t.implied_roles):
        implied.setdefault(row["prior_id"], set()).add(row["implied_id"])
    todo = list(wanted)
    while todo:
        for other in implied.get(todo.pop(), set()) - wanted:
            wanted.add(other)
            todo.append(other)
    return wanted


def _project(conn: sa.Connection, id: str) -> Row | None:
    return statements.one(conn, t.projects, id=id)


def _with_roles(base: Facts, **more: Any) -> Facts:
    if not more["roles"]:
        raise Unauthenticated
    return msgspec.structs.replace(base, **more)


def _on_project(conn: sa.Connection, base: Facts, project_id: str) -> Facts:
    project, domain = live_project(conn, project_id)
    roles = roles_on(conn, base.user["id"], "project", project)
    return _with_roles(base, project=project, project_domain=domain, roles=roles)


def _limited(facts: Facts, allowed: set[str], **more: Any) -> Facts:
    return _with_roles(facts, roles=tuple(r for r in facts.roles if r[0] in allowed), **more)


def _by_trust(conn: sa.Connection, base: Facts, trust_id: str, now: float) -> Facts:
    row = conn.execute(sa.select(t.trusts).where(t.trusts.c.id == trust_id)).mappings().first()
    if row is None or row["trustee_user_id"] != base.user["id"] or (row["expires_at"] or now + 1) <= now:
        raise Unauthenticated
    trustor, trustor_domain = live_user(conn, row["trustor_user_id"])
    acting = Facts(user=trustor, user_domain=trustor_domain)
    if row["project_id"]:
        project, domain = live_project(conn, row["project_id"])
        lent = _effective(conn, row["role_ids"])
        if not lent <= _effective(conn, _assigned(conn, trustor["id"], "project", project)):
            raise TrustBroken
        acting = _with_roles(acting, project=project, project_domain=domain, roles=with_implied(conn, lent))
    who = {} if row["impersonation"] else {"user": base.user, "user_domain": base.user_domain}
    return msgspec.structs.replace(acting, trust=dict(row), **who)


def _by_credential(conn: sa.Connection, base: Facts, credential_id: str, now: float) -> Facts:
    c = t.application_credentials
    row = conn.execute(sa.select(c).where(c.c.id == credential_id)).mappings().first()
    if row is None or row["user_id"] != base.user["id"] or (row["expires_at"] or now + 1) <= now:
        raise Unauthenticated
    facts = _on_project(conn, base, row["project_id"])
    rules = None if row["access_rule_ids"] is None else access_rules(conn, row["access_rule_ids"])
    allowed = {r[0] for r in with_implied(conn, row["role_ids"])}
    return _limited(facts, allowed, credential=dict(row), access_rules=rules)


def access_rules(conn: sa.Connection, ids: list[str]) -> tuple[Row, ...]:
    """The rules of those ids, in their order."""
    found = {row["id"]: row for row in statements.find(conn, t.access_rules, id=set(ids))}
    return tuple(found[id] for id in ids if id in found)


def _by_access(conn: sa.Connection, base: Facts, access_id: str, now: float) -> Facts:
    d = t.documents.c
    row: Row | None = conn.scalar(sa.select(d.extra).where(d.kind == "oauth_access", d.id == access_id))
    if row is None or row["user_id"] != base.user["id"] or row["expires_at"] <= now:
        raise Unauthenticated
    facts = _on_project(conn, base, row["project_id"])
    return _limited(facts, {r[0] for r in with_implied(conn, row["role_ids"])}, access=row)
