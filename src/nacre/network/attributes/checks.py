"""Checks of single attribute values: each takes what the client sent and returns what is kept.

A bad value raises ValueError with the reason; the caller says which attribute it was.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

from oslo_utils.uuidutils import is_uuid_like

Check = Callable[[Any], Any]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_OPTION_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
#: The most entries a client may put in one list (routes, pools, pairs, options ...).
MAX_ITEMS = 100


def text(limit: int, *, lines: bool = True) -> Check:
    """A string of at most `limit` characters; lines=False refuses control characters, newlines among them."""
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"'{value}' is not a valid string")
        if len(value) > limit:
            raise ValueError(f"'{value[:64]}...' exceeds maximum length of {limit}")
        if "\x00" in value or (not lines and _CONTROL.search(value)):
            raise ValueError("it contains control characters")
        return value
    return check


name = text(255)


def not_empty(value: Any) -> str:
    if not name(value).strip():
        raise ValueError("a blank name is not permitted")
    return str(value)


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word in ("true", "1"):
        return True
    if word in ("false", "0"):
        return False
    raise ValueError(f"'{value}' cannot be converted to boolean")


def number(low: int, high: int = 2**31 - 1) -> Check:
    """An integer (or its digits) between low and high."""
    def check(value: Any) -> int:
        try:
            if isinstance(value, bool | float):
                raise ValueError
            found = int(value)
        except (TypeError, ValueError):
            raise ValueError(f"'{value}' is not an integer") from None
        if not low <= found <= high:
            raise ValueError(f"'{value}' is not between {low} and {high}")
        return found
    return check


def one_of(*values: Any) -> Check:
    def check(value: Any) -> Any:
        # Not `in`: True == 1, and unhashable values must not crash.
        if not any(value is v or (isinstance(value, str | int) and not isinstance(value, bool) and value == v)
                   for v in values):
            raise ValueError(f"'{value}' is not in {list(values)}")
        return value
    return check


def maybe(check: Check) -> Check:
    """The check, or None."""
    return lambda value: None if value is None else check(value)


def host(value: Any) -> str:
    """A host's name."""
    found: str = text(255, lines=False)(value)
    if not found:
        raise ValueError("a blank host is not permitted")
    return found


def uuid_(value: Any) -> str:
    if not isinstance(value, str) or len(value) not in (32, 36) or not is_uuid_like(value):
        raise ValueError(f"'{value}' is not a valid UUID")
    return value


def ip(value: Any) -> str:
    """An IPv4 or IPv6 address, in its canonical form (no leading zeros, no zone)."""
    try:
        if not isinstance(value, str) or "%" in value:
            raise ValueError
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f"'{value}' is not a valid IP address") from None


def cidr(value: Any) -> str:
    """A network in CIDR notation; host bits are cleared."""
    try:
        if not isinstance(value, str) or "%" in value or "/" not in value or "." in value.rpartition("/")[2]:
            raise ValueError
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise ValueError(f"'{value}' is not a valid IP subnet") from None


def subnet_cidr(value: Any) -> str:
    """As `cidr`, for a subnet of a network."""
    return cidr(value)


def mac(value: Any) -> str:
    """A MAC address, in lower case with colons. As in Neutron a multicast one passes; no hypervisor boots with it."""
    found = str(value).lower().replace("-", ":")
    if not isinstance(value, str) or not _MAC.fullmatch(found) or found == "00:00:00:00:00:00":
        raise ValueError(f"'{value}' is not a valid MAC address")
    return found


def listing(item: Check, *, limit: int = MAX_ITEMS, unique: bool = False) -> Check:
    """A list of what `item` takes; None counts as the empty list."""
    def check(value: Any) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            raise ValueError(f"'{value}' is not a list")
        if len(value) > limit:
            raise ValueError(f"it has {len(value)} entries, more than {limit}")
        found = [item(v) for v in value]
        if unique and (twice := _duplicate(found)) is not None:
            raise ValueError(f"Duplicate items in the list: '{twice}'")
        return found
    return check


def _duplicate(values: Iterable[Any]) -> Any:
    seen: list[Any] = []
    for value in values:
        if value in seen:
            return value
        seen.append(value)
    return None


def mapping(fields: dict[str, Check], required: Iterable[str] = ()) -> Check:
    """An object with these keys and no other."""
    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"'{value}' is not a dictionary")
        if unknown := sorted(set(value) - set(fields)):
            raise ValueError(f"unexpected keys supplied: {', '.join(map(str, unknown))[:200]}")
        if missing := sorted(set(required) - set(value)):
            raise ValueError(f"expected keys not found: {', '.join(missing)}")
        found = {}
        for key, given in value.items():
            try:
                found[key] = fields[key](given)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
        return found
    return check


def pool(value: Any) -> dict[str, str]:
    found: dict[str, str] = mapping({"start": ip, "end": ip}, ("start", "end"))(value)
    return found


pools = listing(pool)
nameservers = listing(ip, limit=20, unique=True)
route = mapping({"destination": cidr, "nexthop": ip}, ("destination", "nexthop"))
host_routes = listing(route, limit=40, unique=True)
cidrs = listing(cidr, limit=1000, unique=True)
uuids = listing(uuid_, limit=200)


def groups(value: Any) -> list[str]:
    """Security groups' ids, each once."""
    found: list[str] = listing(uuid_, limit=200, unique=True)(value)
    return found


def fixed_ips(value: Any) -> list[dict[str, str]]:
    found: list[dict[str, str]] = listing(mapping({"subnet_id": uuid_, "ip_address": ip}), limit=50)(value)
    given = [f["ip_address"] for f in found if "ip_address" in f]
    if (twice := _duplicate(given)) is not None:
        raise ValueError(f"Duplicate IP address '{twice}'")
    return found


def _pair_address(value: Any) -> str:
    found = cidr(value) if isinstance(value, str) and "/" in value else ip(value)
    return found


def address_pairs(value: Any) -> list[dict[str, str]]:
    """Allowed address pairs: ip_address (an address or a network), mac_address."""
    found: list[dict[str, str]] = listing(
        mapping({"ip_address": _pair_address, "mac_address": mac}, ("ip_address",)), limit=50)(value)
    if (twice := _duplicate(found)) is not None:
        raise ValueError(f"Duplicate address pair {twice}")
    return found


def _option_name(value: Any) -> str:
    if not isinstance(value, str) or not _OPTION_NAME.fullmatch(value):
        raise ValueError(f"'{value}' is not a DHCP option's name or number")
    return value


def _option_version(value: Any) -> int:
    found: int = one_of(4, 6)(int(value) if isinstance(value, str) and value.isdigit() else value)
    return found


def dhcp_options(value: Any) -> list[dict[str, Any]]:
    """Extra DHCP options. They end up in a configuration file of the host: control characters are refused."""
    found: list[dict[str, Any]] = listing(mapping({
        "opt_name": _option_name, "opt_value": maybe(text(255, lines=False)), "ip_version": _option_version,
    }, ("opt_name", "opt_value")))(value)
    for option in found:
        if option["opt_value"] == "":
            raise ValueError("opt_value: a blank value is not permitted")
        option.setdefault("ip_version", 4)
    return found


def dns_host(value: Any) -> str:
    """A host name or FQDN, in lower case."""
    return _dns(text(255, lines=False)(value).lower(), closing_dot=True)


def dns_domain(value: Any) -> str:
    return _dns(text(255, lines=False)(value).lower(), closing_dot=True)


def _dns(value: str, closing_dot: bool) -> str:
    bare = value[:-1] if closing_dot and value.endswith(".") else value
    if bare and not all(_LABEL.fullmatch(label) for label in bare.split(".")):
        raise ValueError(f"'{value}' is not a valid DNS name")
    return value


def anything(value: Any) -> Any:
    return value


def profile(value: Any) -> dict[str, Any]:
    """A small JSON object."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"'{value}' is not a dictionary")
    if len(str(value)) > 4095:
        raise ValueError("it is longer than 4095 characters")
    return value


def tag(value: Any) -> str:
    found: str = text(255)(value)
    if not found or "/" in found:
        raise ValueError(f"'{found}' is not a valid tag: it must not be empty nor contain '/'")
    return found


def tags(value: Any) -> list[str]:
    return sorted(set(listing(tag, limit=50)(value)))
