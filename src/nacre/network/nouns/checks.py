"""Checks of single attribute values: each takes what the client sent and returns what is kept.

A bad value raises ValueError with the reason; the caller says which attribute it was.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

import netaddr
from oslo_utils.strutils import bool_from_string
from oslo_utils.uuidutils import is_uuid_like

Check = Callable[[Any], Any]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
#: The most entries a client may put in one list (routes, pools, pairs, options ...).
MAX_ITEMS = 100


def shown(value: Any) -> str:
    """As much of a bad value as an answer repeats."""
    return str(value)[:64]


def text(limit: int, *, lines: bool = True) -> Check:
    """A string of at most `limit` characters; lines=False refuses control characters, newlines among them."""
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"'{shown(value)}' is not a valid string")
        if len(value) > limit:
            raise ValueError(f"'{shown(value)}...' exceeds maximum length of {limit}")
        if "\x00" in value or (not lines and _CONTROL.search(value)):
            raise ValueError("it contains control characters")
        return value
    return check


def name(value: Any) -> str:
    """A name that can be read: no control characters, no white space at its ends."""
    found: str = text(255)(value)
    if found != found.strip() or not all(c.isprintable() or unicodedata.category(c) == "Zs" for c in found):
        raise ValueError(f"'{shown(found)}' is not a valid string")
    return found


def not_empty(value: Any) -> str:
    if not name(value):
        raise ValueError("a blank name is not permitted")
    return str(value)


def boolean(value: Any) -> bool:
    """A truth value, or one of the words and digits for it."""
    try:
        return bool(bool_from_string(value, strict=True))
    except ValueError:
        raise ValueError(f"'{shown(value)}' cannot be converted to boolean") from None


def integer(value: Any) -> int:
    """An integer, or what Python's int() makes one of: digits in a string, a truth value, a fraction without its rest.
    So does Neutron, and its clients send all of them."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"'{shown(value)}' is not an integer") from None


def number(low: int, high: int = 2**31 - 1) -> Check:
    """As `integer`, between low and high."""
    def check(value: Any) -> int:
        found = integer(value)
        if not low <= found <= high:
            raise ValueError(f"'{shown(found)}' is not between {low} and {high}")
        return found
    return check


def ip_version(value: Any) -> int:
    found: int = one_of(4, 6)(integer(value))
    return found


def one_of(*values: Any) -> Check:
    def check(value: Any) -> Any:
        # Not `in`: True == 1, and unhashable values must not crash.
        if not any(value is v or (isinstance(value, str | int) and not isinstance(value, bool) and value == v)
                   for v in values):
            raise ValueError(f"'{shown(value)}' is not in {list(values)}")
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
        raise ValueError(f"'{shown(value)}' is not a valid UUID")
    return value


def ip(value: Any) -> str:
    """An IPv4 or IPv6 address, in its canonical form (no leading zeros, no zone)."""
    try:
        if not isinstance(value, str) or "%" in value:
            raise ValueError
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f"'{shown(value)}' is not a valid IP address") from None


def cidr(value: Any) -> str:
    """A network in CIDR notation; host bits are cleared."""
    try:
        if not isinstance(value, str) or "%" in value or "/" not in value or "." in value.rpartition("/")[2]:
            raise ValueError
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise ValueError(f"'{shown(value)}' is not a valid IP subnet") from None


def subnet_cidr(value: Any) -> str:
    """As `cidr`, and as its author may have written it: with a netmask, or one address alone."""
    try:
        if not isinstance(value, str) or "%" in value:
            raise ValueError
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise ValueError(f"{shown(value)} is not in a CIDR format") from None


def route_cidr(value: Any) -> str:
    """Where a route leads: a network without host bits, not the loopback."""
    network = ipaddress.ip_network(cidr(value))
    if ipaddress.ip_interface(value).ip != network.network_address:
        raise ValueError(f"'{shown(value)}' is not a valid CIDR")
    if network.is_loopback:
        raise ValueError(f"'{shown(value)}' is not a routable CIDR")
    return str(network)


def canonical_ip(value: Any) -> Any:
    """An address in its canonical form, for a comparison; what is none, as it is."""
    try:
        return ip(value)
    except ValueError:
        return value


def mac(value: Any) -> str:
    """A MAC address in any of its usual spellings, in lower case with colons. As in Neutron a multicast one passes; no
    hypervisor boots with it."""
    if not isinstance(value, str) or not netaddr.valid_mac(value) or not int(netaddr.EUI(value)):
        raise ValueError(f"'{shown(value)}' is not a valid MAC address")
    return str(netaddr.EUI(value, dialect=netaddr.mac_unix_expanded))


def listing(item: Check, *, limit: int = MAX_ITEMS, unique: bool = False) -> Check:
    """A list of what `item` takes; None counts as the empty list."""
    def check(value: Any) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            raise ValueError(f"'{shown(value)}' is not a list")
        if len(value) > limit:
            raise ValueError(f"it has {len(value)} entries, more than {limit}")
        found = [item(v) for v in value]
        if unique and (twice := duplicate(found)) is not None:
            raise ValueError(f"Duplicate items in the list: '{shown(twice)}'")
        return found
    return check


def duplicate(values: Iterable[Any]) -> Any:
    """The first of the values that is there twice; None: none is."""
    texts, others = set[str](), list[Any]()
    for value in values:
        if value in (texts if isinstance(value, str) else others):
            return value
        texts.add(value) if isinstance(value, str) else others.append(value)
    return None


def mapping(fields: dict[str, Check], required: Iterable[str] = ()) -> Check:
    """An object with these keys and no other."""
    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"'{shown(value)}' is not a dictionary")
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
route = mapping({"destination": route_cidr, "nexthop": ip}, ("destination", "nexthop"))
host_routes = listing(route, limit=40, unique=True)
cidrs = listing(cidr, limit=1000, unique=True)
uuids = listing(uuid_, limit=200)


def groups(value: Any) -> list[str]:
    """Security groups' ids, each once."""
    found: list[str] = listing(uuid_, limit=200, unique=True)(value)
    return found


def dns_host(value: Any) -> str:
    """A host name or FQDN, in lower case."""
    return _dns(text(255, lines=False)(value).lower())


def dns_relative(value: Any) -> str:
    """A host name within a domain that is named beside it."""
    found = dns_host(value)
    if found.endswith("."):
        raise ValueError(f"'{shown(found)}' is a FQDN. It should be a relative domain name")
    return found


def dns_domain(value: Any) -> str:
    """A domain with its closing dot, in lower case; empty: none."""
    found = _dns(text(253, lines=False)(value).lower())
    if found and not found.endswith("."):
        raise ValueError(f"'{shown(found)}' is not a FQDN")
    return found


def _dns(value: str) -> str:
    labels = value.removesuffix(".").split(".") if value else []
    if not all(_LABEL.fullmatch(label) for label in labels) or (len(labels) > 1 and labels[-1].isdigit()):
        raise ValueError(f"'{shown(value)}' not a valid PQDN or FQDN")
    return value


def anything(value: Any) -> Any:
    return value


def tag(value: Any) -> str:
    """A tag in a URL's path."""
    found: str = text(255)(value)
    if not found or "/" in found:
        raise ValueError(f"'{shown(found)}' is not a valid tag: it must not be empty nor contain '/'")
    return found


def tags(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"'{shown(value)}' is not a list")
    return sorted(listing(text(255), limit=50, unique=True)(value))
