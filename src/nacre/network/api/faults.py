"""Neutron's words for errors."""

from nacre.base import errors as e
from nacre.base.web import Reply, Request

#: Kinds that carry no name of their own get the one that Neutron's web layer gives them.
_TYPES = {
    "BadRequest": "HTTPBadRequest", "Forbidden": "PolicyNotAuthorized", "NotBuilt": "HTTPNotImplemented",
    "NotFound": "HTTPNotFound", "NoSuchRoute": "HTTPNotFound", "NotAllowed": "HTTPMethodNotAllowed",
    "NacreError": "HTTPInternalServerError", "TooLarge": "HTTPRequestEntityTooLarge", "QuotaExceeded": "OverQuota",
    "PreconditionFailed": "RevisionNumberConstraintFailed", "Conflict": "HTTPConflict",
    "Unavailable": "HTTPServiceUnavailable",
}
#: Where this API differs from base/web.py.
STATUSES: dict[type[e.NacreError], int] = {e.QuotaExceeded: 409}


def fault(error: e.NacreError, status: int, request: Request) -> Reply:
    """An error as the network API shows it; a missing token as every OpenStack API shows it."""
    if status == 401:
        return Reply({"error": {"code": 401, "title": "Unauthorized", "message": error.message}}, 401,
                     {"WWW-Authenticate": f'Keystone uri="{request.base_url}/identity"'})
    return Reply({"NeutronError": {"type": _TYPES.get(error.type, error.type), "message": error.message,
                                   "detail": ""}}, status)
