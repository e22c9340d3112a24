"""Quotas: limits per project, what is used, and the defaults."""

from typing import Any

import sqlalchemy as sa

from nacre.base.context import Context
from nacre.base.errors import BadRequest
from nacre.base.serving.gate import AUTHENTICATED, EVERYBODY, Gate, Subject, asks, stated
from nacre.base.web import Reply, Request, Route
from nacre.network import tables as t
from nacre.network.manager import NetworkManager
from nacre.network.nouns import checks
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.work import COUNTED, DEFAULT_QUOTAS, Work


class Quotas:
    """/v2.0/quotas."""

    def __init__(self, manager: NetworkManager):
        self._manager = manager

    def routes(self) -> list[Route]:
        one = "/v2.0/quotas/{id}"
        see = asks("get_quota", about=_seen)
        all_ = asks("get_quota", about=stated(lambda request: {}))  # all projects' at once: nobody's own

        def write(verb: str) -> Gate:
            return asks(f"{verb}_quota", about=stated(lambda request: {"project_id": request.params["id"]}))

        return [Route("GET", "/v2.0/quotas", self.index, all_),
                Route("GET", "/v2.0/quotas/tenant", self.tenant, AUTHENTICATED),
                Route("GET", "/v2.0/quotas/project", self.tenant, AUTHENTICATED), Route("GET", one, self.show, see),
                Route("GET", f"{one}/details", self.details, see),
                Route("GET", f"{one}/details.json", self.details, see),
                Route("GET", f"{one}/default", self.default, see),
                Route("PUT", one, self.update, write("update"), body=_limits),
                Route("DELETE", one, self.delete, write("delete"))]

    def _limits(self, work: Work, project_id: str) -> dict[str, int]:
        rows = work.rows(sa.select(t.quotas).where(t.quotas.c.project_id == project_id))
        return {**DEFAULT_QUOTAS, **work.settings.quotas, **{r["resource"]: r["limit"] for r in rows}}

    async def index(self, request: Request) -> View:
        def step(work: Work) -> list[View]:
            projects = sorted(set(work.conn.execute(sa.select(t.quotas.c.project_id)).scalars()))
            return [{"tenant_id": p, "project_id": p, **self._limits(work, p)} for p in projects]

        return {"quotas": await self._manager.read(request.context, step)}

    async def tenant(self, request: Request) -> View:
        project = request.context.project_id or ""
        return {"tenant": {"tenant_id": project, "project_id": project}}

    async def show(self, request: Request) -> View:
        project = request.params["id"]
        return {"quota": await self._manager.read(request.context, lambda work: self._limits(work, project))}

    async def default(self, request: Request) -> View:
        return {"quota": {**DEFAULT_QUOTAS, **self._manager.settings.quotas}}

    async def details(self, request: Request) -> View:
        project = request.params["id"]

        def step(work: Work) -> View:
            return {name: {"limit": limit, "used": work.used(name, project), "reserved": 0}
                    for name, limit in self._limits(work, project).items() if name in COUNTED}

        return {"quota": await self._manager.read(request.context, step)}

    async def update(self, request: Request) -> View:
        project, body = request.params["id"], dict(request.body)
        body.pop("check_limit", None)  # as Neutron by now: what is used is looked at unless one forces it
        if not body.pop("force", False):
            await self._check_used(request.context, project, body)

        def step(work: Work) -> dict[str, int]:
            q = t.quotas.c
            work.conn.execute(sa.delete(t.quotas).where(q.project_id == project, q.resource.in_(list(body))))
            if body:
                work.conn.execute(sa.insert(t.quotas), [
                    {"project_id": project, "resource": k, "limit": v} for k, v in body.items()])
            return self._limits(work, project)

        return {"quota": await self._manager.write(request.context, step)}

    async def _check_used(self, context: Context, project: str, limits: dict[str, int]) -> None:
        def step(work: Work) -> list[str]:
            return [k for k, v in limits.items() if 0 <= v < work.used(k, project)]

        if over := await self._manager.read(context, step):
            raise BadRequest(f"Quota limit for {over[0]} is below what is used.", field=over[0],
                             type="QuotaLimitTooLow")

    async def delete(self, request: Request) -> Reply:
        await self._manager.write(request.context, lambda work: work.conn.execute(
            sa.delete(t.quotas).where(t.quotas.c.project_id == request.params["id"])).rowcount)
        return Reply(status=204)


async def _seen(request: Request) -> Subject:
    """Whose limits. A project may always see its own: clients show them to every user."""
    project = request.params["id"]
    return Subject({"project_id": project}, rule=EVERYBODY if project == request.context.project_id else None)


def _limits(request: Request, body: Any) -> Attributes:
    given = body.get("quota") if isinstance(body, dict) else None
    if not isinstance(given, dict):
        raise BadRequest("Unable to find 'quota' in request body", field="quota")
    flags = ("force", "check_limit")
    if unknown := [k for k in given if k not in COUNTED and k not in (*flags, "tenant_id", "project_id")]:
        raise BadRequest(f"Unrecognized attribute(s) '{', '.join(unknown)[:200]}'", field=unknown[0])
    found: Attributes = {}
    for name, value in given.items():
        if name in ("tenant_id", "project_id"):
            continue
        try:
            found[name] = checks.boolean(value) if name in flags else checks.number(-1)(value)
        except ValueError as error:
            raise BadRequest(f"Invalid input for {name}. Reason: {error}.", field=name) from None
    return found
