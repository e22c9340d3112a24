"""How the compute API words an error."""

from nacre.base import errors as e
from nacre.base.web import Reply, Request

NAMES = {400: "badRequest", 401: "unauthorized", 403: "forbidden", 404: "itemNotFound", 405: "badMethod",
         409: "conflictingRequest", 413: "overLimit", 415: "badMediaType", 429: "overLimit", 501: "notImplemented",
         503: "serviceUnavailable"}

_HTML = """<html>
 <head>
  <title>404 Not Found</title>
 </head>
 <body>
  <h1>404 Not Found</h1>
  The resource could not be found.<br /><br />



 </body>
</html>"""


def render(error: e.NacreError, status: int, request: Request) -> Reply:
    """The answer for `error`: JSON, except for URLs that this API does not have at all."""
    if isinstance(error, e.Unauthenticated):
        return Reply({"error": {"code": 401, "title": "Unauthorized", "message": error.message}}, 401,
                     {"www-authenticate": f'Keystone uri="{request.base_url}/identity/v3"'})
    if isinstance(error, e.NoSuchRoute | e.NotAllowed):
        status = 404
        if not _route_of_another_version(request):
            return Reply(_HTML.encode(), 404, content_type="text/html; charset=UTF-8")
    headers = {"retry-after": "0"} if status == 413 else {}
    return Reply({NAMES.get(status, "computeFault"): {"code": status, "message": error.message}}, status, headers,
                 "application/json; charset=UTF-8")


def _route_of_another_version(request: Request) -> bool:
    service = request.service
    if service is None:
        return False
    inner = request.path[len(service.prefix):] or "/"
    return any(route.method == request.method for route, _ in service.find(inner))
