"""/v3/domains/{domain_id}/config: options that a domain may keep. They are only kept: users live in the database."""

from typing import Any

import sqlalchemy as sa

from nacre.base.errors import BadRequest, Forbidden, NotFound
from nacre.base.serving.gate import Subject
from nacre.base.web import Reply, Request, Route
from nacre.identity import tables as t
from nacre.identity.api.providers import Providers, asking
from nacre.identity.records import DOMAIN, get

Config = dict[str, dict[str, Any]]

#: The options that a domain may set, as Keystone knows them, and what they are without.
DEFAULTS: Config = {
    "identity": {"driver": "sql", "list_limit": None},
    "ldap": {"url": "ldap://localhost", "user": None, "suffix": "cn=example,cn=com", "query_scope": "one",
             "page_size": 0, "user_tree_dn": None, "user_objectclass": "inetOrgPerson", "user_id_attribute": "cn",
             "user_name_attribute": "sn", "group_tree_dn": None, "group_objectclass": "groupOfNames",
             "tls_cacertfile": None, "use_tls": False, "tls_req_cert": "demand"},
    "security_compliance": {"password_regex": None, "password_regex_description": None}}
UNSUPPORTED = "Invalid domain specific configuration: {} is not supported for domain specific configurations."


def check(config: Any, group: str | None = None, option: str | None = None) -> Config:
    """A given configuration. Raises BadRequest for its shape, Forbidden for what cannot be set."""
    if option is not None and isinstance(config, dict) and group not in config:
        config = {group: config}  # for one option, Keystone takes it without its group too
    if not isinstance(config, dict) or not config:
        raise BadRequest("Invalid input for field config: an object of groups of options.", field="config")
    for name, options in config.items():
        if name not in DEFAULTS:
            raise Forbidden(UNSUPPORTED.format(f"Group {name}"))
        if not isinstance(options, dict) or not options:
            raise BadRequest(f"Invalid input for field config.{name}: an object of options.", field=name)
        for key in options:
            if key not in DEFAULTS[name]:
                raise Forbidden(UNSUPPORTED.format(f"Option {key} in group {name}"))
    if group is not None and (set(config) != {group} or (option is not None and set(config[group]) != {option})):
        raise Forbidden("Invalid domain specific configuration: the body holds more or other than the URL names.")
    return config


def part(config: Config, request: Request) -> Any:
    """What of a configuration the URL names. Raises NotFound."""
    group, option = request.params.get("group"), request.params.get("option")
    if group is None and config:
        return config
    if option is None and group in config:
        return {group: config[group]}
    if option is not None and group is not None and option in config.get(group, {}):
        return {option: config[group][option]}
    named = f"option {option} in group {group}" if option else f"group {group}" if group else "any options"
    raise NotFound(f"Could not find {named} in domain configuration for domain"
                   f" {request.params.get('domain_id', 'default')}.")


class DomainConfig:
    """Handlers; the same ones for all of it, a group, or an option."""

    def __init__(self, providers: Providers):
        self._providers, self._store = providers, providers.store

    async def defaults(self, request: Request) -> Any:
        known = {k: v for k, v in DEFAULTS.items() if k != "security_compliance"}
        return {"config": part(known, request)}

    async def show(self, request: Request) -> Any:
        held = await self._store.read(lambda conn: _held(conn, request.params["domain_id"]))
        return {"config": part(held, request)}

    async def create(self, request: Request) -> Reply:
        config, id = check(request.body["config"]), request.params["domain_id"]

        def unit(conn: sa.Connection) -> bool:
            new = not _held(conn, id)
            _keep(conn, id, config)
            return new
        return Reply({"config": config}, 201 if await self._store.write(unit) else 200)

    async def update(self, request: Request) -> Any:
        id, group, option = (request.params.get(k) for k in ("domain_id", "group", "option"))
        config = check(request.body["config"], group, option)

        def unit(conn: sa.Connection) -> Config:
            held = _held(conn, id or "")
            if group is not None:
                part(held, request)
            new = {name: {**held.get(name, {}), **config.get(name, {})} for name in {**held, **config}}
            _keep(conn, id or "", new)
            return new
        return {"config": await self._store.write(unit)}

    async def delete(self, request: Request) -> Reply:
        id, group, option = (request.params.get(k) for k in ("domain_id", "group", "option"))

        def unit(conn: sa.Connection) -> None:
            held = _held(conn, id or "")
            part(held, request)
            if group is None:
                held = {}
            elif option is None:
                held.pop(group)
            else:
                held[group].pop(option)
            _keep(conn, id or "", {name: options for name, options in held.items() if options})
        await self._store.write(unit)
        return Reply(None, 204)


def _held(conn: sa.Connection, domain_id: str) -> Config:
    get(conn, DOMAIN, domain_id)
    d = t.documents.c
    return conn.scalar(sa.select(d.extra).where(d.kind == "domain_config", d.id == domain_id)) or {}


def _keep(conn: sa.Connection, domain_id: str, config: Config) -> None:
    d = t.documents
    conn.execute(sa.delete(d).where(d.c.kind == "domain_config", d.c.id == domain_id))
    if config:
        conn.execute(sa.insert(d).values(kind="domain_config", id=domain_id, extra=config))


def _body(request: Request, body: Any) -> Any:
    if not isinstance(body, dict) or "config" not in body:
        raise BadRequest("Expecting to find config in the request's body.", field="config")
    return body


def routes(providers: Providers) -> list[Route]:
    api, found = DomainConfig(providers), []

    async def shown(request: Request) -> Subject:
        open_ = request.params.get("group") == "security_compliance"
        return Subject({}, rule="identity:get_security_compliance_domain_config" if open_ else None)

    for rest in ("", "/{group}", "/{group}/{option}"):
        path = "/v3/domains/{domain_id}/config" + rest
        see = asking("get_domain_config", *(["get_security_compliance_domain_config"] if rest else []), about=shown)
        found += [Route("GET", f"/v3/domains/config{rest}/default", api.defaults, asking("get_domain_config_default")),
                  Route("GET", path, api.show, see),
                  Route("PATCH", path, api.update, asking("update_domain_config"), body=_body),
                  Route("DELETE", path, api.delete, asking("delete_domain_config"))]
    return [*found, Route("PUT", "/v3/domains/{domain_id}/config", api.create, asking("create_domain_config"),
                          body=_body)]
