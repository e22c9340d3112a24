"""/v3/OS-OAUTH1: a consumer gets some of a user's roles, with the user's consent, and logs in by signing."""

import hashlib
import secrets
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from nacre.base.errors import BadRequest, Conflict, Forbidden, NotFound, Unauthenticated
from nacre.base.serving.gate import PUBLIC
from nacre.base.web import Reply, Request, Route
from nacre.identity import derive, ended
from nacre.identity import tables as t
from nacre.identity.api.answers import collection, many, one, url
from nacre.identity.api.extensions.documents import Document, fetch, held
from nacre.identity.api.extensions.oauth1_signature import is_signed, parameters
from nacre.identity.api.providers import Providers, asking
from nacre.identity.api.validation import TEXT, schema, wrapped
from nacre.identity.records import PROJECT, ROLE, Page, find, get, kept, listing, missing
from nacre.identity.service import when

REQUEST_SECONDS, ACCESS_SECONDS, SKEW_SECONDS = 8 * 3600, 24 * 3600, 300
CONSUMER = wrapped("consumer", {"description": TEXT, "secret": {"not": {}}})
ROLE_REF = {"type": "object", "properties": {"id": {"type": "string"}, "name": {"type": "string"}},
            "anyOf": [{"required": ["id"]}, {"required": ["name"]}]}
ROLES = schema({"type": "object", "required": ["roles"], "properties": {
    "roles": {"type": "array", "items": ROLE_REF, "minItems": 1, "maxItems": 200}}})
FORM = "application/x-www-form-urlencoded"


class Consumers:
    """Handlers of consumers. A consumer's secret is shown once, at creation."""

    def __init__(self, providers: Providers):
        self._providers, self._store = providers, providers.store

    async def index(self, request: Request) -> Any:
        found = await self._store.read(lambda conn: held(conn, "consumer"))
        return collection(request, "consumers", [_consumer(request, c) for c in found])

    async def create(self, request: Request) -> Reply:
        secret, values = uuid4().hex, {"description": None, **request.body, "id": uuid4().hex}
        await self._store.write(lambda conn: _put(conn, "consumer", {
            **values, "sealed": _seal(self._providers, conn, secret)}))
        return Reply({"consumer": {**_consumer(request, values), "secret": secret}}, 201)

    async def show(self, request: Request) -> Any:
        return {"consumer": _consumer(request, await self._store.read(lambda conn: _need(conn, "consumer", request)))}

    async def update(self, request: Request) -> Any:

        def unit(conn: sa.Connection) -> Document:
            row = _need(conn, "consumer", request)
            return _put(conn, "consumer", {**row, **request.body, "id": row["id"], "sealed": row["sealed"]})
        return {"consumer": _consumer(request, await self._store.write(unit))}

    async def delete(self, request: Request) -> Reply:

        def unit(conn: sa.Connection) -> None:
            id = _need(conn, "consumer", request)["id"]
            _drop(conn, "consumer", id)
            for kind in ("oauth_request", "oauth_access"):
                for each in held(conn, kind):
                    if each["consumer_id"] == id:
                        _drop(conn, kind, each["id"])
                        if kind == "oauth_access":
                            ended.end_loan(conn, each["id"], each["user_id"])
        await self._store.write(unit)
        return Reply(None, 204)


class Dance:
    """Request token, consent, access token, login."""

    def __init__(self, providers: Providers):
        self._providers, self._store = providers, providers.store

    async def request_token(self, request: Request) -> Reply:
        given = parameters(request.headers.get("authorization"))
        project_id = request.headers.get("requested-project-id")
        if not given.get("oauth_consumer_key") or not project_id:
            raise BadRequest("Expecting to find oauth_consumer_key and Requested-Project-Id in the request.",
                             field="Requested-Project-Id")
        await self._store.read(lambda conn: get(conn, PROJECT, project_id))
        consumer = await self._signed(request, given, None)
        secret, now = uuid4().hex, self._store.now()
        row = {"id": uuid4().hex, "consumer_id": consumer["id"], "project_id": project_id,
               "expires_at": now + REQUEST_SECONDS}
        await self._store.write(lambda conn: _put(conn, "oauth_request", {**row, "sealed": _seal(
            self._providers, conn, secret)}))
        return _form(row, secret)

    async def authorize(self, request: Request) -> Any:
        facts = (await self._providers.identity.inspect(request.token or "")).facts
        if facts.delegated:
            raise Forbidden("You are not authorized to perform the requested action: a delegated token cannot delegate"
                            " again.")
        user_id, now, verifier = facts.user["id"], self._store.now(), secrets.token_hex(8)

        def unit(conn: sa.Connection) -> None:
            row = _need(conn, "oauth_request", request)
            if row["expires_at"] <= now:
                raise Unauthenticated
            roles = dict(derive.roles_on(conn, user_id, "project", get(conn, PROJECT, row["project_id"])))
            names = {name: id for id, name in roles.items()}
            wanted = [r.get("id") or names.get(r.get("name", ""), "") for r in request.body["roles"]]
            if not set(wanted) <= set(roles):
                raise Unauthenticated  # one can give only what one has
            _put(conn, "oauth_request", {**row, "user_id": user_id, "role_ids": wanted, "verifier": _digest(verifier)})
        await self._store.write(unit)
        return {"token": {"oauth_verifier": verifier}}

    async def access_token(self, request: Request) -> Reply:
        given = parameters(request.headers.get("authorization"))
        for name in ("oauth_consumer_key", "oauth_token", "oauth_verifier"):
            if not given.get(name):
                raise BadRequest(f"Expecting to find {name} in the request.", field=name)
        row = await self._store.read(lambda conn: fetch(conn, "oauth_request", given["oauth_token"]))
        if row is None or row["expires_at"] <= self._store.now():
            raise Unauthenticated
        await self._signed(request, given, row)
        if not row.get("verifier") or not secrets.compare_digest(row["verifier"], _digest(given["oauth_verifier"])):
            raise Unauthenticated
        secret = uuid4().hex
        access = {"id": uuid4().hex, "consumer_id": row["consumer_id"], "project_id": row["project_id"],
                  "user_id": row["user_id"], "role_ids": row["role_ids"],
                  "expires_at": self._store.now() + ACCESS_SECONDS}

        def unit(conn: sa.Connection) -> None:
            if not _drop(conn, "oauth_request", row["id"]):
                raise Unauthenticated  # somebody else was given the access token
            _put(conn, "oauth_access", {**access, "sealed": _seal(self._providers, conn, secret)})
        await self._store.write(unit)
        return _form(access, secret)

    async def login(self, request: Request) -> Document | None:
        """The access token that a login is signed with; None if it does not say that it is."""
        if "oauth1" not in request.body["identity"]["methods"]:
            return None
        given = parameters(request.headers.get("authorization"))
        row = await self._store.read(lambda conn: fetch(conn, "oauth_access", given.get("oauth_token", "")))
        if row is None:
            raise Unauthenticated
        await self._signed(request, given, row)
        return row

    async def _signed(self, request: Request, given: dict[str, str], token: Document | None) -> Document:
        """The consumer that signed the request, with the token's secret too if there is one. Raises Unauthenticated."""
        consumer_id = given.get("oauth_consumer_key", "")

        def unit(conn: sa.Connection) -> tuple[Document | None, tuple[str, str]]:
            found = fetch(conn, "consumer", consumer_id)
            return found, (_unseal(self._providers, conn, found), _unseal(self._providers, conn, token))
        consumer, keys = await self._store.read(unit)
        if consumer is None or (token is not None and token["consumer_id"] != consumer_id):
            raise Unauthenticated
        stamp, now = given.get("oauth_timestamp", ""), self._store.now()
        if not stamp.isascii() or not stamp.isdigit() or abs(float(stamp[:15]) - now) > SKEW_SECONDS:
            raise Unauthenticated
        if not is_signed(request.method, request.base_url + request.path, given, request.query, keys):
            raise Unauthenticated
        nonce = hashlib.sha256(f"{consumer_id} {stamp} {given.get('oauth_nonce')}".encode()).hexdigest()
        try:
            await self._store.write(lambda conn: _once(conn, nonce, now))
        except Conflict:
            raise Unauthenticated from None  # heard before: a replay
        return consumer


class AccessTokens:
    """Handlers of /v3/users/{user_id}/OS-OAUTH1/access_tokens."""

    def __init__(self, providers: Providers):
        self._providers, self._store = providers, providers.store

    async def index(self, request: Request) -> Any:
        found = await self._store.read(lambda conn: held(conn, "oauth_access"))
        own = [a for a in found if a["user_id"] == request.params["user_id"]]
        return collection(request, "access_tokens", [_access(request, a) for a in own])

    async def show(self, request: Request) -> Any:
        return {"access_token": _access(request, await self._row(request))}

    async def delete(self, request: Request) -> Reply:
        row = await self._row(request)

        def unit(conn: sa.Connection) -> None:
            if _drop(conn, "oauth_access", row["id"]):
                ended.end_loan(conn, row["id"], row["user_id"])
        await self._store.write(unit)
        return Reply(None, 204)

    async def roles(self, request: Request) -> Any:
        row = await self._row(request)
        found = await self._store.read(lambda conn: listing(conn, ROLE, Page(), t.roles.c.id.in_(row["role_ids"])))
        return many(request, ROLE, found)

    async def role(self, request: Request) -> Any:
        row, id = await self._row(request), request.params["role_id"]
        found = await self._store.read(lambda conn: find(conn, ROLE, id))
        if found is None or id not in row["role_ids"]:
            raise missing(ROLE, id)
        return one(request, ROLE, found)

    async def _row(self, request: Request) -> Document:
        row = await self._store.read(lambda conn: _need(conn, "oauth_access", request))
        if row["user_id"] != request.params["user_id"]:
            raise NotFound(f"Could not find access token: {row['id']}.")
        return row


def _digest(verifier: str) -> str:
    """What is kept of a verifier: random enough that no salt is needed."""
    return hashlib.sha256(verifier.encode()).hexdigest()


def _seal(providers: Providers, conn: sa.Connection, secret: str) -> str:
    return providers.vault.unlock(conn).encrypt(secret)


def _unseal(providers: Providers, conn: sa.Connection, row: Document | None) -> str:
    return providers.vault.unlock(conn).decrypt(row["sealed"]) if row else ""


def _put(conn: sa.Connection, kind: str, values: Document) -> Document:
    _drop(conn, kind, values["id"])
    conn.execute(sa.insert(t.documents).values(kind=kind, id=values["id"], extra=kept(values)))
    return values


def _drop(conn: sa.Connection, kind: str, id: str) -> bool:
    d = t.documents
    return bool(conn.execute(sa.delete(d).where(d.c.kind == kind, d.c.id == id)).rowcount)


def _once(conn: sa.Connection, nonce: str, now: float) -> None:
    """Keep a nonce for as long as its timestamp is good. A second time it is in the way of itself."""
    for old in held(conn, "oauth_nonce"):
        if old["until"] < now:
            _drop(conn, "oauth_nonce", old["id"])
    row = {"id": nonce, "until": now + 2 * SKEW_SECONDS}
    conn.execute(sa.insert(t.documents).values(kind="oauth_nonce", id=nonce, extra=row))


def _need(conn: sa.Connection, kind: str, request: Request) -> Document:
    found = fetch(conn, kind, request.params["id"])
    if found is None:
        raise NotFound(f"Could not find {kind.replace('oauth_', '')}: {request.params['id']}.")
    return found


def _form(row: Document, secret: str) -> Reply:
    text = f"oauth_token={row['id']}&oauth_token_secret={secret}&oauth_expires_at={when(row['expires_at'])}"
    return Reply(text.encode(), 201, content_type=FORM)


def _consumer(request: Request, row: Document) -> Document:
    here = f"{url(request)}/OS-OAUTH1/consumers/{row['id']}"
    return {**{k: v for k, v in row.items() if k != "sealed"}, "links": {"self": here}}


def _access(request: Request, row: Document) -> Document:
    here = f"{url(request)}/users/{row['user_id']}/OS-OAUTH1/access_tokens/{row['id']}"
    return {"id": row["id"], "consumer_id": row["consumer_id"], "project_id": row["project_id"],
            "authorizing_user_id": row["user_id"], "expires_at": when(row["expires_at"]),
            "links": {"self": here, "roles": here + "/roles"}}


def routes(providers: Providers) -> list[Route]:
    consumers, dance, tokens = Consumers(providers), Dance(providers), AccessTokens(providers)
    path, mine = "/v3/OS-OAUTH1/consumers", "/v3/users/{user_id}/OS-OAUTH1/access_tokens"
    return [
        Route("GET", path, consumers.index, asking("list_consumers")),
        Route("POST", path, consumers.create, asking("create_consumer"), body=CONSUMER),
        Route("GET", path + "/{id}", consumers.show, asking("get_consumer")),
        Route("PATCH", path + "/{id}", consumers.update, asking("update_consumer"), body=CONSUMER),
        Route("DELETE", path + "/{id}", consumers.delete, asking("delete_consumer")),
        # a signature is the proof
        Route("POST", "/v3/OS-OAUTH1/request_token", dance.request_token, PUBLIC),
        Route("POST", "/v3/OS-OAUTH1/access_token", dance.access_token, PUBLIC),
        Route("PUT", "/v3/OS-OAUTH1/authorize/{id}", dance.authorize, asking("authorize_request_token"), body=ROLES),
        Route("GET", mine, tokens.index, asking("list_access_tokens")),
        Route("GET", mine + "/{id}", tokens.show, asking("get_access_token")),
        Route("DELETE", mine + "/{id}", tokens.delete, asking("delete_access_token")),
        Route("GET", mine + "/{id}/roles", tokens.roles, asking("list_access_token_roles")),
        Route("GET", mine + "/{id}/roles/{role_id}", tokens.role, asking("get_access_token_role")),
    ]
