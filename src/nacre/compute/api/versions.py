"""The documents that say which versions are spoken. No token needed."""

from typing import Any

from nacre.base.serving.gate import PUBLIC
from nacre.base.web import Request, Route
from nacre.compute.api.microversions import MAXIMUM, MINIMUM, text

_MEDIA = [{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}]


def _v20(request: Request) -> dict[str, Any]:
    return {"id": "v2.0", "status": "DEPRECATED", "version": "", "min_version": "", "updated": "2011-01-21T11:33:21Z",
            "links": [{"rel": "self", "href": f"{request.service_url}/v2/"}]}


def _v21(request: Request) -> dict[str, Any]:
    return {"id": "v2.1", "status": "CURRENT", "version": text(MAXIMUM), "min_version": text(MINIMUM),
            "updated": "2013-07-23T11:33:21Z", "links": [{"rel": "self", "href": f"{request.service_url}/v2.1/"}]}


def _document(version: dict[str, Any]) -> dict[str, Any]:
    version["links"].append({"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"})
    return {"version": {**version, "media-types": _MEDIA}}


async def index(request: Request) -> Any:
    """GET /: every version. The old v2.0 is named because clients look for it first; only its document is there."""
    return {"versions": [_v20(request), _v21(request)]}


async def show_v20(request: Request) -> Any:
    """GET /v2: the document of the old version."""
    return _document(_v20(request))


async def show_v21(request: Request) -> Any:
    """GET /v2.1: the document of this version."""
    return _document(_v21(request))


ROUTES = [Route("GET", "/", index, PUBLIC), Route("GET", "/v2", show_v20, PUBLIC),
          Route("GET", "/v2.1", show_v21, PUBLIC)]
