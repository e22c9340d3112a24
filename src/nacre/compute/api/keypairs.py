"""/os-keypairs: list, show, make or import, delete."""

from typing import Any

from nacre.base.serving.gate import Gate, Subject, asks
from nacre.base.web import Reply, Request, Route
from nacre.compute.api import types as t
from nacre.compute.api.microversions import known
from nacre.compute.api.paging import MAX_LIMIT, limit_and_marker, next_link
from nacre.compute.api.validation import Query, Schema, Since
from nacre.compute.catalog.keypairs import KeyPair, KeyPairs
from nacre.compute.catalog.quotas import Quotas
from nacre.compute.policies import rule


def _body(name_pattern: str, *required: str) -> t.J:
    return t.wrap("keypair", t.obj({
        "name": {**t.NAME, "pattern": name_pattern},
        "public_key": t.STRING, "type": {"type": "string", "enum": ["ssh", "x509"]},
        "user_id": {"type": "string", "maxLength": 64}}, *required, noun="keypair.create"))


#: From 2.92 on keys are only imported, and their names may hold more characters.
CREATE = Schema(Since({1: _body(r"^[_\- a-zA-Z0-9]+$", "name"),
                       92: _body(r"^[_\-@. a-zA-Z0-9]+$", "name", "public_key")}))
LIST = Query("keypair.query", {"user_id": t.STRING, **t.PAGING})
ONE = Query("keypair.query", {"user_id": t.STRING})


class KeyPairRoutes:
    """The key pair part of the API."""

    def __init__(self, keypairs: KeyPairs, quotas: Quotas):
        self._keypairs, self._quotas = keypairs, quotas

    def routes(self) -> list[Route]:
        """Every URL under /os-keypairs."""
        def may(verb: str) -> Gate:
            return asks(rule(f"os-keypairs:{verb}"), about=_whose)

        return [
            Route("GET", "/v2.1/os-keypairs", self.index, may("index"), query=LIST),
            Route("POST", "/v2.1/os-keypairs", self.create, asks(rule("os-keypairs:create"), about=_new), body=CREATE),
            Route("GET", "/v2.1/os-keypairs/{name}", self.show, may("show"), query=ONE),
            Route("DELETE", "/v2.1/os-keypairs/{name}", self.delete, may("delete"), query=ONE),
        ]

    async def index(self, request: Request) -> Any:
        """GET /os-keypairs."""
        user, version = str(request.found), request.version
        limit, marker = limit_and_marker(request) if known("keypair.links", version) else (MAX_LIMIT, None)
        found = await self._keypairs.of_user(user, limit, marker)
        answer: dict[str, Any] = {"keypairs": [{"keypair": _brief(request, pair)} for pair in found]}
        if known("keypair.links", version) and found and (more := next_link(request, found, found[-1].name, limit)):
            answer["keypairs_links"] = more
        return answer

    async def create(self, request: Request) -> Any:
        """POST /os-keypairs: import a key, or (below 2.92) make one and show its private half this once."""
        given = request.body["keypair"]
        user: str = request.found
        name, kind = given["name"].strip(), given.get("type", "ssh")
        limit = await self._quotas.limit(request.context.project_id, "key_pairs", user)
        if "public_key" in given:
            pair, private = await self._keypairs.add(user, name, kind, given["public_key"], limit), None
        else:
            pair, private = await self._keypairs.create(user, name, kind, limit)
        shown = _brief(request, pair) | {"user_id": user}
        if private is not None:
            shown["private_key"] = private
        return Reply({"keypair": shown}, 201 if request.version >= (2, 2) else 200)

    async def show(self, request: Request) -> Any:
        """GET /os-keypairs/{name}."""
        pair = await self._keypairs.get(request.found, request.params["name"])
        return {"keypair": _brief(request, pair) | {
            "user_id": pair.user_id, "id": pair.id, "created_at": pair.created_at.isoformat(), "updated_at": None,
            "deleted": False, "deleted_at": None}}

    async def delete(self, request: Request) -> Any:
        """DELETE /os-keypairs/{name}."""
        await self._keypairs.delete(request.found, request.params["name"])
        return Reply(status=204 if request.version >= (2, 2) else 202)


async def _whose(request: Request) -> Subject:
    """Whose keys: the caller's own, or another's."""
    asked = request.one("user_id") if known("keypair.user_id_query", request.version) else None
    user = asked or request.context.user_id or ""
    return Subject({"user_id": user}, user)


async def _new(request: Request) -> Subject:
    """For whom a key is."""
    user = request.body["keypair"].get("user_id") or request.context.user_id or ""
    return Subject({"user_id": user}, user)


def _brief(request: Request, pair: KeyPair) -> dict[str, Any]:
    found = {"name": pair.name, "public_key": pair.public_key, "fingerprint": pair.fingerprint}
    if known("keypair.type", request.version):
        found["type"] = pair.type
    return found
