"""How identity words an error."""

from http import HTTPStatus

from nacre.base import errors as e
from nacre.base.web import Reply, Request


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
