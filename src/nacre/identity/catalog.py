"""The catalog of a token: enabled services and endpoints, with the project's id filled in where a URL asks for it.

And the first rows, without which nobody could ask for any.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.base.clock import RealClock
from nacre.base.db import Database, statements
from nacre.identity import tables as t
from nacre.identity.passwords import Passwords
from nacre.identity.store import Store

PROJECT_ENDPOINT, PROJECT_GROUP = "project_endpoint", "project_endpoint_group"
_VARIABLE = re.compile(r"[%$]\((\w+)\)s")
IMPLIED = {"admin": "manager", "manager": "member", "member": "reader"}
ROLES = ("admin", "manager", "member", "reader", "service")
#: Each service's name, by which some clients look for it, and its path.
PATHS = {"identity": ("keystone", "/identity"), "image": ("glance", "/image"),
         "compute": ("nova", "/compute/v2.1"), "network": ("neutron", "/network"),
         "placement": ("placement", "/placement")}

_S, _E, _D = t.services.c, t.endpoints.c, t.documents.c
_ENABLED = sa.select(_E.id, _E.interface, _E.region_id, _E.enabled, _E.url, _S.id.label("service_id"), _S.type,
                     _S.extra).outerjoin_from(
    t.services, t.endpoints, sa.and_(_E.service_id == _S.id, _E.enabled)).where(
        _S.enabled).order_by(_S.type, _S.id, _E.id)
#: A project's id holds no wildcard (it is 32 hexadecimal digits, or "default"): no escaping is needed.
_CHOSEN = sa.select(_D.kind, _D.extra).where(
    _D.kind.in_((PROJECT_ENDPOINT, PROJECT_GROUP)), _D.id.like(sa.bindparam("links")))


def rows(conn: sa.Connection, project_id: str | None = None) -> list[dict[str, Any]]:
    """Every enabled endpoint with its service, as far as the project may see it; a service without one has a row too,
    whose endpoint's columns are None."""
    wanted = chosen(conn, project_id) if project_id else None
    found = [dict(r) for r in conn.execute(_ENABLED).mappings()]
    return [r for r in found if wanted is None or wanted(r)]


def chosen(conn: sa.Connection, project_id: str) -> Callable[[Mapping[str, Any]], bool] | None:
    """Which endpoints were chosen for a project; None if no choice was made."""
    links = conn.execute(_CHOSEN, {"links": f"{project_id}/%"}).all()
    if not links:
        return None
    ids = {x["other_id"] for kind, x in links if kind == PROJECT_ENDPOINT}
    groups = [x["other_id"] for kind, x in links if kind == PROJECT_GROUP]
    filters = [g["filters"] for g in conn.scalars(
        sa.select(_D.extra).where(_D.kind == "endpoint_group", _D.id.in_(groups)))]
    return lambda row: row["id"] in ids or any(fits(f, row) for f in filters)


def unlink(conn: sa.Connection, gone: str) -> None:
    """Forget the choices of or for a project, endpoint or group that is no more."""
    d = t.documents.c
    conn.execute(sa.delete(t.documents).where(d.kind.in_((PROJECT_ENDPOINT, PROJECT_GROUP)), sa.or_(
        d.id.startswith(f"{gone}/", autoescape=True), d.id.endswith(f"/{gone}", autoescape=True))))


def fits(filters: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether an endpoint is one of a group's."""
    return all(str(row[k]).lower() == str(v).lower() for k, v in filters.items())


def service_providers(conn: sa.Connection) -> list[dict[str, str]]:
    """The enabled clouds that trust this one, as tokens name them."""
    found = [d["extra"] for d in statements.find(conn, t.documents, ("id",), kind="service_provider")]
    return [{k: p[k] for k in ("id", "auth_url", "sp_url")} for p in found if p["enabled"]]


def catalog(endpoints: list[dict[str, Any]], user_id: str, project_id: str | None) -> list[dict[str, Any]]:
    """The catalog as tokens carry it. An endpoint whose URL needs a project is left out of other tokens."""
    known = {"user_id": user_id, "project_id": project_id, "tenant_id": project_id}
    services: dict[str, dict[str, Any]] = {}
    for row in endpoints:
        service = services.setdefault(row["service_id"], {
            "id": row["service_id"], "type": row["type"], "name": row["extra"].get("name") or "", "endpoints": []})
        names = _VARIABLE.findall(row["url"] or "")
        if row["url"] is None or any(known.get(n) is None for n in names):
            continue
        service["endpoints"].append({
            "id": row["id"], "interface": row["interface"], "region_id": row["region_id"], "region": row["region_id"],
            "url": _VARIABLE.sub(lambda m: str(known[m[1]]), row["url"])})
    return list(services.values())


class First(msgspec.Struct, frozen=True, kw_only=True):
    """What the first rows are made from. base_url: where clients reach the API, without a closing slash.

    passwords: of the users admin, demo, demo-alt and service; a user without one is not made. follow: endpoints that
    are there get the base_url too.
    """

    base_url: str
    passwords: Mapping[str, str]
    region: str = "RegionOne"
    follow: bool = True


async def users(db: Database) -> set[str]:
    """The names of the default domain's users."""
    return await db.read(lambda conn: set(conn.scalars(
        sa.select(t.users.c.name).where(t.users.c.domain_id == "default"))))


async def bootstrap(db: Database, first: First, passwords: Passwords | None = None) -> None:
    """Domain, projects, roles, users, assignments, services and endpoints. Idempotent."""
    passwords = passwords or Passwords()
    there = await users(db)
    hashes = {name: await passwords.hash(text) for name, text in first.passwords.items() if name not in there}
    await Store(db, RealClock()).write(lambda conn: _rows(conn, first, hashes))


def _rows(conn: sa.Connection, first: First, hashes: Mapping[str, str]) -> None:
    _once(conn, t.projects, {"id": "default"}, {
        "domain_id": "", "parent_id": None, "name": "Default", "is_domain": True, "enabled": True,
        "extra": {"description": "The default domain"}})
    projects = {name: _once(conn, t.projects, {"domain_id": "default", "name": name}, {
        "id": uuid.uuid4().hex, "parent_id": "default", "is_domain": False, "enabled": True, "extra": {}})
        for name in ("admin", "demo", "demo-alt", "service")}
    roles = {name: _once(conn, t.roles, {"domain_id": "", "name": name}, {"id": uuid.uuid4().hex, "extra": {}})
             for name in ROLES}
    for prior, implied in IMPLIED.items():
        _once(conn, t.implied_roles, {"prior_id": roles[prior], "implied_id": roles[implied]}, {})
    for name, stored in hashes.items():
        _user(conn, name, stored, projects, roles)
    _catalog(conn, first)


def _user(conn: sa.Connection, name: str, stored: str, projects: dict[str, str], roles: dict[str, str]) -> None:
    id = _once(conn, t.users, {"domain_id": "default", "name": name}, {
        "id": uuid.uuid4().hex, "enabled": True, "default_project_id": None, "password_hash": stored,
        "extra": {}})
    if name == "admin":
        wanted = [("project", projects["admin"], "admin"), ("domain", "default", "admin"), ("system", "all", "admin")]
    elif name == "service":
        wanted = [("project", projects["service"], "service"), ("project", projects["service"], "admin")]
    else:
        wanted = [("project", projects[name], "member")] if name in projects else []
    for kind, target, role in wanted:
        _once(conn, t.assignments, {"actor_type": "user", "actor_id": id, "target_type": kind, "target_id": target,
                                    "role_id": roles[role], "inherited": False}, {})


def _catalog(conn: sa.Connection, first: First) -> None:
    _once(conn, t.regions, {"id": first.region}, {"parent_region_id": None, "extra": {}})
    for kind, (name, path) in PATHS.items():
        service = _once(conn, t.services, {"type": kind}, {
            "id": uuid.uuid4().hex, "enabled": True, "extra": {"name": name}})
        for interface in ("public", "internal", "admin"):
            id = _once(conn, t.endpoints, {"service_id": service, "interface": interface, "region_id": first.region}, {
                "id": uuid.uuid4().hex, "url": "", "enabled": True, "extra": {}})
            empty = () if first.follow else (t.endpoints.c.url == "",)
            conn.execute(sa.update(t.endpoints).where(t.endpoints.c.id == id, *empty).values(url=first.base_url + path))


def _once(conn: sa.Connection, table: sa.Table, key: Mapping[str, Any], rest: Mapping[str, Any]) -> str:
    """The id of the row of that key, made if it is not there."""
    found = conn.execute(sa.select(table).where(*(table.c[k] == v for k, v in key.items()))).mappings().first()
    row: Mapping[Any, Any] = found if found is not None else {**key, **rest}
    if found is None:
        conn.execute(sa.insert(table).values({**key, **rest}))
    return str(row.get("id", ""))
