"""The first rows of a cloud, and the files that let its users in. Every step looks for what it would make."""

import asyncio
import contextlib
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
from nacre.base.context import Context, service_context
from nacre.base.db import statements
from nacre.base.durable.files import write_whole
from nacre.base.durable.processes import find, mark_complete
from nacre.base.durable.tables import cloud
from nacre.base.errors import Conflict
from nacre.base.rpc.addresses import machine_addresses
from nacre.base.serving.connections import Patience
from nacre.base.serving.server import Listen
from nacre.base.serving.tls import ServerTls, operators, own
from nacre.cli.database import MARK, PASSWORDS, engine_name
from nacre.cloud.control import Base, Control
from nacre.compute.catalog.flavors import Flavor
from nacre.config import EVERYWHERE, Settings
from nacre.identity.catalog import First, bootstrap
from nacre.identity.tables import projects, users
from nacre.image.metadefs.builtin import NAMESPACES
from nacre.image.metadefs.service import Metadefs
from nacre.network.addresses.subnets import Subnets
from nacre.network.l2.networks import Networks
from nacre.network.nouns.noun import View
from nacre.network.work import Work

#: id, name, memory MB, vcpus, disk GB.
FLAVORS = (
    ("42", "m1.nano", 96, 1, 1), ("84", "m1.micro", 192, 1, 1), ("1", "m1.tiny", 512, 1, 1),
    ("2", "m1.small", 2048, 1, 20), ("3", "m1.medium", 4096, 2, 40), ("4", "m1.large", 8192, 4, 80),
    ("5", "m1.xlarge", 16384, 8, 160),
)
#: Seconds that a control goes on listening after it was told to end, unless an option says otherwise.
DRAIN = 3.0
#: The first users' passwords, until it is known that it was this control that made them.
DRAFT = Path("control") / "passwords-draft.json"
#: Cloud of clouds.yaml -> user and project.
CLOUDS = {"nacre": "admin", "demo": "demo", "demo-alt": "demo-alt"}


async def listening(control: Control) -> Listen:
    """Where and how the APIs are served; certificates are made or looked at, and kept up to date from then on.

    Raises TlsError."""
    settings = control.settings
    live = await _tls(control) if settings.tls_on else None
    if live is not None:
        control.running.tasks.append(lambda: live.keep(RealClock()))
    own = settings.http
    return Listen(settings.host, settings.port, live.context if live else None,
                  settings.url.startswith("https:"), DRAIN if settings.drain is None else settings.drain,
                  Patience(own.idle, own.head, own.head_seconds, *own.open), own.proxies)


async def _tls(control: Control) -> ServerTls:
    from nacre.base.serving import certificates

    settings, given = control.settings, control.settings.tls
    if given.certificate:
        return ServerTls(operators(Path(given.certificate), Path(given.key) if given.key else None))
    authority = await control.keys.authority(lambda: certificates.new_authority(datetime.now(UTC)))
    write_whole(settings.control / "authority.pem", certificates.public_part(authority).decode(), 0o644)
    return await asyncio.to_thread(lambda: ServerTls(own(
        authority, settings.control / "server.pem", lambda: server_names(settings))))


def server_names(settings: Settings) -> set[str]:
    """What a server's own certificate is for: how clients may call this control."""
    public = urlsplit(settings.public_url).hostname if settings.public_url else None
    names = {"localhost", "127.0.0.1", "::1", socket.gethostname(), *settings.tls.names, *([public] if public else ())}
    return names | (set(machine_addresses()) if settings.host in EVERYWHERE else {settings.host})


def kept(settings: Settings) -> dict[str, str]:
    """The first users' passwords, as far as this control knows them: it made them, or they are configured."""
    own, found = settings.identity, _passwords(settings.data / PASSWORDS)
    given = {"admin": own.admin_password, "demo": own.demo_password, "demo-alt": own.demo_password}
    return {name: text for name, text in given.items() if text} | found


def _drafted(settings: Settings) -> dict[str, str]:
    """Passwords for users that are not made yet; the same again after a crash."""
    path = settings.data / DRAFT
    if not (found := _passwords(path)):
        known = kept(settings)
        names = ("admin", "demo", "demo-alt", "service")
        found = {name: known.get(name) or secrets.token_urlsafe(18) for name in names}
        write_whole(path, msgspec.json.encode(found))
    return found


def _passwords(path: Path) -> dict[str, str]:
    """Those of a file; none if it is not there, or not whole (an older release, and the disk was full)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


async def _settle(control: Control) -> None:
    """Keep those of the drafted passwords that users have: of controls that started together one has made them."""
    draft = control.settings.data / DRAFT
    if draft.exists():
        hashes = await control.db.read(lambda c: {row.name: row.password_hash for row in c.execute(
            sa.select(users.c.name, users.c.password_hash).where(users.c.domain_id == "default"))})
        ours = {name: text for name, text in _drafted(control.settings).items()
                if await control.passwords.matches(hashes.get(name), text)}
        if ours:
            write_whole(control.settings.data / PASSWORDS, msgspec.json.encode(ours))
        draft.unlink()


def clouds(settings: Settings, known: dict[str, str]) -> str:
    """clouds.yaml: one cloud a first user whose password is known, and one for the whole system's administrator."""
    def cloud(user: str, scope: dict[str, str]) -> dict[str, Any]:
        trust = {} if settings.cacert is None else {"cacert": str(settings.cacert)}
        return {"region_name": settings.region, "identity_api_version": 3, **trust, "auth": {
            "auth_url": f"{settings.url}/identity/v3", "username": user, "password": known[user],
            "user_domain_name": "Default", **scope}}

    found = {name: cloud(user, {"project_name": user, "project_domain_name": "Default"})
             for name, user in CLOUDS.items() if user in known}
    if "admin" in known:
        found["nacre-system"] = cloud("admin", {"system_scope": "all"})
    return str(yaml.safe_dump({"clouds": found}, sort_keys=False))


async def first_rows(control: Control) -> None:
    """Users, catalog, flavors, the public network, unless they were made before; vocabularies that are new with this
    release; clouds.yaml last: it says that the rest is there."""
    settings, db = control.settings, control.db
    begun, complete, alone = await db.read(lambda connection: _state(connection, control.base))
    first = First(base_url=settings.url, passwords={} if begun else _drafted(settings), region=settings.region,
                  follow=bool(settings.public_url) or alone)
    await bootstrap(db, first, control.passwords)
    await _settle(control)
    if not complete:  # what an operator deletes afterwards stays deleted
        for id, name, memory, vcpus, disk in FLAVORS:
            try:
                await control.flavors.create(
                    Flavor(id=id, name=name, memory_mb=memory, vcpus=vcpus, root_gb=disk))
            except Conflict:
                continue
        await _public_network(control)
        await db.run(lambda connection: mark_complete(connection, control.base.clock))
    with contextlib.suppress(Conflict):  # another control is giving them
        await Metadefs(control.images).give(await _context(control), NAMESPACES)
    write_whole(settings.data / MARK, engine_name(settings.database))
    if known := {name: text for name, text in kept(settings).items() if name in CLOUDS.values()}:
        text, file = clouds(settings, known), settings.control / "clouds.yaml"
        if not file.exists() or file.read_text() != text:
            write_whole(file, text)


def _state(connection: sa.Connection, base: Base) -> tuple[bool, bool, bool]:
    """Whether there are users, all first rows, and no control but this one."""
    there = statements.one(connection, cloud, number=1)
    others = [p for p in find(connection, base.clock, role="control") if p.alive and p.id != base.process]
    return (connection.scalar(sa.select(users.c.id).limit(1)) is not None,
            there is not None and there["first_rows_at"] is not None, not others)


async def _context(control: Control) -> Context:
    """The cloud itself, in the first administrator's project, if that is still there."""
    project = await control.db.read(lambda c: c.execute(sa.select(projects.c.id).where(
        projects.c.domain_id == "default", projects.c.name == "admin")).scalar_one_or_none())
    return msgspec.structs.replace(service_context(), project_id=project)


async def _public_network(control: Control) -> None:
    settings, networks, subnets = control.settings, Networks(), Subnets()
    context = await _context(control)

    def step(work: Work) -> None:
        if any(n.name == "public" for n in networks.list(work, {})):
            return
        network: View = networks.create(work, networks.resource.parse_create({
            "name": "public", "router:external": True, "provider:network_type": "flat",
            "provider:physical_network": "public"}, context))
        subnets.create(work, subnets.resource.parse_create({
            "name": "public-subnet", "network_id": network["id"], "ip_version": 4, "enable_dhcp": False,
            "cidr": settings.network.public_cidr}, context))

    await control.network.write(context, step)
