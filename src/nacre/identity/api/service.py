"""The identity API as a service: every route, and the documents that clients find it by."""

from dataclasses import replace
from http import HTTPStatus
from typing import Any

from nacre.base import errors as e
from nacre.base.serving.gate import PUBLIC
from nacre.base.web import Reply, Request, Route, Service
from nacre.identity.api import assignments, auth, catalog, domains, grants, groups, projects, roles, users
from nacre.identity.api.answers import url
from nacre.identity.api.extensions import (
    application_credentials,
    credentials,
    documents,
    domain_config,
    endpoint_filter,
    limits,
    oauth1,
    trusts,
)
from nacre.identity.api.providers import Providers, UserLimits, refused
from nacre.identity.api.validation import bounded
from nacre.identity.keys.vault import Vault
from nacre.identity.service import IdentityService

PREFIX = "/identity"
PARTS = (users, groups, projects, domains, roles, grants, assignments, catalog, credentials,
         application_credentials, trusts, domain_config, documents, limits, endpoint_filter, oauth1)


def fault(error: e.NacreError, status: int, request: Request) -> Reply:
    """Keystone's error body, and where to authenticate with a 401."""
    headers = {"Vary": "X-Auth-Token"}
    if status == 401:
        headers["WWW-Authenticate"] = f'Keystone uri="{request.service_url}/v3"'
    message = error.message
    if isinstance(error, e.Unauthenticated):
        message = e.Unauthenticated.default  # never which part of the proof was wrong
    title = HTTPStatus(status).phrase
    return Reply({"error": {"code": status, "message": message, "title": title}}, status, headers)


def _version(root: str) -> dict[str, Any]:
    return {"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
            "links": [{"rel": "self", "href": root + "/"}],
            "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}]}


async def versions(request: Request) -> Reply:
    """GET /identity/, and of the whole cloud: whoever knows no more than the port asks where to log in."""
    root = request.base_url + PREFIX + "/v3"
    headers = {"Location": root + "/", "Vary": "X-Auth-Token"}
    return Reply({"versions": {"values": [_version(root)]}}, 300, headers)


async def version(request: Request) -> Reply:
    """GET /identity/v3."""
    return Reply({"version": _version(url(request))}, 200, {"Vary": "X-Auth-Token"})


def service(identity: IdentityService, vault: Vault, limits: UserLimits = UserLimits()) -> Service:
    """The identity API under /identity. vault: encrypts the secrets that it must be able to read again."""
    providers = Providers(identity, vault, limits)
    found = [Route("GET", "/", versions, PUBLIC), Route("GET", "/v3", version, PUBLIC)]
    found += auth.routes(providers, oauth1.Dance(providers).login)
    for part in PARTS:
        found += part.routes(providers)
    found = [replace(route, body=bounded(route.body)) if route.body else route for route in found]
    return Service("identity", PREFIX, found, fault, refusal=refused)


def front() -> Service:
    """What the cloud's port answers where no service is named: the versions of the identity API."""
    return Service("front", "/", [Route("GET", "/", versions, PUBLIC)], fault)
