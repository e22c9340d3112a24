"""OAuth 1.0a signatures (RFC 5849): pure functions from a request to the signature that it should carry."""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote, urlsplit

from nacre.base.errors import BadRequest

DIGESTS = {"HMAC-SHA1": hashlib.sha1, "HMAC-SHA256": hashlib.sha256}
DEFAULT_PORTS = {"http": 80, "https": 443}


def parameters(header: str | None) -> dict[str, str]:
    """The `oauth_` parameters of an Authorization header. Raises BadRequest where there are none to read."""
    scheme, _, rest = (header or "").partition(" ")
    if scheme.lower() != "oauth":
        raise BadRequest("Expecting an OAuth Authorization header.", field="Authorization")
    found: dict[str, str] = {}
    for part in rest.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals:
            raise BadRequest("Malformed OAuth Authorization header.", field="Authorization")
        if name in found:
            raise BadRequest(f"{name} is in the Authorization header twice.", field="Authorization")
        found[unquote(name)] = unquote(value.strip('"'))
    return found


def signature(method: str, url: str, given: Iterable[tuple[str, str]], secrets: tuple[str, str],
              how: str = "HMAC-SHA1") -> str:
    """What `oauth_signature` should be. given: all parameters, of header and query; secrets: consumer's, token's."""
    pairs = sorted((_escape(k), _escape(v)) for k, v in given if k not in ("oauth_signature", "realm"))
    text = "&".join((method.upper(), _escape(_plain(url)), _escape("&".join(f"{k}={v}" for k, v in pairs))))
    key = "&".join(_escape(s) for s in secrets)
    return base64.b64encode(hmac.new(key.encode(), text.encode(), DIGESTS[how]).digest()).decode()


def is_signed(method: str, url: str, given: Mapping[str, str], query: Iterable[tuple[str, str]],
              secrets: tuple[str, str]) -> bool:
    """Whether the parameters carry the right signature, by a method that we take."""
    how = given.get("oauth_signature_method", "")
    if how not in DIGESTS:
        return False
    wanted = signature(method, url, [*given.items(), *query], secrets, how)
    return hmac.compare_digest(wanted.encode(), given.get("oauth_signature", "").encode())


def _escape(text: str) -> str:
    return quote(text, safe="~")


def _plain(url: str) -> str:
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = "" if parts.port in (None, DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme.lower()}://{host}{port}{parts.path}"
