"""/v2/metadefs and its schemas."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nacre.base import errors as e
from nacre.base.clock import iso
from nacre.base.serving.gate import Gate, Subject, asks, stated
from nacre.base.serving.inputs import whole_number
from nacre.base.serving.paths import link
from nacre.base.web import Handler, Reply, Request, Route
from nacre.image.metadefs.schemas import CHECKS, DOCUMENTS, READ_ONLY
from nacre.image.metadefs.service import KINDS, RULES, SORT_KEYS, Metadefs, Page
from nacre.image.queries import flag, one_of
from nacre.image.schemas import check

ROOT = "/v2/metadefs/namespaces"
_MAX_LIMIT = 1000


class MetadefsApi:
    """Handlers for namespaces and their items."""

    def __init__(self, metadefs: Metadefs):
        self._metadefs = metadefs

    def routes(self) -> list[Route]:
        """Its lines of the API."""
        one = ROOT + "/{namespace}"
        lines = [
            Route("GET", "/v2/metadefs/resource_types", self.resource_types, asks(
                "list_metadef_resource_types", about=stated(_own))),
            Route("GET", ROOT, self.list, asks(
                "get_metadef_namespaces", about=_listed, parts=("list_metadef_resource_types",))),
            Route("POST", ROOT, self.create, asks("add_metadef_namespace", about=_whole, parts=tuple(
                rules.add for rules in RULES.values())), body=checked("namespace")),
            Route("GET", one, self.show, self._may("get_metadef_namespace")),
            Route("PUT", one, self.update, self._may("modify_metadef_namespace"), body=checked("namespace")),
            Route("DELETE", one, self.delete, self._may("delete_metadef_namespace")),
            Route("POST", f"{one}/tags", self.set_tags, self._may("add_metadef_tags"), body=checked("tag_list")),
            Route("POST", f"{one}/tags/{{item}}", self.add_tag, self._may("add_metadef_tag")),
        ]
        for kind, rules in RULES.items():
            all_, each, may = f"{one}/{kind}", f"{one}/{kind}/{{item}}", self._may
            lines += [Route("GET", all_, self.lister(kind), may(rules.list)),
                      Route("DELETE", each, self.dropper(kind), may(rules.drop))]
            if kind != "tags":
                lines.append(Route("POST", all_, self.adder(kind), may(rules.add), body=checked(kind)))
            if kind != "resource_types":
                clear = "delete_metadef_tags" if kind == "tags" else rules.drop
                lines += [Route("DELETE", all_, self.dropper(kind), may(clear)),
                          Route("GET", each, self.shower(kind), may(rules.show)),
                          Route("PUT", each, self.changer(kind), may(rules.change), body=checked(kind))]
        return lines

    def _may(self, rule: str) -> Gate:
        async def about(request: Request) -> Subject:
            row = await self._metadefs.about(request.context, request.params["namespace"])
            return Subject({"project_id": row["owner"], "visibility": row["visibility"]})

        return asks(rule, about=about)

    async def list(self, request: Request) -> dict[str, Any]:
        page = parse(request.query)
        found = await self._metadefs.page(request.context, page)
        more, found = len(found) > page.limit, found[:page.limit]
        answer: dict[str, Any] = {
            "namespaces": [namespace(row, {"resource_types": inside}) for row, inside in found],
            "first": link(ROOT, request.query, marker=None), "schema": "/v2/schemas/metadefs/namespaces"}
        if more and found:
            answer["next"] = link(ROOT, request.query, marker=found[-1][0]["namespace"])
        return answer

    async def create(self, request: Request) -> Reply:
        row = await self._metadefs.create(request.context, request.body)
        inside = {key: request.body[key] for key in KINDS.values() if request.body.get(key)}
        return Reply({**namespace(row, {}), **inside}, 201, {"Location": f"{ROOT}/{row['namespace']}"})

    async def show(self, request: Request) -> dict[str, Any]:
        row, inside = await self._metadefs.show(request.context, request.params["namespace"])
        return prefixed(namespace(row, inside), request.one("resource_type"))

    async def update(self, request: Request) -> dict[str, Any]:
        row = await self._metadefs.update(request.context, request.params["namespace"], request.body)
        return namespace(row, {})

    async def delete(self, request: Request) -> Reply:
        await self._metadefs.delete(request.context, request.params["namespace"])
        return Reply(status=204)

    async def resource_types(self, request: Request) -> dict[str, Any]:
        return {"resource_types": [{"name": n} for n in sorted(await self._metadefs.resource_types())]}

    async def set_tags(self, request: Request) -> Reply:
        keep = flag("X-Openstack-Append", request.headers.get("x-openstack-append") or "false")
        rows = await self._metadefs.add(request.context, request.params["namespace"], "tags", request.body["tags"],
                                        replace=not keep)
        return Reply({"tags": [{"name": row["name"]} for row in rows]}, 201)

    async def add_tag(self, request: Request) -> Reply:
        body = {"name": request.params["item"]}
        check(CHECKS["tags"], body)
        rows = await self._metadefs.add(request.context, request.params["namespace"], "tags", [body])
        return Reply(item("tags", "", rows[0]), 201)

    def lister(self, kind: str) -> Handler:
        async def answer(request: Request) -> dict[str, Any]:
            name = request.params["namespace"]
            rows = await self._metadefs.items(request.context, name, kind)
            documents = part(kind, name, [row._mapping for row in rows])
            return {KINDS[kind]: documents} | ({"schema": "v2/schemas/metadefs/objects"} if kind == "objects" else {})
        return answer

    def shower(self, kind: str) -> Handler:
        async def answer(request: Request) -> dict[str, Any]:
            name, wanted = request.params["namespace"], request.params["item"]
            row = await self._metadefs.item(request.context, name, kind, wanted)
            return item(kind, name, row._mapping)
        return answer

    def adder(self, kind: str) -> Handler:
        async def answer(request: Request) -> Reply:
            name = request.params["namespace"]
            rows = await self._metadefs.add(request.context, name, kind, [request.body])
            return Reply(item(kind, name, rows[0]), 201)
        return answer

    def changer(self, kind: str) -> Handler:
        async def answer(request: Request) -> dict[str, Any]:
            name = request.params["namespace"]
            row = await self._metadefs.change(request.context, (name, kind, request.params["item"]), request.body)
            return item(kind, name, row)
        return answer

    def dropper(self, kind: str) -> Handler:
        async def answer(request: Request) -> Reply:
            await self._metadefs.drop(request.context, request.params["namespace"], kind, request.params.get("item"))
            return Reply(status=204)
        return answer


def _own(request: Request) -> dict[str, str]:
    return {"project_id": request.context.project_id or "", "visibility": "private"}


async def _listed(request: Request) -> Subject:
    """A list shows each namespace's resource types."""
    own = _own(request)
    return Subject(own, more=(("list_metadef_resource_types", own),))


async def _whole(request: Request) -> Subject:
    """A namespace may come with its items, each kind of which has a rule."""
    own = _own(request)
    return Subject(own, more=tuple((RULES[kind].add, own) for kind, key in KINDS.items() if request.body.get(key)))


def documents() -> list[tuple[str, Any]]:
    """Name and body of each schema document."""
    return [(f"metadefs/{name}", body) for name, body in DOCUMENTS.items()]


def checked(name: str) -> Callable[[Request, Any], Any]:
    """A Check that a body is a document of that name."""
    def run(_: Request, body: Any) -> Any:
        if not isinstance(body, Mapping):
            raise e.BadRequest("Body expected in request.")
        for key in READ_ONLY:
            if key in body:
                raise e.Forbidden(f"Attribute '{key}' is read-only.", field=key)
        check(CHECKS[name], body)
        return body
    return run


def parse(query: Sequence[tuple[str, str]]) -> Page:
    """The page that a query string asks for. Raises BadRequest."""
    page = Page()
    for name, value in query:
        if name == "limit":
            number = whole_number(value)
            if number is None:
                raise e.BadRequest("limit param must be a positive integer", field="limit")
            page.limit = min(number, _MAX_LIMIT)
        elif name == "marker":
            page.marker = value
        elif name == "sort_key":
            page.sort_key = one_of(value, SORT_KEYS, "Invalid sort key")
        elif name == "sort_dir":
            page.sort_dir = one_of(value, ("asc", "desc"), "Invalid sort direction")
        elif name == "visibility":
            page.visibility = one_of(value, ("public", "private"), "Invalid visibility value")
        elif name == "resource_types":
            page.resource_types = [v.replace("\x00", "") for v in value.split(",")]
    return page


def namespace(row: Mapping[str, Any], inside: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """A namespace's document; `inside` are rows of its items by kind."""
    name = row["namespace"]
    view = {key: row[key] for key in ("namespace", "display_name", "description", "visibility", "protected", "owner")
            if row[key] is not None}
    view |= {"created_at": iso(row["created_at"]), "updated_at": iso(row["updated_at"]), "self": f"{ROOT}/{name}",
             "schema": "/v2/schemas/metadefs/namespace"}
    for kind, rows in inside.items():
        if rows:
            view[KINDS[kind]] = part(kind, name, [r._mapping for r in rows])
    return view


def part(kind: str, name: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Items as a document lists them: properties by name, the others in order."""
    if kind == "properties":
        return {row["name"]: item(kind, name, row) for row in rows}
    return [item(kind, name, row) for row in rows]


def item(kind: str, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """One item's document. name: its namespace's."""
    view = {**row["body"], "name": row["name"]}
    if kind != "properties":
        view |= {"created_at": iso(row["created_at"]), "updated_at": iso(row["updated_at"])}
    if kind == "objects":
        view = {"required": [], "properties": {}} | view | {
            "self": f"{ROOT}/{name}/objects/{row['name']}", "schema": "/v2/schemas/metadefs/object"}
    return view


def prefixed(view: dict[str, Any], resource_type: str | None) -> dict[str, Any]:
    """The document with its properties named as that resource type has them."""
    prefix = next((a.get("prefix") for a in view.get("resource_type_associations", ())
                   if a["name"] == resource_type), None)
    if prefix:
        for holder in (view, *view.get("objects", ())):
            if "properties" in holder:
                holder["properties"] = {prefix + n: v for n, v in holder["properties"].items()}
            if holder.get("required"):
                holder["required"] = [prefix + n for n in holder["required"]]
    return view
