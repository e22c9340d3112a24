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
import structlog
import yaml

from nacre.base.clock import RealClock
from nacre.base.context import Context, service_context
from nacre.base.db import statements
from nacre.base.durable.files import write_whole
from nacre.base.durable.processes import find, mark_complete
from nacre.base.durable.tables import cloud
from nacre.base.errors import Conflict, NacreError
from nacre.base.rpc.addresses import machine_addresses
from nacre.base.serving.connections import Patience
from nacre.base.serving.server import Listen
from nacre.base.serving.tls import ServerTls, operators, own
from nacre.cli.database import DEMO, DEMO_CIDR, MARK, PASSWORDS, engine_name
from nacre.cloud.control import Base, Control
from nacre.compute.catalog.flavors import Flavor
from nacre.config import EVERYWHERE, Settings, kept_external
from nacre.identity.catalog import First, bootstrap
from nacre.identity.tables import projects, users
from nacre.image.metadefs.builtin import NAMESPACES
from nacre.image.metadefs.service import Metadefs
from nacre.network.addresses.subnets import Subnets
from nacre.network.l2.networks import Networks
from nacre.network.l3 import interfaces
from nacre.network.l3.routers import Routers
from nacre.network.nouns.network import NETWORK, Network
from nacre.network.nouns.port import PortAddress
from nacre.network.nouns.router import ROUTER, Router
from nacre.network.nouns.subnet import SUBNET, Subnet
from nacre.network.work import Work

log = structlog.get_logger()

#: id, name, memory MB, vcpus, disk GB.
FLAVORS = (
    ("42", "m1.nano", 96, 1, 1), ("84", "m1.micro", 192, 1, 1), ("1", "m1.tiny", 512, 1, 1),
    ("2", "m1.small", 2048, 1, 20), ("3", "m1.medium", 4096, 2, 40), ("4", "m1.large", 8192, 4, 80),
    ("5", "m1.xlarge", 16384, 8, 160),
)
#: The external network that a cloud has from its beginning.
PUBLIC = "public"
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
    await external_rows(control)
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
    told = kept_external(control.settings.data)
    cidr = told.cidr if told.kind == "nat" else control.settings.network.public_cidr
    context = await _context(control)

    def step(work: Work) -> None:
        if not any(n.name == PUBLIC for n in Networks().list(work, {})):
            _subnet(work, _public(work), f"{PUBLIC}-subnet", cidr)

    await control.network.write(context, step)


def _public(work: Work) -> str:
    """A new network `public`: its id."""
    made = Networks().create(work, NETWORK.parse_create({
        "name": PUBLIC, "router:external": True, "provider:network_type": "flat",
        "provider:physical_network": "public"}, work.context))
    return str(made["id"])


def _subnet(work: Work, network_id: str, name: str, cidr: str, **more: Any) -> str:
    """A new subnet's id; without DHCP, unless more is said."""
    made = Subnets().create(work, SUBNET.parse_create({
        "name": name, "network_id": network_id, "ip_version": 4, "enable_dhcp": False, "cidr": cidr, **more},
        work.context))
    return str(made["id"])


async def external_rows(control: Control) -> None:
    """For `nacre up --external nat`, once for each range: the default external network has a subnet of it, and the demo
    project a router between it and its network. What is there of these is taken as it is."""
    told = kept_external(control.settings.data)
    there = await control.db.read(lambda connection: statements.one(connection, cloud, number=1))
    if told.kind != "nat" or (there is not None and there["external_cidr"] == told.cidr):
        return
    context = await _context(control)

    def step(work: Work) -> None:
        public = _outside(work, told.cidr)
        demo = work.conn.execute(sa.select(projects.c.id).where(
            projects.c.domain_id == "default", projects.c.name == DEMO)).scalar_one_or_none()
        if demo is not None:
            _demo_router(work, demo, public)
        statements.update(work.conn, cloud, {"external_cidr": told.cidr}, number=1)

    try:
        await control.network.write(context, step)
    except NacreError as error:  # an operator's networks, or quotas, leave no room: the cloud is of use without
        log.error("the public network is not as it should be; the next start tries again", cidr=told.cidr,
                  why=error.message)


def _outside(work: Work, cidr: str) -> str:
    """The id of the network `public`, with a subnet of that range. One of another range that was made for it and that
    nobody has used goes."""
    found = next((n for n in work.select(Network, name=PUBLIC) if n.external), None)
    network_id = found.id if found else _public(work)
    if not work.select(Network, external=True, is_default=True):
        network = work.select(Network, id=network_id)[0]
        Networks().update(work, network, {"is_default": True})
    subnets = work.select(Subnet, network_id=network_id)
    for subnet in subnets:
        if subnet.name == f"{PUBLIC}-subnet" and subnet.cidr != cidr:
            try:
                Subnets().delete(work, subnet)
            except Conflict:
                log.warning("a range of the public network leads nowhere and stays, as it is used", cidr=subnet.cidr)
    if all(subnet.cidr != cidr for subnet in subnets):
        _subnet(work, network_id, f"{PUBLIC}-subnet", cidr)
    return network_id


def _demo_router(work: Work, project: str, public: str) -> None:
    owner = {"project_id": project}
    if work.select(Router, name=DEMO, project_id=project):
        return
    if networks := work.select(Network, name=DEMO, project_id=project):
        subnets = [s.id for s in work.select(Subnet, network_id=networks[0].id) if s.ip_version == 4 and s.gateway_ip]
    else:
        made = Networks().create(work, NETWORK.parse_create({"name": DEMO, **owner}, work.context))
        subnets = [_subnet(work, made["id"], DEMO, DEMO_CIDR, enable_dhcp=True, **owner)]
    router = Routers().create(work, ROUTER.parse_create({
        "name": DEMO, "external_gateway_info": {"network_id": public}, **owner}, work.context))
    for subnet in subnets[:1]:
        if not _routed(work, subnet):
            interfaces.add(work, work.select(Router, id=router["id"])[0], {"subnet_id": subnet})


def _routed(work: Work, subnet_id: str) -> bool:
    """Whether the subnet's gateway address is somebody's already."""
    subnet = work.select(Subnet, id=subnet_id)[0]
    return bool(work.select(PortAddress, subnet_id=subnet_id, ip_address=subnet.gateway_ip))
