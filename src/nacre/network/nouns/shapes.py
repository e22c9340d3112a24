"""Checks of what one kind of resource alone has: a port's addresses and options, a router's gateway, what a subnet is
kept for. As in checks.py, ValueError says why not.
"""

import ipaddress
import json
import re
from typing import Any

from nacre.network.nouns.checks import (
    boolean,
    cidr,
    duplicate,
    ip,
    ip_version,
    listing,
    mac,
    mapping,
    maybe,
    number,
    one_of,
    shown,
    text,
    uuid_,
)

_OPTION_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
#: The options that say something by having no value: "no router".
_BLANK_OPTIONS = ("router", "classless-static-route")
#: What a subnet may be kept for: ports whose device_owner begins so.
_SERVICES = ("network:", "neutron:", "compute:")


def _fixed_ip(value: Any) -> dict[str, str]:
    """What else is in it is of no interest here: some clients send back all that they were shown."""
    known = {k: v for k, v in value.items() if k in ("subnet_id", "ip_address")} if isinstance(value, dict) else value
    found: dict[str, str] = mapping({"subnet_id": uuid_, "ip_address": ip})(known)
    return found


def fixed_ips(value: Any) -> list[dict[str, str]]:
    if not isinstance(value, list):
        raise ValueError(f"Invalid data format for fixed IP: '{shown(value)}'")
    found: list[dict[str, str]] = listing(_fixed_ip, limit=50)(value)
    given = [f["ip_address"] for f in found if "ip_address" in f]
    if (twice := duplicate(given)) is not None:
        raise ValueError(f"Duplicate IP address '{twice}'")
    return found


def key_and_value(text: str) -> str:
    """A filter of a list of objects: key=value."""
    if not text.partition("=")[0].strip() or "=" not in text:
        raise ValueError(f"'{shown(text)}' is not of the form <key>=[value]")
    return text


def hints(value: Any) -> list[str]:
    """Availability zones; in all not longer than their column."""
    if not isinstance(value, list):
        raise ValueError(f"'{shown(value)}' is not a list")
    found: list[str] = listing(text(255), limit=10, unique=True)(value)
    if len(json.dumps(found)) > 255:
        raise ValueError("Too many availability_zone_hints specified")
    return found


def service_types(value: Any) -> list[str]:
    """The kinds of ports that a subnet is kept for."""
    found: list[str] = listing(text(255, lines=False), limit=10)(value or None)
    if wrong := [f for f in found if not f.startswith(_SERVICES)]:
        raise ValueError(f"Subnet service type {shown(wrong[0])} does not correspond to a valid device owner")
    return found


def pool_id(value: Any) -> str:
    """A subnet pool's id. The pool of prefix delegation is known by its name."""
    return str(value) if value == "prefix_delegation" else uuid_(value)


def target_project(value: Any) -> str:
    """With whom something is shared: a project, or "*" for all."""
    try:
        return "*" if value == "*" else uuid_(value)
    except ValueError:
        raise ValueError(f"'{shown(value)}' is not a valid target project ID; expected a UUID or '*'") from None


def reference(value: Any) -> str | None:
    """Another resource's id, in whatever form: what is none is not found."""
    if isinstance(value, list | dict):
        raise ValueError(f"'{shown(value)}' is not an id")
    return str(text(255)(str(value))) if value else None


def gateway_info(value: Any) -> dict[str, Any] | None:
    """A router's gateway; nothing, however it is written, for none."""
    if not value:
        return None
    found: dict[str, Any] = mapping({"network_id": uuid_, "enable_snat": boolean, "external_fixed_ips": fixed_ips},
                                    ("network_id",))(value)
    return found


def port_range(value: Any) -> tuple[int, int] | None:
    """The first and the last port of a range, "80:90", or one port."""
    if value is None:
        return None
    first, _, last = text(11)(str(value)).partition(":")
    found = number(1, 65535)(first), number(1, 65535)(last or first)
    if found[0] > found[1]:
        raise ValueError(f"Invalid port range: {shown(value)}, the first port is after the last")
    return found


def lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def forwarded_protocol(value: Any) -> str:
    """What has ports, by name."""
    found: str = one_of("tcp", "udp", "sctp")(lower(value))
    return found


def _pair_address(value: Any) -> str:
    found = cidr(value) if isinstance(value, str) and "/" in value else ip(value)
    if ipaddress.ip_network(found).is_multicast:
        raise ValueError(f"'{shown(value)}' is a multicast address")
    return found


def _pair_mac(value: Any) -> str:
    found = mac(value)
    if int(found[:2], 16) & 1:
        raise ValueError(f"'{shown(value)}' is a multicast MAC address")
    return found


def address_pairs(value: Any) -> list[dict[str, str]]:
    """Allowed address pairs: ip_address (an address or a network), mac_address."""
    found: list[dict[str, str]] = listing(
        mapping({"ip_address": _pair_address, "mac_address": _pair_mac}, ("ip_address",)), limit=50)(value)
    if (twice := duplicate(found)) is not None:
        raise ValueError(f"Duplicate address pair {shown(twice)}")
    return found


def _option_name(value: Any) -> str:
    if not isinstance(value, str) or not _OPTION_NAME.fullmatch(value):
        raise ValueError(f"'{shown(value)}' is not a DHCP option's name or number")
    return value


def dhcp_options(value: Any) -> list[dict[str, Any]]:
    """Extra DHCP options. They end up in a configuration file of the host: control characters are refused."""
    found: list[dict[str, Any]] = listing(mapping({
        "opt_name": _option_name, "opt_value": maybe(text(255, lines=False)), "ip_version": ip_version,
    }, ("opt_name", "opt_value")), unique=True)(value)
    for option in found:
        if option["opt_value"] == "" and option["opt_name"] not in _BLANK_OPTIONS:
            raise ValueError("opt_value: a blank value is not permitted")
        option.setdefault("ip_version", 4)
    return found


def profile(value: Any) -> dict[str, Any]:
    """A small JSON object."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"'{shown(value)}' is not a dictionary")
    if len(str(value)) > 4095:
        raise ValueError("it is longer than 4095 characters")
    return value
