"""The first rows of a cloud, and the files that let its users in. Every step looks for what it would make."""

import asyncio
import ipaddress
import secrets
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa
import yaml

from nacre.base.clock import RealClock
from nacre.base.context import service_context
from nacre.base.errors import Conflict
from nacre.base.serving.server import Listen
from nacre.base.serving.tls import ServerTls, operators, own, write_secret
from nacre.cli.database import MARK, PASSWORDS, engine_name, refuse_strangers
from nacre.cloud.control import Control
from nacre.compute.catalog.flavors import Flavor
from nacre.config import EVERYWHERE, Settings
from nacre.identity.catalog import First, bootstrap, users
from nacre.identity.tables import projects
from nacre.network.attributes.table import Row
from nacre.network.networks import Networks
from nacre.network.subnets import Subnets
from nacre.network.work import Work

#: id, name, memory MB, vcpus, disk GB.
FLAVORS = (
    ("42", "m1.nano", 96, 1, 1), ("84", "m1.micro", 192, 1, 1), ("1", "m1.tiny", 512, 1, 1),
    ("2", "m1.small", 2048, 1, 20), ("3", "m1.medium", 4096, 2, 40), ("4", "m1.large", 8192, 4, 80),
    ("5", "m1.xlarge", 16384, 8, 160),
)
#: Seconds that a control goes on listening after it was told to end, unless an option says otherwise.
DRAIN = 3.0
#: Cloud of clouds.yaml -> user and project.
CLOUDS = {"nacre": "admin", "demo": "demo", "demo-alt": "demo-alt"}


async def listening(control: Control) -> Listen:
    """Where and how the APIs are served; certificates are made or looked at, and kept up to date from then on.

    Raises TlsError."""
    settings = control.settings
    live = await _tls(control) if settings.tls_on else None
    if live is not None:
        control.running.tasks.append(lambda: live.keep(RealClock()))
    return Listen(settings.host, settings.port, live.context if live else None,
                  settings.url.startswith("https:"), DRAIN if settings.drain is None else settings.drain)


async def _tls(control: Control) -> ServerTls:
    from nacre.base.serving import certificates

    settings, given = control.settings, control.settings.tls
    if given.certificate:
        return ServerTls(operators(Path(given.certificate), Path(given.key) if given.key else None))
    authority = await control.keys.authority(lambda: certificates.new_authority(datetime.now(UTC)))
    write_secret(settings.data / "authority.pem", certificates.public_part(authority).decode(), 0o644)
    return await asyncio.to_thread(lambda: ServerTls(own(
        authority, settings.data / "control" / "server.pem", lambda: server_names(settings))))


def server_names(settings: Settings) -> set[str]:
    """What a server's own certificate is for: how clients may call this control."""
    public = urlsplit(settings.public_url).hostname if settings.public_url else None
    names = {"localhost", "127.0.0.1", "::1", socket.gethostname(), *settings.tls.names, *([public] if public else ())}
    return names | (_addresses() if settings.host in EVERYWHERE else {settings.host})


def _addresses() -> set[str]:
    """The machine's own, now."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        found = {str(a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS")) for a in ip.get_addr()}
    return {a for a in found if not ipaddress.ip_address(a).is_link_local}


def passwords(settings: Settings) -> dict[str, str]:
    """The first users' passwords: as configured, else made once and kept."""
    path = settings.data / PASSWORDS
    known: dict[str, str] = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
    given = {"admin": settings.identity.admin_password, "demo": settings.identity.demo_password,
             "demo-alt": settings.identity.demo_password}
    found = {name: known.get(name) or given.get(name) or secrets.token_urlsafe(18)
             for name in ("admin", "demo", "demo-alt", "service")}
    if found != known:
        write_secret(path, msgspec.json.encode(found).decode())
    return found


def clouds(settings: Settings, known: dict[str, str]) -> str:
    """clouds.yaml: one cloud a first user, and one for the whole system's administrator."""
    def cloud(user: str, scope: dict[str, str]) -> dict[str, Any]:
        trust = {} if settings.cacert is None else {"cacert": str(settings.cacert)}
        return {"region_name": settings.region, "identity_api_version": 3, **trust, "auth": {
            "auth_url": f"{settings.url}/identity/v3", "username": user, "password": known[user],
            "user_domain_name": "Default", **scope}}

    found = {name: cloud(user, {"project_name": user, "project_domain_name": "Default"})
             for name, user in CLOUDS.items()}
    found["nacre-system"] = cloud("admin", {"system_scope": "all"})
    return str(yaml.safe_dump({"clouds": found}, sort_keys=False))


async def first_rows(control: Control) -> None:
    """Users, catalog, flavors, the public network; clouds.yaml last: it says that the rest is there."""
    settings = control.settings
    there = await users(control.db)
    refuse_strangers(settings, there)
    known = passwords(settings)
    mark = settings.data / MARK
    if not there:  # a new database, whatever was in the one before
        mark.unlink(missing_ok=True)
    first = First(base_url=settings.url, passwords=known, region=settings.region)
    await bootstrap(control.db, first, control.passwords)
    if not mark.exists():  # what an operator deletes afterwards stays deleted
        for id, name, memory, vcpus, disk in FLAVORS:
            try:
                await control.flavors.create(
                    Flavor(id=id, name=name, memory_mb=memory, vcpus=vcpus, root_gb=disk))
            except Conflict:
                continue
        await _public_network(control)
        mark.write_text(engine_name(settings.database))
    text, file = clouds(settings, known), settings.data / "clouds.yaml"
    if not file.exists() or file.read_text() != text:
        write_secret(file, text)


async def _public_network(control: Control) -> None:
    settings, networks, subnets = control.settings, Networks(), Subnets()
    project = await control.db.read(lambda c: c.execute(sa.select(projects.c.id).where(
        projects.c.domain_id == "default", projects.c.name == "admin")).scalar_one())
    context = msgspec.structs.replace(service_context(), project_id=project)

    def step(work: Work) -> None:
        if any(n["name"] == "public" for n in networks.list(work, {})):
            return
        network: Row = networks.create(work, networks.resource.parse_create({
            "name": "public", "router:external": True, "provider:network_type": "flat",
            "provider:physical_network": "public"}, context))
        subnets.create(work, subnets.resource.parse_create({
            "name": "public-subnet", "network_id": network["id"], "ip_version": 4, "enable_dhcp": False,
            "cidr": settings.network.public_cidr}, context))

    await control.network.write(context, step)
