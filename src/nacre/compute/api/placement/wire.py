"""How placement speaks: its microversions, and how it words an error."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from nacre.base import errors as e
from nacre.base.web import Reply, Request, Version

MINIMUM: Version = (1, 0)
MAXIMUM: Version = (1, 39)
_HEADER = "openstack-api-version"
_FORM = re.compile(r"(\d{1,4})\.(\d{1,4})", re.ASCII)


def text(version: Version) -> str:
    """`1.39`."""
    return f"{version[0]}.{version[1]}"


class Microversions:
    """The placement service's `Negotiator`."""

    def asked(self, headers: Mapping[str, str]) -> str | None:
        """The version as the client wrote it, or None."""
        for part in headers.get(_HEADER, "").split(","):
            service, _, version = part.strip().partition(" ")
            if service.lower() == "placement":
                return version.strip()
        return None

    def pick(self, headers: Mapping[str, str]) -> Version:
        """The version to speak. Raises BadRequest for no version at all, NotAcceptable for one out of range."""
        asked = self.asked(headers)
        if asked is None:
            return MINIMUM
        if asked == "latest":
            return MAXIMUM
        if not (form := _FORM.fullmatch(asked)):
            raise e.BadRequest(f"invalid version string: {asked[:64]}")
        version = int(form[1]), int(form[2])
        if not MINIMUM <= version <= MAXIMUM:
            raise e.NotAcceptable(f"Unacceptable version header: {asked}")
        return version

    def headers(self, version: Version | None, asked: str | None) -> list[tuple[str, str]]:
        """What the answer says: the version spoken."""
        if version is None or version < MINIMUM:
            return []
        return [(_HEADER, f"placement {text(version)}"), ("vary", "OpenStack-API-Version")]


def fault(error: e.NacreError, status: int, request: Request) -> Reply:
    """An error as the API working group wants it."""
    found: dict[str, Any] = {"status": status, "title": HTTPStatus(status).phrase, "detail": error.message,
                             "request_id": request.request_id}
    if request.version >= (1, 23):
        found["code"] = "placement.undefined_code"
    if status == 406:
        found |= {"max_version": text(MAXIMUM), "min_version": text(MINIMUM)}
    headers = {"www-authenticate": f'Keystone uri="{request.base_url}/identity/v3"'} if status == 401 else {}
    return Reply({"errors": [found]}, status, headers)
