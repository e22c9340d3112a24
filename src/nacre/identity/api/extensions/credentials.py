"""/v3/credentials, and the EC2 style key pairs among them. Blobs are kept encrypted.

What stands for its user wholly must not be had with what stands for it in part: tokens of trusts, application
credentials and OAuth see none of this. Nobody logs in by an EC2 credential here; if ever, then one's project is its
user's, or was given by the administrator, and it carries no rights but the user's own.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec
import sqlalchemy as sa
import structlog

from nacre.base.errors import BadRequest, Forbidden
from nacre.base.serving.gate import Subject
from nacre.base.web import Reply, Request, Route
from nacre.identity import tables as t
from nacre.identity.api.answers import collection, page_of, url
from nacre.identity.api.providers import Providers, asking, stated
from nacre.identity.api.validation import ANY_ID, BOUNDS, wrapped
from nacre.identity.derive import roles_on
from nacre.identity.keys.vault import Unreadable
from nacre.identity.records import PROJECT, USER, Kind, Page, delete, find, get, given, insert, listing, missing, update

log = structlog.get_logger()

CREDENTIAL = Kind("credential", "credentials", t.credentials, frozenset({"secret"}))
PROPERTIES = {
    "blob": {"type": "string", "minLength": 1, "maxLength": BOUNDS.text}, "user_id": ANY_ID,
    "project_id": {**ANY_ID, "type": ["string", "null"]}, "type": {"type": "string", "minLength": 1, "maxLength": 255}}
CREATE = wrapped("credential", PROPERTIES, ["blob", "type", "user_id"])
UPDATE = wrapped("credential", PROPERTIES, minProperties=1)
#: What of an EC2 blob says whose rights it carries: set by nobody, changed by nobody.
DELEGATION = ("trust_id", "app_cred_id", "access_token_id", "access_id")


class Credentials:
    """Handlers of /v3/credentials."""

    def __init__(self, providers: Providers):
        self._providers, self._store = providers, providers.store

    async def index(self, request: Request) -> Any:
        page = page_of(request, "user_id", "type")
        if (await self._providers.identity.inspect(request.token or "")).facts.delegated:
            return collection(request, "credentials", [], page)
        # Who may not see anybody's reads its own alone, and nothing is opened that is not shown.
        own: tuple[Any, ...] = () if request.allows("identity:get_credential", {}) else (
            t.credentials.c.user_id == request.context.user_id,)
        rows = await self._store.read(lambda conn: listing(conn, CREDENTIAL, page, *own))
        seen = [r for r in rows if request.allows("identity:get_credential", _target(r))]
        opened = await self._store.read(lambda conn: _all_opened(self._providers, conn, seen))
        return collection(request, "credentials", [self._shown(request, r) for r in opened], page)

    async def create(self, request: Request) -> Reply:
        body = given(CREDENTIAL, request.body)
        await refuse_delegated(self._providers, request)
        self._measure(body)
        id, ec2 = uuid4().hex, body["type"].lower() == "ec2"
        if ec2:
            blob = _ec2_blob(body["blob"])
            _keep_delegation({}, blob)
            id = ec2_id(blob["access"])
            if not body.get("project_id"):
                raise BadRequest("Expecting to find project_id in credential: an ec2 credential is for a project.",
                                 field="project_id")

        def unit(conn: sa.Connection) -> Any:
            _require(conn, body)
            self._providers.limits.room(conn, "credentials", body["user_id"])
            if ec2:
                check_project(request, conn, body)
            row = insert(conn, CREDENTIAL, {"project_id": None, **self._sealed(conn, body), "id": id})
            return _opened(self._providers, conn, row)
        return Reply({"credential": self._shown(request, await self._store.write(unit))}, 201)

    async def show(self, request: Request) -> Any:
        return {"credential": self._shown(request, await self._row(request))}

    async def update(self, request: Request) -> Any:
        row = await self._row(request)
        changes = given(CREDENTIAL, request.body)
        self._measure(changes)
        for name in [name for name in changes if name != "blob"]:
            if changes.pop(name) != row.get(name):
                raise BadRequest(f"Only the blob of a credential can be changed, not its {name[:40]}: delete it, and"
                                 " make another.", field=name[:40])
        if "blob" in changes and row["type"].lower() == "ec2":
            _keep_delegation(_held(row["blob"]), _ec2_blob(changes["blob"]))

        def unit(conn: sa.Connection) -> Any:
            new = update(conn, CREDENTIAL, get(conn, CREDENTIAL, row["id"]), self._sealed(conn, changes))
            return _opened(self._providers, conn, new)
        return {"credential": self._shown(request, await self._store.write(unit))}

    async def delete(self, request: Request) -> Reply:
        await refuse_delegated(self._providers, request)
        await self._store.write(lambda conn: delete(conn, CREDENTIAL, request.found["id"]))
        return Reply(None, 204)

    async def new(self, request: Request) -> Subject:
        """The credential that a body describes; one of EC2's is asked for by its own rule too."""
        body = given(CREDENTIAL, request.body)
        ec2 = (("identity:ec2_create_credential", _target(body)),) if body["type"].lower() == "ec2" else ()
        return Subject(_target(body), body, more=ec2)

    async def one(self, request: Request) -> Subject:
        """The credential of the URL."""
        id = request.params["credential_id"]
        row = await self._store.read(lambda conn: find(conn, CREDENTIAL, id))
        return Subject(_target(row or {}), row, missing=missing(CREDENTIAL, id))

    async def _row(self, request: Request) -> Any:
        await refuse_delegated(self._providers, request)
        return await self._store.read(lambda conn: _opened(self._providers, conn, request.found))

    def _measure(self, values: Mapping[str, Any]) -> None:
        size, most = len(values.get("blob", "").encode("utf-8", "replace")), self._providers.limits.credential_bytes
        if size > most:
            raise BadRequest(f"Invalid input for field blob: it has {size} bytes, and {most} are allowed.",
                             field="blob")

    def _sealed(self, conn: sa.Connection, values: dict[str, Any]) -> dict[str, Any]:
        sealed = {k: v for k, v in values.items() if k != "blob"}
        if "blob" in values:
            sealed["secret"] = self._providers.vault.unlock(conn).encrypt(values["blob"])
        return sealed

    def _shown(self, request: Request, row: Any) -> dict[str, Any]:
        return {**row["extra"], "id": row["id"], "type": row["type"], "user_id": row["user_id"],
                "project_id": row["project_id"], "blob": row["blob"],
                "links": {"self": f"{url(request)}/credentials/{row['id']}"}}


class Ec2:
    """Handlers of /v3/users/{user_id}/credentials/OS-EC2. There is no login by them here: no signature is taken."""

    def __init__(self, providers: Providers):
        self._providers, self._store = providers, providers.store

    async def index(self, request: Request) -> Any:
        user_id = request.params["user_id"]
        await refuse_delegated(self._providers, request)
        c = t.credentials.c

        def unit(conn: sa.Connection) -> Any:
            get(conn, USER, user_id)
            found = listing(conn, CREDENTIAL, Page(), c.user_id == user_id, c.type == "ec2")
            return _all_opened(self._providers, conn, found)
        return collection(request, "credentials", [self._shown(request, r) for r in await self._store.read(unit)])

    async def create(self, request: Request) -> Reply:
        user_id, project_id = request.params["user_id"], request.body.get("tenant_id") or ""
        await refuse_delegated(self._providers, request)
        access = uuid4().hex
        blob = msgspec.json.encode({"access": access, "secret": secrets.token_hex(16), "trust_id": None}).decode()
        values = {"id": ec2_id(access), "user_id": user_id, "project_id": project_id, "type": "ec2"}

        def unit(conn: sa.Connection) -> Any:
            get(conn, USER, user_id)
            get(conn, PROJECT, project_id)
            check_project(request, conn, values)
            self._providers.limits.room(conn, "credentials", user_id)
            sealed = self._providers.vault.unlock(conn).encrypt(blob)
            return _opened(self._providers, conn, insert(conn, CREDENTIAL, {**values, "secret": sealed}))
        return Reply({"credential": self._shown(request, await self._store.write(unit))}, 201)

    async def show(self, request: Request) -> Any:
        return {"credential": self._shown(request, await self._row(request))}

    async def delete(self, request: Request) -> Reply:
        await refuse_delegated(self._providers, request)
        await self._store.write(lambda conn: delete(conn, CREDENTIAL, request.found["id"]))
        return Reply(None, 204)

    async def one(self, request: Request) -> Subject:
        """The key pair of the URL."""
        user_id, access = request.params["user_id"], request.params["access"]
        row = await self._store.read(lambda conn: find(conn, CREDENTIAL, ec2_id(access)))
        return Subject(_target(row or {"user_id": user_id}), row if row and row["user_id"] == user_id else None,
                       missing=missing(CREDENTIAL, access))

    async def _row(self, request: Request) -> Any:
        await refuse_delegated(self._providers, request)
        return await self._store.read(lambda conn: _opened(self._providers, conn, request.found))

    def _shown(self, request: Request, row: Any) -> dict[str, Any]:
        blob = _held(row["blob"])
        here = f"{url(request)}/users/{row['user_id']}/credentials/OS-EC2/{blob.get('access')}"
        return {"user_id": row["user_id"], "tenant_id": row["project_id"], "access": blob.get("access"),
                "secret": blob.get("secret"), "trust_id": blob.get("trust_id"), "links": {"self": here}}


async def refuse_delegated(providers: Providers, request: Request) -> None:
    """Raises Forbidden for a token that stands for less than its user."""
    if (await providers.identity.inspect(request.token or "")).facts.delegated:
        raise Forbidden("You are not authorized to perform the requested action: Delegated tokens cannot access"
                        " credentials directly.")


def check_project(request: Request, conn: sa.Connection, values: Mapping[str, Any]) -> None:
    """Raises Forbidden for an EC2 credential of a project that its user has no role on; who may make anybody's, may
    make that too."""
    if not request.allows("identity:create_credential", {}) and not roles_on(
            conn, values["user_id"], "project", get(conn, PROJECT, values["project_id"])):
        raise Forbidden("You are not authorized to perform the requested action: the user of the credential has no role"
                        " on its project.")


def ec2_id(access: str) -> str:
    """An ec2 credential is found by its access key."""
    return hashlib.sha256(access.encode()).hexdigest()


def _ec2_blob(text: str) -> dict[str, Any]:
    """A given blob of an EC2 credential. Raises BadRequest."""
    blob = _held(text)
    if not isinstance(blob.get("access"), str) or not blob["access"]:
        raise BadRequest("Invalid blob in credential: an ec2 blob is a JSON object with an access key.", field="blob")
    return blob


def _held(text: str | None) -> dict[str, Any]:
    """What a blob holds; nothing, if it cannot be read."""
    try:
        found = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def _keep_delegation(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raises BadRequest for a blob that claims other rights than before."""
    for key in DELEGATION:
        if old.get(key) != new.get(key):
            raise BadRequest(f"{key} can not be updated for credential", field=key)


def _opened(providers: Providers, conn: sa.Connection, row: Any) -> Any:
    """The row with its blob; None for None."""
    return _all_opened(providers, conn, [row])[0] if row else None


def _all_opened(providers: Providers, conn: sa.Connection, rows: Sequence[Any]) -> list[Any]:
    """A blob that cannot be read is None: the others of a list can, and it can be replaced or deleted."""
    vault = providers.vault.unlock(conn)

    def blob(row: Any) -> str | None:
        try:
            return vault.decrypt(row["secret"])
        except Unreadable as error:
            log.error("a credential cannot be read", credential=row["id"], why=str(error))
            return None
    return [{**row, "blob": blob(row)} for row in rows]


def _target(row: Any) -> dict[str, Any]:
    return {"target.credential.user_id": row.get("user_id")}


def _require(conn: sa.Connection, values: dict[str, Any]) -> None:
    """Raises NotFound for a user or project that is not there."""
    if values.get("user_id"):
        get(conn, USER, values["user_id"])
    if values.get("project_id"):
        get(conn, PROJECT, values["project_id"])


def _ec2_body(request: Request, body: Any) -> Any:
    if not isinstance(body, dict) or not isinstance(body.get("tenant_id"), str):
        raise BadRequest("Expecting to find tenant_id in the request's body.", field="tenant_id")
    return body


def routes(providers: Providers) -> list[Route]:
    api, ec2, path = Credentials(providers), Ec2(providers), "/v3/users/{user_id}/credentials/OS-EC2"
    mine = stated(lambda request: {"target.credential.user_id": request.context.user_id})
    of_user = stated(lambda request: {"user_id": request.params["user_id"]})
    for_user = stated(lambda request: {"target.credential.user_id": request.params["user_id"]})
    return [
        Route("GET", "/v3/credentials", api.index, asking("list_credentials", about=mine, parts=("get_credential",))),
        Route("POST", "/v3/credentials", api.create, asking(
            "create_credential", about=api.new, parts=("ec2_create_credential",)), body=CREATE),
        Route("GET", "/v3/credentials/{credential_id}", api.show, asking("get_credential", about=api.one)),
        Route("PATCH", "/v3/credentials/{credential_id}", api.update, asking("update_credential", about=api.one),
              body=UPDATE),
        Route("DELETE", "/v3/credentials/{credential_id}", api.delete, asking("delete_credential", about=api.one)),
        Route("GET", path, ec2.index, asking("ec2_list_credentials", about=of_user)),
        Route("POST", path, ec2.create, asking(
            "ec2_create_credential", about=for_user, parts=("create_credential",)), body=_ec2_body),
        Route("GET", path + "/{access}", ec2.show, asking("ec2_get_credential", about=ec2.one)),
        Route("DELETE", path + "/{access}", ec2.delete, asking("ec2_delete_credential", about=ec2.one)),
    ]
