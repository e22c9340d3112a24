"""The five verbs of every resource: parse, ask the policy, run the store's step in one transaction, render."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from nacre.base.context import Context
from nacre.base.errors import BadRequest, PreconditionFailed
from nacre.base.serving.gate import Gate, Subject, Target, asks, own
from nacre.base.serving.inputs import whole_number
from nacre.base.web import Reply, Request, Route
from nacre.network.api import listing as lists
from nacre.network.manager import NetworkManager
from nacre.network.nouns.attributes import Attributes, Resource
from nacre.network.nouns.noun import Standard, View
from nacre.network.policies import asked, attribute_rules, seen_rules
from nacre.network.work import MISSING, Work, missing

#: The most resources one request may create, and what all lists of these hold together.
MAX_BULK, MAX_BULK_PARTS = 256, 5000
#: Of these, as in Neutron, what another project shares can be looked at, and to whoever would change it is not there.
CLOSED = ("address_group",)


N = TypeVar("N")


class Store(Protocol[N]):
    """What a resource's module offers, for its nouns. A view has every attribute of the API."""

    resource: Resource

    def list(self, work: Work, filters: Attributes) -> list[N]:
        """What the caller may see; `filters` may be used to read less."""
        ...

    def views(self, work: Work, found: Sequence[N]) -> Sequence[View]:
        """The nouns as the API shows them, in a few statements for any number of them."""
        ...

    def target(self, work: Work, data: Attributes) -> Attributes:
        """What policy rules need to know besides the data: {"network:project_id": ...}."""
        ...

    def create(self, work: Work, data: Attributes) -> View: ...
    def update(self, work: Work, current: N, data: Attributes) -> object: ...
    def delete(self, work: Work, current: N) -> None: ...


class Prepared(Protocol):
    """Makes things on demand before a store is read (a project's default security group)."""

    def lacking(self, work: Work) -> bool: ...
    def prepare(self, work: Work) -> None: ...


class Controller:
    """The HTTP side of one store."""

    def __init__(self, manager: NetworkManager, store: Store[Any],
                 prepared: Callable[[Attributes], Prepared] | None = None):
        self._manager, self._store, self._prepared = manager, store, prepared
        self._resource = store.resource

    def routes(self, *, update: bool = True) -> list[Route]:
        resource = self._resource
        path, one, seen = f"/v2.0/{resource.path}", f"/v2.0/{resource.path}/{{id}}", seen_rules(resource)
        see = asks(f"get_{resource.name}", parts=seen)
        closed = see.rules if resource.name in CLOSED else ()

        def change(verb: str, about: Target) -> Gate:
            parts = (*attribute_rules(verb, resource), *seen, *closed)
            return asks(f"{verb}_{resource.name}", about=about, parts=parts)

        found = [Route("GET", path, self.index, see),
                 Route("POST", path, self.create, change("create", self._wished), body=any_body),
                 Route("GET", one, self.show, asks(f"get_{resource.name}", about=self.seen, parts=seen)),
                 Route("DELETE", one, self.delete, asks(f"delete_{resource.name}", about=self.about, parts=closed))]
        return [*found, Route("PUT", one, self.update, change("update", self._changed), body=any_body)] if (
            update) else found

    async def index(self, request: Request) -> View:
        listing = lists.parse(self._resource, request.query)
        await self._prepare(request.context, listing.filters)
        rows = await self._manager.read(request.context, lambda work: self._store.views(
            work, self._store.list(work, listing.filters)))
        secret = self._secret(request)  # hidden before filters look at them
        rows = [_without(row, secret) for row in rows]
        if listing.filters or listing.tags or listing.changed_since:
            rows = [row for row in rows if lists.matches(row, listing)]
        rows = [_without(row, self._resource.unseen()) for row in lists.page(rows, listing)]
        found: Attributes = {}
        if links := lists.links(request.base_url + request.path, request.query, listing, rows):
            found[f"{self._resource.plural}_links"] = links
        return {self._resource.plural: fields_of(rows, listing.fields), **found}

    async def show(self, request: Request) -> View:
        fields = [v for k, v in request.query if k == "fields" and v]
        return {self._resource.name: fields_of([self._shown(request, request.found)], fields)[0]}

    async def create(self, request: Request) -> Reply:
        context, name, plural = request.context, self._resource.name, self._resource.plural
        parsed, bulk = request.found

        def step(work: Work) -> list[View]:
            return [self._store.create(work, dict(data)) for data in parsed]

        rows = [self._shown(request, row) for row in await self._manager.write(context, step)]
        return Reply({plural: rows} if bulk else {name: rows[0]}, 201)

    async def update(self, request: Request) -> View:
        data: Attributes = request.found

        def step(work: Work) -> View:
            current = self.one(work, request.params["id"])
            _check_revision(request, self._resource.plural, current)
            self._store.update(work, current, dict(data))
            return self.view(work, request.params["id"])

        return {self._resource.name: self._shown(request, await self._manager.write(request.context, step))}

    async def delete(self, request: Request) -> Reply:
        def step(work: Work) -> None:
            current = self.one(work, request.params["id"])
            _check_revision(request, self._resource.plural, current)
            self._store.delete(work, current)

        await self._manager.write(request.context, step)
        return Reply(status=204)

    def one(self, work: Work, row_id: str) -> Any:
        """The noun of that id, if the caller may see it. Raises NotFound."""
        found = self._store.list(work, {"id": [row_id]})
        if not found:
            raise missing(self._resource.name if self._resource.name in MISSING else "network", row_id)
        return found[0]

    def view(self, work: Work, row_id: str) -> View:
        """As `one`, as the API shows it."""
        return self._store.views(work, [self.one(work, row_id)])[0]

    async def seen(self, request: Request) -> Subject:
        """What the URL names, to be looked at: who may see it need not own it. Raises NotFound."""
        await self._prepare(request.context, {})
        found = await self._manager.read(request.context, lambda work: self.view(work, request.params["id"]))
        return Subject(own(request.context), found)

    async def about(self, request: Request) -> Subject:
        """What the URL names, to be changed, if the caller may see it. Raises NotFound."""
        def step(work: Work) -> View:
            found = self.view(work, request.params["id"])
            return found | self._store.target(work, found)

        return self._closed(request, Subject(found := await self._manager.read(request.context, step), found))

    def _closed(self, request: Request, subject: Subject) -> Subject:
        """The subject, which is there for nobody but those whose it is, if it is of such a kind."""
        name = self._resource.name
        return subject if name not in CLOSED or request.context.sees_all else replace(
            subject, missing=missing(name, request.params["id"]), seen=f"get_{name}")

    async def _wished(self, request: Request) -> Subject:
        """What a body would make, each with its attributes' rules. Raises BadRequest."""
        name = self._resource.name
        raws, bulk = bodies(request.body, name, self._resource.plural)
        parsed = [self._resource.parse_create(raw, request.context) for raw in raws]

        def step(work: Work) -> list[tuple[str, Attributes]]:
            return [ask for raw, data in zip(raws, parsed, strict=True) for ask in asked(
                f"create_{name}", self._resource, raw, data | self._store.target(work, dict(data)))]

        (_, facts), *more = await self._manager.read(request.context, step)
        return Subject(facts, (parsed, bulk), more=tuple(more))

    async def _changed(self, request: Request) -> Subject:
        """What a body would change, with its attributes' rules. Raises NotFound, BadRequest."""
        name = self._resource.name
        raw = bodies(request.body, name, None)[0][0]
        data = self._resource.parse_update(raw, request.context)

        def step(work: Work) -> list[tuple[str, Attributes]]:
            new = self.view(work, request.params["id"]) | data
            return asked(f"update_{name}", self._resource, raw, new | self._store.target(work, new))

        (_, facts), *more = await self._manager.read(request.context, step)
        return self._closed(request, Subject(facts, data, more=tuple(more)))

    async def _prepare(self, context: Context, filters: Attributes) -> None:
        if self._prepared is None:
            return
        prepared = self._prepared(filters)
        lacking: bool = await self._manager.read(context, prepared.lacking)
        if lacking:
            await self._manager.write(context, prepared.prepare)

    def _secret(self, request: Request) -> set[str]:
        return {name for name in self._resource.secrets()
                if not request.allows(f"get_{self._resource.name}:{name}")}

    def _shown(self, request: Request, row: View) -> View:
        return _without(row, self._secret(request) | self._resource.unseen())


def _without(row: View, names: Collection[str]) -> View:
    return {k: v for k, v in row.items() if k not in names} if names else row


def fields_of(rows: Sequence[View], fields: Sequence[str]) -> list[View]:
    """The rows with these attributes alone; none named: as they are."""
    if not fields:
        return list(rows)
    return [{k: row[k] for k in fields if k in row} for row in rows]


def any_body(request: Request, body: Any) -> Any:
    if not isinstance(body, dict):
        raise BadRequest("Resource body required", type="HTTPBadRequest")
    return body


def bodies(body: Attributes, name: str, plural: str | None) -> tuple[list[Attributes], bool]:
    """The resources of a body, and whether it was a bulk one."""
    if plural and plural in body and name not in body:
        raws, bulk = body[plural], True
        if not isinstance(raws, list) or not raws or len(raws) > MAX_BULK:
            raise BadRequest(f"'{plural}' must be a list of 1 to {MAX_BULK} resources.", field=plural)
        # As in python-neutronclient, each may be wrapped in its own name once more.
        raws = [r[name] if isinstance(r, dict) and list(r) == [name] else r for r in raws]
    elif name in body:
        raws, bulk = [body[name]], False
    else:
        raise BadRequest(f"Unable to find '{name}' in request body", field=name, type="HTTPBadRequest")
    if not all(isinstance(r, dict) for r in raws):
        raise BadRequest(f"Invalid input for {name}. Reason: it is not a dictionary.", field=name)
    if (parts := sum(len(v) for r in raws for v in r.values() if isinstance(v, list))) > MAX_BULK_PARTS:
        raise BadRequest(f"The lists of these {len(raws)} resources have {parts} entries together, and "
                         f"{MAX_BULK_PARTS} are the most of one request.", field=plural or name)
    return raws, bulk


def _check_revision(request: Request, plural: str, current: object) -> None:
    wanted = request.headers.get("if-match", "")
    if not wanted:
        return
    key, _, text = wanted.partition("=")
    number = whole_number(text)
    if key != "revision_number" or number is None:
        raise BadRequest(f"Bad If-Match header: {wanted[:64]}; it must be revision_number=N.", field="If-Match")
    if not isinstance(current, Standard):
        raise BadRequest(f"Bad {plural} request: Revision matching not supported for this resource.", field="If-Match",
                         type="BadRequest")
    if number != current.revision_number:
        raise PreconditionFailed(f"Constrained to {number}, but current revision is {current.revision_number}",
                                 type="RevisionNumberConstraintFailed")
