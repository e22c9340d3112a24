"""From proof (a password, a token, an application credential) and a wish (the scope) to a new token's payload."""

from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.errors import Forbidden, NotFound, Unauthenticated
from nacre.identity import tables as t
from nacre.identity.derive import live_project, live_user
from nacre.identity.service import IdentityService, Known
from nacre.identity.tokens import Payload, new_audit_id

Json = dict[str, Any]


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Who it is, and what of an earlier token must be kept."""

    user_id: str
    methods: tuple[str, ...]
    expires_at: float | None = None
    chain: tuple[str, ...] = ()
    scope: tuple[str, str] | None = None  # the only scope that this proof is good for
    of_system: bool = False  # by a token for the system


async def login(identity: IdentityService, auth: Json, signed: Json | None = None) -> tuple[str, Known]:
    """A token for the body of POST /v3/auth/tokens. Raises Unauthenticated; says no more than that.

    signed: the OAuth access token that the request was found to be signed with.
    """
    proof = await _prove(identity, {**auth["identity"], "oauth1": signed})
    await _check_factors(identity, proof)
    now = identity.store.now()
    wish = auth.get("scope")
    if proof.of_system and isinstance(wish, dict) and wish.keys() & {"project", "domain"}:
        raise _refused("Using a system-scoped token to create a project-scoped or domain-scoped token is not allowed.")
    scope = await _scope(identity, wish, proof)
    payload = Payload(
        user_id=proof.user_id, methods=proof.methods, issued_at=now, scope=scope[0], scope_id=scope[1],
        expires_at=proof.expires_at if proof.expires_at is not None else now + identity.lifetime,
        audit_ids=(new_audit_id(), *proof.chain))
    if wish is None and proof.scope is None and not proof.of_system:
        default = await identity.store.read(lambda conn: conn.scalar(
            sa.select(t.users.c.default_project_id).where(t.users.c.id == proof.user_id)))
        if default:
            try:
                return await identity.issue(msgspec.structs.replace(payload, scope="project", scope_id=default))
            except Unauthenticated:
                pass  # a default that is no use any more: the token stays unscoped
    return await identity.issue(payload)


async def _prove(identity: IdentityService, claim: Json) -> Proof:
    proofs = []
    for method in claim["methods"]:
        if method not in PROVERS or claim.get(method) is None:
            raise Unauthenticated
        proofs.append(await PROVERS[method](identity, claim[method]))
    if not proofs or len({p.user_id for p in proofs}) != 1:
        raise Unauthenticated
    ends = [p.expires_at for p in proofs if p.expires_at is not None]
    return Proof(
        user_id=proofs[0].user_id, methods=tuple(dict.fromkeys(m for p in proofs for m in p.methods)),
        expires_at=min(ends) if ends else None, chain=next((p.chain for p in proofs if p.chain), ()),
        scope=next((p.scope for p in proofs if p.scope), None), of_system=any(p.of_system for p in proofs))


async def _password(identity: IdentityService, claim: Json) -> Proof:
    wanted = claim.get("user") or {}
    row = await identity.store.read(lambda conn: _user(conn, wanted))
    good = await identity.passwords.matches(row["password_hash"] if row else None, wanted.get("password") or "")
    if not good or row is None:
        raise Unauthenticated
    return Proof(user_id=row["id"], methods=("password",))


async def _token(identity: IdentityService, claim: Json) -> Proof:
    """Keystone's rules: what was had by less than its user's own proof is exchanged for nothing, not even its like."""
    payload = (await identity.inspect(claim["id"])).payload
    if payload.scope in _LENT:
        raise _refused(f"Using {_LENT[payload.scope]}-scoped token to create another token. "
                       f"Create a new {_LENT[payload.scope]}-scoped token instead")
    if not _OWN.issuperset(payload.methods):
        raise _refused("Using a delegated token to create another token is not allowed.")
    methods = tuple(dict.fromkeys((*payload.methods, "token")))
    return Proof(user_id=payload.user_id, methods=methods, expires_at=payload.expires_at,
                 chain=(payload.audit_ids[-1],), of_system=payload.scope == "system")


def _refused(action: str) -> Forbidden:
    return Forbidden(f"You are not authorized to perform the requested action: {action}.")


async def _credential(identity: IdentityService, claim: Json) -> Proof:
    """As Keystone's answers: an id that names none is told so. A name that does is not: it may be guessed."""
    row = await identity.store.read(lambda conn: _find_credential(conn, claim))
    if row is None and "id" in claim:
        raise NotFound(f"Could not find Application Credential: {claim['id']}.")
    good = await identity.passwords.matches(row["secret_hash"] if row else None, claim.get("secret") or "")
    if not good or row is None:
        raise Unauthenticated
    await identity.store.read(lambda conn: _usable(conn, row, identity.store.now()))
    return Proof(user_id=row["user_id"], methods=("application_credential",), expires_at=None if (
        row["expires_at"] is None) else min(row["expires_at"], identity.store.now() + identity.lifetime),
        scope=("application_credential", row["id"]))


async def _oauth(identity: IdentityService, claim: Json) -> Proof:
    return Proof(user_id=claim["user_id"], methods=("oauth1",), scope=("oauth1", claim["id"]),
                 expires_at=min(claim["expires_at"], identity.store.now() + identity.lifetime))


#: How a token is worded that lends less than its user has; ways of proof by which one is oneself.
_LENT = {"trust": "trust", "oauth1": "OAuth"}
_OWN = frozenset({"password", "token"})
PROVERS = {"password": _password, "token": _token, "application_credential": _credential, "oauth1": _oauth}


async def _check_factors(identity: IdentityService, proof: Proof) -> None:
    """Raises Unauthenticated if the user has rules of which ways of proof must come together, and meets none of them.
    As in Keystone, ways that are not known here do not count, and rules of such alone ask for nothing: nobody is locked
    out by a way that the cloud does not offer."""
    options = (await identity.store.read(lambda conn: conn.scalar(
        sa.select(t.users.c.extra).where(t.users.c.id == proof.user_id))) or {}).get("options", {})
    if not options.get("multi_factor_auth_enabled", True):
        return
    rules = [known for rule in options.get("multi_factor_auth_rules", ()) if (known := PROVERS.keys() & set(rule))]
    if rules and not any(known <= set(proof.methods) for known in rules):
        raise Unauthenticated


def _user(conn: sa.Connection, wanted: Json) -> Any:
    query = sa.select(t.users)
    if "id" in wanted:
        query = query.where(t.users.c.id == wanted["id"])
    else:
        domain_id = _domain_id(conn, wanted.get("domain") or {"id": "default"})
        query = query.where(t.users.c.name == wanted.get("name"), t.users.c.domain_id == domain_id)
    return conn.execute(query).mappings().first()


def _find_credential(conn: sa.Connection, claim: Json) -> Any:
    c = t.application_credentials
    if "id" in claim:
        return conn.execute(sa.select(c).where(c.c.id == claim["id"])).mappings().first()
    user = _user(conn, claim.get("user") or {})
    if user is None:
        return None
    return conn.execute(sa.select(c).where(c.c.user_id == user["id"], c.c.name == claim.get("name"))).mappings().first()


def _usable(conn: sa.Connection, credential: Any, now: float) -> None:
    """Raises Unauthenticated where the credential or its user is over, NotFound where its project is disabled."""
    if (credential["expires_at"] or now + 1) <= now:
        raise Unauthenticated
    live_user(conn, credential["user_id"])
    try:
        live_project(conn, credential["project_id"])
    except Unauthenticated:
        raise NotFound(f"Could not find project: {credential['project_id']}. It, or its domain, is disabled.") from None


def _domain_id(conn: sa.Connection, wanted: Json) -> str:
    if "id" in wanted:
        return str(wanted["id"])
    p = t.projects.c
    return conn.scalar(sa.select(p.id).where(p.is_domain, p.name == wanted.get("name"))) or ""


async def _scope(identity: IdentityService, wish: Any, proof: Proof) -> tuple[str, str]:
    """The scope's kind and id. Raises Unauthenticated for one that does not exist or that the proof forbids."""
    if proof.scope is not None:
        if wish not in (None, {}):
            raise Unauthenticated
        return proof.scope
    if wish is None or wish == "unscoped" or "unscoped" in wish:
        return "unscoped", ""
    if "system" in wish:
        return "system", ""
    if "OS-TRUST:trust" in wish:
        return "trust", str(wish["OS-TRUST:trust"].get("id"))
    if "domain" in wish:
        return "domain", await identity.store.read(lambda conn: _domain_id(conn, wish["domain"]))
    if "project" in wish:
        project = wish["project"]
        if "id" in project:
            return "project", str(project["id"])

        def unit(conn: sa.Connection) -> str | None:
            p, domain_id = t.projects.c, _domain_id(conn, project.get("domain") or {"id": "default"})
            return conn.scalar(sa.select(p.id).where(p.name == project["name"], p.domain_id == domain_id))
        return "project", await identity.store.read(unit) or ""
    raise Unauthenticated
