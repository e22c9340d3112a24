"""The first rows of a cloud, and the files that let its users in. Every step looks for what it would make."""

import os
import secrets
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
import yaml

from nacre.base.context import service_context
from nacre.base.errors import Conflict
from nacre.cli.database import MARK, PASSWORDS, engine_name, refuse_strangers
from nacre.cloud import Control
from nacre.compute.catalog.flavors import Flavor
from nacre.config import Settings
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
#: Cloud of clouds.yaml -> user and project.
CLOUDS = {"nacre": "admin", "demo": "demo", "demo-alt": "demo-alt"}


def write_secret(path: Path, text: str) -> None:
    """Replace a file that only its owner may read, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


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
        return {"region_name": settings.region, "identity_api_version": 3, "auth": {
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
    await bootstrap(control.db, first, control.parts["passwords"])
    if not mark.exists():  # what an operator deletes afterwards stays deleted
        for id, name, memory, vcpus, disk in FLAVORS:
            try:
                await control.parts["flavors"].create(
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

    await control.parts["network"].write(context, step)
