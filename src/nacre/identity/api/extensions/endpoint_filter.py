"""/v3/OS-EP-FILTER: which endpoints a project sees in its catalog. A project with none of its own sees them all."""

from typing import Any

import sqlalchemy as sa

from nacre.base.errors import NotFound
from nacre.base.web import Reply, Request, Route
from nacre.identity import catalog
from nacre.identity import tables as t
from nacre.identity.api.answers import collection, many, url
from nacre.identity.api.extensions.documents import Document, fetch, held
from nacre.identity.api.providers import Providers, asking
from nacre.identity.records import ENDPOINT, PROJECT, Page, get, listing

GROUP = "endpoint_group"


class Filter:
    """Handlers. A link of a project is kept as a document `PROJECT/ENDPOINT` or `PROJECT/GROUP`."""

    def __init__(self, providers: Providers):
        self._providers, self._store = providers, providers.store

    async def add(self, request: Request) -> Reply:
        kind, id = _named(request)
        project_id, other = id.split("/")

        def unit(conn: sa.Connection) -> None:
            _exist(conn, kind, project_id, other)
            _drop(conn, kind, id)
            row = {"project_id": project_id, "other_id": other}
            conn.execute(sa.insert(t.documents).values(kind=kind, id=id, extra=row))
        await self._store.write(unit)
        return Reply(None, 204)

    async def check(self, request: Request) -> Any:
        kind, id = _named(request)
        if await self._store.read(lambda conn: fetch(conn, kind, id)) is None:
            raise _none(id)
        if kind == catalog.PROJECT_GROUP:
            group = await self._store.read(lambda conn: fetch(conn, GROUP, request.params["group_id"]))
            return {"project_endpoint_group": {
                "project_id": request.params["project_id"], "endpoint_group_id": request.params["group_id"],
                "links": {"self": f"{url(request)}/OS-EP-FILTER/endpoint_groups/{group['id'] if group else ''}"}}}
        return Reply(None, 204)

    async def remove(self, request: Request) -> Reply:
        kind, id = _named(request)

        def unit(conn: sa.Connection) -> None:
            if not _drop(conn, kind, id):
                raise _none(id)
        await self._store.write(unit)
        return Reply(None, 204)

    async def projects(self, request: Request) -> Any:
        """The projects of an endpoint or of a group."""
        kind, other = catalog.PROJECT_ENDPOINT, request.params.get("endpoint_id")
        if other is None:
            kind, other = catalog.PROJECT_GROUP, request.params["group_id"]

        def unit(conn: sa.Connection) -> Any:
            _exist(conn, kind, None, other)
            ids = [d["project_id"] for d in held(conn, kind) if d["other_id"] == other]
            return listing(conn, PROJECT, Page(), t.projects.c.id.in_(ids))
        return many(request, PROJECT, await self._store.read(unit))

    async def endpoints(self, request: Request) -> Any:
        """The endpoints of a project or of a group."""
        project_id, group_id = request.params.get("project_id"), request.params.get("group_id")

        def unit(conn: sa.Connection) -> Any:
            rows = listing(conn, ENDPOINT, Page())
            if project_id:
                get(conn, PROJECT, project_id)
                wanted = catalog.chosen(conn, project_id)
                return [r for r in rows if wanted is not None and wanted(r)]
            group = _group(conn, group_id or "")
            return [r for r in rows if catalog.fits(group["filters"], r)]
        return many(request, ENDPOINT, await self._store.read(unit))

    async def groups(self, request: Request) -> Any:
        """The groups of a project."""
        project_id = request.params["project_id"]

        def unit(conn: sa.Connection) -> list[Document]:
            get(conn, PROJECT, project_id)
            ids = {d["other_id"] for d in held(conn, catalog.PROJECT_GROUP) if d["project_id"] == project_id}
            return [g for g in held(conn, GROUP) if g["id"] in ids]
        base = f"{url(request)}/OS-EP-FILTER/endpoint_groups"
        shown = [{**g, "links": {"self": f"{base}/{g['id']}"}} for g in await self._store.read(unit)]
        return collection(request, "endpoint_groups", shown)


def _named(request: Request) -> tuple[str, str]:
    """The kind and id of the link that a URL names."""
    params = request.params
    if "endpoint_id" in params:
        return catalog.PROJECT_ENDPOINT, f"{params['project_id']}/{params['endpoint_id']}"
    return catalog.PROJECT_GROUP, f"{params['project_id']}/{params['group_id']}"


def _exist(conn: sa.Connection, kind: str, project_id: str | None, other: str) -> None:
    if project_id is not None:
        get(conn, PROJECT, project_id)
    if kind == catalog.PROJECT_ENDPOINT:
        get(conn, ENDPOINT, other)
    else:
        _group(conn, other)


def _group(conn: sa.Connection, id: str) -> Document:
    found = fetch(conn, GROUP, id)
    if found is None:
        raise NotFound(f"Could not find Endpoint Group: {id}.")
    return found


def _drop(conn: sa.Connection, kind: str, id: str) -> bool:
    d = t.documents
    return bool(conn.execute(sa.delete(d).where(d.c.kind == kind, d.c.id == id)).rowcount)


def _none(id: str) -> NotFound:
    return NotFound(f"Could not find the association {id.replace('/', ' with ')}.")


def routes(providers: Providers) -> list[Route]:
    api, root = Filter(providers), "/v3/OS-EP-FILTER"
    group, project = root + "/endpoint_groups/{group_id}", root + "/projects/{project_id}"
    link, group_link = project + "/endpoints/{endpoint_id}", group + "/projects/{project_id}"
    return [
        Route("GET", root + "/endpoints/{endpoint_id}/projects", api.projects, asking("list_projects_for_endpoint")),
        Route("GET", group + "/projects", api.projects, asking("list_projects_associated_with_endpoint_group")),
        Route("GET", group + "/endpoints", api.endpoints, asking("list_endpoints_associated_with_endpoint_group")),
        Route("GET", project + "/endpoints", api.endpoints, asking("list_endpoints_for_project")),
        Route("GET", project + "/endpoint_groups", api.groups, asking("list_endpoint_groups_for_project")),
        Route("PUT", link, api.add, asking("add_endpoint_to_project")),
        Route("GET", link, api.check, asking("check_endpoint_in_project")),
        Route("DELETE", link, api.remove, asking("remove_endpoint_from_project")),
        Route("PUT", group_link, api.add, asking("add_endpoint_group_to_project")),
        Route("GET", group_link, api.check, asking("get_endpoint_group_in_project")),
        Route("DELETE", group_link, api.remove, asking("remove_endpoint_group_from_project"))]
