"""Tokens: made from proof, checked against the rows as they are now, remembered until any of them changes."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.context import Context
from nacre.base.errors import Forbidden, Unauthenticated
from nacre.identity import catalog, ended
from nacre.identity import tables as t
from nacre.identity.derive import Facts, Row, TrustBroken, derive
from nacre.identity.keys.ring import Ring, number_of
from nacre.identity.passwords import Passwords
from nacre.identity.store import Store
from nacre.identity.tokens import Payload, seal, unseal

#: How many tokens are remembered at most.
CACHE_SIZE = 20_000


class Known(msgspec.Struct, frozen=True):
    """A token that was found good."""

    payload: Payload
    facts: Facts
    context: Context
    with_catalog: bytes  # the answer to GET /v3/auth/tokens, as JSON
    without_catalog: bytes


class IdentityService:
    """Issues, checks and revokes tokens. lifetime: of a token, in seconds."""

    def __init__(self, store: Store, keys: Ring, passwords: Passwords, lifetime: float = 14400.0):
        self.store, self.keys, self.passwords, self.lifetime = store, keys, passwords, lifetime
        self._known: dict[str, Known] = {}
        self._generation = -1

    async def authenticate(self, token: str) -> Context:
        """The caller behind a token, with implied roles. Raises Unauthenticated.

        A token limited by access rules is refused: no service here compares a request with them.
        """
        known = await self.inspect(token)
        if known.facts.access_rules is not None:
            raise Unauthenticated
        return known.context

    async def inspect(self, token: str) -> Known:
        """All that is known of a valid token. Raises Unauthenticated."""
        await self.store.refresh()
        generation = self.store.generation
        if self._generation != generation:
            self._known.clear()
            self._generation = generation
        known = self._known.get(token)
        if known is not None:
            if known.payload.expires_at > self.store.now():
                return known
            del self._known[token]
            raise Unauthenticated
        await self.keys.meet(number_of(token))
        payload = unseal(token, self.keys.known)
        known = await self._know(payload)
        if self.store.generation == generation:  # else a write came between: what was read may be old
            if len(self._known) >= CACHE_SIZE:
                self._known.clear()
            self._known[token] = known
        return known

    async def issue(self, payload: Payload) -> tuple[str, Known]:
        """A new token and what it says. Raises Unauthenticated for a scope that the user has no role on, Forbidden for
        a trust whose trustor lacks a role of it."""
        try:
            known = await self._know(payload, fresh=True)
        except TrustBroken:
            raise Forbidden("Trustee has no delegated roles.") from None
        if known.facts.trust and known.facts.trust["remaining_uses"] is not None:
            await self.store.write(lambda conn: _use(conn, payload.scope_id))
        return seal(known.payload, await self.keys.primary()), known

    async def revoke(self, token: str) -> None:
        """Makes a valid token void at once. Raises Unauthenticated."""
        known = await self.inspect(token)
        payload = known.payload
        owner = ended.of_loan(payload.scope_id) if known.facts.delegated else ended.of_user(payload.user_id)
        lives = max(self.lifetime, payload.expires_at - self.store.now())
        await self.store.write(lambda conn: ended.end_token(conn, payload.audit_id, owner, lives))

    async def project_exists(self, project_id: str) -> bool:
        """Whether a project of that id exists, enabled or not."""
        query = sa.select(t.projects.c.id).where(t.projects.c.id == project_id)
        return await self.store.read(lambda conn: conn.execute(query).first() is not None)

    async def _know(self, payload: Payload, *, fresh: bool = False) -> Known:
        """fresh: the token is being issued."""
        now = self.store.now()

        def unit(conn: sa.Connection) -> tuple[Payload, Facts, list[dict[str, Any]], list[dict[str, str]]]:
            known = msgspec.structs.replace(payload, revision=ended.revision(conn)) if fresh else payload
            facts = derive(conn, known, now)
            known = msgspec.structs.replace(known, expires_at=min(known.expires_at, facts.ends))
            project_id = facts.project["id"] if facts.project else None
            endpoints = catalog.rows(conn, project_id) if payload.scope != "unscoped" else []
            return known, facts, endpoints, catalog.service_providers(conn)
        payload, facts, endpoints, providers = await self.store.read(unit)
        document = shown(payload, facts)
        if providers:
            document["service_providers"] = providers
        project_id = facts.project["id"] if facts.project else None
        full = document
        if payload.scope != "unscoped":
            full = {**document, "catalog": catalog.catalog(endpoints, facts.user["id"], project_id)}
        encode = msgspec.json.encode
        return Known(payload, facts, context(payload, facts), encode({"token": full}), encode({"token": document}))


def context(payload: Payload, facts: Facts) -> Context:
    """The caller as services see it."""
    project, domain = facts.project, facts.domain
    return Context(
        request_id="req-none", user_id=facts.user["id"], user_name=facts.user["name"],
        user_domain_id=facts.user["domain_id"], project_id=project["id"] if project else None,
        project_name=project["name"] if project else None,
        project_domain_id=facts.project_domain["id"] if facts.project_domain else None,
        domain_id=domain["id"] if domain else None, system=facts.system,
        roles=tuple(name for _, name in facts.roles), audit_id=payload.audit_id)


def _use(conn: sa.Connection, trust_id: str) -> None:
    c = t.trusts.c
    taken = conn.execute(sa.update(t.trusts).where(c.id == trust_id, c.remaining_uses > 0).values(
        remaining_uses=c.remaining_uses - 1)).rowcount
    if not taken:
        raise Unauthenticated


def when(seconds: float | None) -> str | None:
    """`2026-01-01T00:00:00.000000Z`, as Keystone writes times."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _brief(row: Row) -> dict[str, str]:
    return {"id": row["id"], "name": row["name"]}


def shown(payload: Payload, facts: Facts) -> dict[str, Any]:
    """The body of a token, without its catalog."""
    body: dict[str, Any] = {
        "methods": list(payload.methods),
        "user": {**_brief(facts.user), "domain": _brief(facts.user_domain), "password_expires_at": None},
        "audit_ids": list(payload.audit_ids),
        "expires_at": when(payload.expires_at), "issued_at": when(payload.issued_at)}
    if facts.system:
        body["system"] = {"all": True}
    if facts.domain:
        body["domain"] = _brief(facts.domain)
    if facts.project and facts.project_domain:
        body["project"] = {**_brief(facts.project), "domain": _brief(facts.project_domain)}
        body["is_domain"] = bool(facts.project["is_domain"])
    if facts.roles:
        body["roles"] = [{"id": id, "name": name} for id, name in facts.roles]
    if facts.trust:
        body["OS-TRUST:trust"] = {
            "id": facts.trust["id"], "impersonation": bool(facts.trust["impersonation"]),
            "trustor_user": {"id": facts.trust["trustor_user_id"]},
            "trustee_user": {"id": facts.trust["trustee_user_id"]}}
    if facts.access:
        body["OS-OAUTH1"] = {"access_token_id": facts.access["id"], "consumer_id": facts.access["consumer_id"]}
    if facts.credential:
        credential: dict[str, Any] = {**_brief(facts.credential), "restricted": not facts.credential["unrestricted"]}
        if facts.access_rules:
            credential["access_rules"] = [{k: r[k] for k in ("id", "service", "path", "method")}
                                          for r in facts.access_rules]
        body["application_credential"] = credential
    return body
