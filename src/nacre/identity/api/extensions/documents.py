"""Small things that are kept and shown: policies, endpoint groups, and whom one would federate with.

Nobody logs in by an identity provider here: what is told about one is kept for the tools that manage it.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any
from uuid import uuid4

import msgspec
import sqlalchemy as sa

from nacre.base.errors import BadRequest, Conflict, NotFound
from nacre.base.web import Check, Reply, Request, Route
from nacre.identity import tables as t
from nacre.identity.api.answers import collection, page_of, url
from nacre.identity.api.providers import Providers, asking
from nacre.identity.api.validation import BOOLEAN, NAME, TEXT, boolean, wrapped
from nacre.identity.catalog import unlink
from nacre.identity.records import DOMAIN, get, insert, kept, matches

Document = dict[str, Any]
URL = {"type": "string", "maxLength": 225, "pattern": "^[a-zA-Z0-9+.-]+:.+"}
STRICT: dict[str, Any] = {"additionalProperties": False}


class Shelf(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of document. by_url: the client names it, with PUT."""

    name: str
    plural: str
    path: str
    create: Check
    update: Check
    defaults: Mapping[str, Any]
    filters: tuple[str, ...] = ()
    by_url: bool = False
    noun: str = ""
    more_links: Callable[[str], Document] | None = None


class Documents:
    """Handlers of one shelf."""

    def __init__(self, providers: Providers, shelf: Shelf):
        self._providers, self._store, self._shelf = providers, providers.store, shelf

    async def index(self, request: Request) -> Any:
        shelf = self._shelf
        page = page_of(request, *shelf.filters)
        found = await self._store.read(lambda conn: held(conn, self._kind(request)))
        found = [d for d in found if all(matches(d.get(name), how, value) for name, how, value in page.filters)]
        return collection(request, shelf.plural, [self._shown(request, d) for d in found])

    async def create(self, request: Request) -> Reply:
        shelf = self._shelf
        id = request.params["id"] if shelf.by_url else uuid4().hex
        if len(id) > 64:
            raise BadRequest("An id is at most 64 characters long.", field="id")
        values = {**shelf.defaults, **_taken(request.body), "id": id}
        kind = self._kind(request)

        def unit(conn: sa.Connection) -> None:
            self._check_parent(conn, request, values)
            if shelf.name == "identity_provider":
                values["domain_id"] = _home(conn, values)
            conn.execute(sa.insert(t.documents).values(kind=kind, id=id, extra=kept(values)))
        try:
            await self._store.write(unit)
        except Conflict:
            raise Conflict(f"Conflict occurred attempting to store {shelf.name} - Duplicate entry found with ID"
                           f" {id}.") from None
        return Reply({shelf.name: self._shown(request, values)}, 201)

    async def show(self, request: Request) -> Any:
        found = await self._store.read(lambda conn: self._get(conn, request))
        return {self._shelf.name: self._shown(request, found)}

    async def update(self, request: Request) -> Any:
        shelf = self._shelf

        def unit(conn: sa.Connection) -> Document:
            old = self._get(conn, request)
            new = kept({**old, **_taken(request.body), "id": old["id"]})
            self._check_parent(conn, request, new)
            d = t.documents
            conn.execute(sa.update(d).where(d.c.kind == self._kind(request), d.c.id == new["id"]).values(extra=new))
            return new
        return {shelf.name: self._shown(request, await self._store.write(unit))}

    async def delete(self, request: Request) -> Reply:

        def unit(conn: sa.Connection) -> None:
            id = self._get(conn, request)["id"]
            d = t.documents
            conn.execute(sa.delete(d).where(d.c.kind == self._kind(request), d.c.id == id))
            if self._shelf.name == "endpoint_group":
                unlink(conn, id)
            if self._shelf.name == "identity_provider":
                conn.execute(sa.delete(d).where(d.c.kind == _protocols(id)))
        await self._store.write(unit)
        return Reply(None, 204)

    def _kind(self, request: Request) -> str:
        return _protocols(request.params["idp_id"]) if "idp_id" in request.params else self._shelf.name

    def _check_parent(self, conn: sa.Connection, request: Request, values: Document) -> None:
        if "mapping_id" in values and fetch(conn, "mapping", values["mapping_id"]) is None:
            raise BadRequest(f"Could not find mapping: {values['mapping_id']}.", field="mapping_id")
        if "idp_id" in request.params and fetch(conn, "identity_provider", request.params["idp_id"]) is None:
            raise NotFound(f"Could not find Identity Provider: {request.params['idp_id']}.")

    def _get(self, conn: sa.Connection, request: Request) -> Document:
        found = fetch(conn, self._kind(request), request.params["id"])
        if found is None:
            noun = self._shelf.noun or self._shelf.name
            raise NotFound(f"Could not find {noun}: {request.params['id']}.")
        return found

    def _shown(self, request: Request, document: Document) -> Document:
        path = self._shelf.path.format(**request.params)
        here = f"{url(request)}/{path}/{document['id']}"
        links = {"self": here, **(self._shelf.more_links(here) if self._shelf.more_links else {})}
        return {**document, "links": links}


def held(conn: sa.Connection, kind: str) -> list[Document]:
    """Every document of a kind."""
    d = t.documents.c
    return list(conn.scalars(sa.select(d.extra).where(d.kind == kind).order_by(d.id)))


def fetch(conn: sa.Connection, kind: str, id: str) -> Document | None:
    """One document."""
    d = t.documents.c
    found: Document | None = conn.scalar(sa.select(d.extra).where(d.kind == kind, d.id == id))
    return found


def _protocols(idp_id: str) -> str:
    # the column holds 32 characters: a provider's protocols are told apart by a digest of its name
    return "p:" + blake2b(idp_id.encode(), digest_size=14).hexdigest()


def _home(conn: sa.Connection, provider: Document) -> str:
    """The domain of a provider's users: the named one, or a new one of its own."""
    if provider.get("domain_id"):
        return str(get(conn, DOMAIN, provider["domain_id"])["id"])
    id = uuid4().hex
    insert(conn, DOMAIN, {
        "id": id, "name": id, "domain_id": "", "parent_id": None, "is_domain": True, "enabled": True,
        "description": f"Auto generated federated domain for Identity Provider: {provider['id']}"})
    return id


def _taken(body: Document) -> Document:
    values = {k: v for k, v in body.items() if k not in ("id", "links")}
    return {**values, "enabled": boolean(values["enabled"])} if "enabled" in values else values


POLICY = {"blob": {"type": "string", "minLength": 1}, "type": {"type": "string", "maxLength": 255}}
PROVIDER = {"auth_url": URL, "sp_url": URL, "description": TEXT, "enabled": BOOLEAN,
            "relay_state_prefix": {"type": ["string", "null"], "maxLength": 256}}
IDP = {"enabled": BOOLEAN, "description": TEXT, "domain_id": {"type": ["string", "null"], "maxLength": 64},
       "authorization_ttl": {"type": ["integer", "null"], "minimum": 0},
       "remote_ids": {"type": ["array", "null"], "items": {"type": "string"}, "uniqueItems": True}}
MAPPING = {"rules": {"type": "array", "minItems": 1, "items": {
    "type": "object", "required": ["local", "remote"], "additionalProperties": False, "properties": {
        "local": {"type": "array"}, "remote": {"type": "array", "minItems": 1, "items": {
            "type": "object", "required": ["type"]}}}}}, "schema_version": {"type": "string"},
           "id": {"type": "string"}}  # clients repeat the URL's id; it is the URL that counts
PROTOCOL = {"mapping_id": {"type": "string", "minLength": 1, "maxLength": 64},
            "remote_id_attribute": {"type": "string", "maxLength": 64}}
GROUP = {"name": NAME, "description": TEXT, "filters": {"type": "object", "additionalProperties": False, "properties": {
    k: {"type": "string"} for k in ("service_id", "region_id", "interface", "enabled")}}}

SHELVES = (
    Shelf(name="policy", plural="policies", path="policies", filters=("type",), defaults={},
          create=wrapped("policy", POLICY, ["blob", "type"]), update=wrapped("policy", POLICY, minProperties=1)),
    Shelf(name="service_provider", plural="service_providers", path="OS-FEDERATION/service_providers", by_url=True,
          filters=("id", "enabled"), noun="Service Provider",
          defaults={"enabled": False, "description": None, "relay_state_prefix": "ss:mem:"},
          create=wrapped("service_provider", PROVIDER, ["auth_url", "sp_url"], **STRICT),
          update=wrapped("service_provider", PROVIDER, minProperties=1, **STRICT)),
    Shelf(name="identity_provider", plural="identity_providers", path="OS-FEDERATION/identity_providers", by_url=True,
          filters=("id", "enabled"), noun="Identity Provider",
          defaults={"enabled": False, "description": None, "remote_ids": [], "authorization_ttl": None},
          create=wrapped("identity_provider", IDP, **STRICT),
          update=wrapped("identity_provider", IDP, minProperties=1, **STRICT),
          more_links=lambda here: {"protocols": here + "/protocols"}),
    Shelf(name="protocol", plural="protocols", path="OS-FEDERATION/identity_providers/{idp_id}/protocols", by_url=True,
          noun="federated protocol", defaults={}, create=wrapped("protocol", PROTOCOL, ["mapping_id"], **STRICT),
          update=wrapped("protocol", PROTOCOL, minProperties=1, **STRICT)),
    Shelf(name="mapping", plural="mappings", path="OS-FEDERATION/mappings", by_url=True,
          defaults={"schema_version": "1.0"}, create=wrapped("mapping", MAPPING, ["rules"], **STRICT),
          update=wrapped("mapping", MAPPING, minProperties=1, **STRICT)),
    Shelf(name="endpoint_group", plural="endpoint_groups", path="OS-EP-FILTER/endpoint_groups", filters=("name",),
          defaults={"description": ""}, noun="Endpoint Group",
          create=wrapped("endpoint_group", GROUP, ["name", "filters"]),
          update=wrapped("endpoint_group", GROUP, minProperties=1)),
)


def routes(providers: Providers) -> list[Route]:
    found = []
    for shelf in SHELVES:
        api, path = Documents(providers, shelf), f"/v3/{shelf.path}"
        how, where = ("PUT", path + "/{id}") if shelf.by_url else ("POST", path)
        found += [
            Route("GET", path, api.index, asking(f"list_{shelf.plural}")),
            Route(how, where, api.create, asking(f"create_{shelf.name}"), body=shelf.create),
            Route("GET", path + "/{id}", api.show, asking(f"get_{shelf.name}")),
            Route("PATCH", path + "/{id}", api.update, asking(f"update_{shelf.name}"), body=shelf.update),
            Route("DELETE", path + "/{id}", api.delete, asking(f"delete_{shelf.name}"))]
    return found
