"""The create of servers: what is asked for is checked and looked up, and written in one transaction with the stories
that will build it; only then it is said to be accepted."""

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

import msgspec
import sqlalchemy as sa

from nacre.base.clock import Clock
from nacre.base.context import Context
from nacre.base.db import Database
from nacre.base.durable import changes
from nacre.base.durable.stories import Stories, Story
from nacre.base.errors import BadRequest, Forbidden, NotFound, QuotaExceeded
from nacre.compute import history, quota_usage
from nacre.compute.catalog.flavors import Flavor, Flavors, find_flavor
from nacre.compute.catalog.keypairs import KeyPair, KeyPairs
from nacre.compute.catalog.quotas import Quotas, limits_of
from nacre.compute.catalog.server_groups import find_group
from nacre.compute.contract import Server, ServerFlavor, ServerSpec, StoryOrder
from nacre.compute.policies import rule
from nacre.compute.records import server_of
from nacre.compute.tables import server_tags, servers
from nacre.identity.contract import Policy
from nacre.image.contract import ImageFacts, Images
from nacre.network.contract import Network, PortsOrder

#: Runs a story that was committed. It cannot fail: a story that nobody runs is found by its row.
Run = Callable[[Story], None]

GIB = 1 << 30
_encode = msgspec.msgpack.Encoder().encode
#: What a new row's columns that nobody set hold.
_EMPTY: dict[str, Any] = {c.name: None for c in servers.columns} | {
    "power_state": "", "host": "", "allocation_id": "", "epoch": 0, "deleted": False, "locked": False, "number": 0,
    "root_device_name": "/dev/vda"}


@dataclass(frozen=True)
class CreateDeps:
    """Whom a create asks before it accepts."""

    flavors: Flavors
    keypairs: KeyPairs
    quotas: Quotas
    images: Images
    network: Network
    policy: Policy


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A spec with what it names."""

    spec: ServerSpec
    flavor: Flavor
    image: ImageFacts
    key: KeyPair | None

    @property
    def size(self) -> ServerFlavor:
        """The flavor as the server keeps it."""
        f = self.flavor
        return ServerFlavor(id=f.id, name=f.name, memory_mb=f.memory_mb, vcpus=f.vcpus, root_gb=f.root_gb,
                            ephemeral_gb=f.ephemeral_gb, swap_mb=f.swap_mb, extra_specs=dict(f.extra_specs))


class Creation:
    """Implements `Servers.create` and `Servers.sketch`."""

    def __init__(self, db: Database, clock: Clock, ask: CreateDeps, stories: Stories, run: Run):
        self._db, self._clock, self._ask, self._stories, self._run = db, clock, ask, stories, run

    async def create(self, context: Context, specs: tuple[ServerSpec, ...]) -> tuple[Server, ...]:
        """Servers of one request, all or none; committed, with a story each spec, when this answers. Of one spec with
        min_count and max_count, as many as quotas have room for.

        Raises BadRequest, NotFound, Conflict, QuotaExceeded, each naming the field or limit.
        """
        wished, flavors = await self._db.read(lambda c: self._afford(c, context, specs))
        plans = [await self._plan(context, spec, flavors[spec.flavor_id]) for spec in wished]
        now = self._now()
        reservation = "r-" + secrets.token_hex(4)

        def unit(connection: sa.Connection) -> tuple[list[dict[str, Any]], list[Story]]:
            fitting = self._fit(connection, context, [plan.spec for plan in plans], flavors)
            fitted = [msgspec.structs.replace(plan, spec=spec) for plan, spec in zip(plans, fitting, strict=True)]
            rows = [row for plan in fitted for row in self._rows(context, plan, reservation, now)]
            for row in rows:
                key = connection.execute(sa.insert(servers), row).inserted_primary_key
                row["number"] = key[0] if key else 0
            tags = [{"server_id": r["id"], "tag": t} for r in rows for t in r["tags"]]
            if tags:
                connection.execute(sa.insert(server_tags), tags)
            history.begin(connection, context, [r["id"] for r in rows], "create", now)
            changes.note(connection, now, *(("server", r["id"]) for r in rows), project_id=context.project_id or "")
            stories, position = [], 0
            for plan in fitted:
                mine = rows[position:position + plan.spec.max_count]
                position += plan.spec.max_count
                quota_usage.add(connection, mine[0], len(mine))
                stories.append(self._stories.insert(connection, "build", _encode(StoryOrder(
                    context=context, server_ids=tuple(r["id"] for r in mine), spec=plan.spec)), now))
            return rows, stories

        rows, stories = await self._db.run(unit)
        for story in stories:
            self._run(story)
        return tuple(server_of({**_EMPTY, **row}) for row in rows)

    async def sketch(self, context: Context, spec: ServerSpec) -> tuple[Server, ...]:
        """The servers that a create would make, checked but for quotas, and written nowhere. Raises as `create`."""
        flavor = await self._db.read(lambda c: _flavor(c, context, spec))
        plan, now = await self._plan(context, spec, flavor), self._now()
        return tuple(server_of({**_EMPTY, **row, "number": 0}) for row in self._rows(context, plan, "", now))

    def _afford(self, connection: sa.Connection, context: Context, specs: Sequence[ServerSpec],
                ) -> tuple[Sequence[ServerSpec], dict[str, Flavor]]:
        """The specs as far as there is quota for them, and the flavors by id. Before anything else is looked up: who
        asks for more than the project may have, or than is made at once, costs hardly anything. Raises BadRequest,
        Forbidden, QuotaExceeded."""
        flavors = {spec.flavor_id: _flavor(connection, context, spec)
                   for spec in {spec.flavor_id: spec for spec in specs}.values()}
        if not all(flavor.root_gb for flavor in flavors.values()) and not self._ask.policy.allows(
                context, rule("servers:create:zero_disk_flavor")):
            raise Forbidden("Only volume-backed servers are allowed for flavors with zero disk.", field="flavorRef")
        specs = self._fit(connection, context, specs, flavors)
        if (asked := sum(spec.max_count for spec in specs)) > (most := self._ask.quotas.at_once):
            raise BadRequest(f"max_count: {asked} servers were asked for, but one request makes {most} at most.",
                             field="max_count")
        return specs, flavors

    async def _plan(self, context: Context, spec: ServerSpec, flavor: Flavor) -> Plan:
        """The spec with what it names looked up and checked against each other. Changes nothing."""
        image = await self._image(context, spec.image_id, "imageRef") if spec.image_id else None
        if image is None:
            raise BadRequest("Invalid image provided: a server boots from an image here.", field="imageRef")
        for name in ("kernel_id", "ramdisk_id"):
            if linked := getattr(spec, name) or image.properties.get(name, ""):
                await self._image(context, linked, name)
                spec = msgspec.structs.replace(spec, **{name: linked})
        check_image(image, flavor)
        if group := spec.hints.get("group"):
            await self._check_group(context, str(group))
        key = None
        if spec.key_name:
            try:
                key = await self._ask.keypairs.get(context.user_id or "", spec.key_name)
            except NotFound:
                raise BadRequest("Invalid key_name provided.", field="key_name") from None
        spec = await self._networked(context, spec)
        return Plan(spec=spec, flavor=flavor, image=image, key=key)

    async def _image(self, context: Context, image_id: str, field: str) -> ImageFacts:
        try:
            return await self._ask.images.find(context, image_id)
        except NotFound:
            raise BadRequest(f"Can not find requested image: {image_id}", field=field) from None

    async def _check_group(self, context: Context, group_id: str) -> None:
        try:
            owner = (await self._db.read(lambda c: find_group(c, group_id))).project_id
        except NotFound:
            owner = None
        if owner is None or (owner != context.project_id and not context.is_admin):
            raise BadRequest(f"Instance group {group_id} could not be found.", field="group")

    async def _networked(self, context: Context, spec: ServerSpec) -> ServerSpec:
        """The spec, of no more servers than the quota has ports for."""
        order = PortsOrder(server_id="", context=context, requests=spec.networks,
                           security_groups=spec.security_groups)
        if spec.max_count > 1 and any(r.port_id or r.fixed_ip for r in spec.networks or ()):
            raise BadRequest("A port or a fixed IP can be given for one server only.", field="networks")
        try:
            most = await self._ask.network.check(order, spec.max_count, spec.min_count)
        except NotFound as error:
            raise BadRequest(error.message, field="networks", type=error.type) from None
        except QuotaExceeded as error:
            raise QuotaExceeded(f"Quota exceeded for ports: {error.message}") from None
        return spec if most == spec.max_count else msgspec.structs.replace(spec, max_count=most)

    def _rows(self, context: Context, plan: Plan, reservation: str, now: datetime) -> list[dict[str, Any]]:
        names = names_of(plan.spec)
        return [new_row(context, plan, msgspec.structs.replace(
            plan.spec, name=name, hostname=plan.spec.hostname or hostname(name)),
            {"id": str(uuid4()), "launch_index": n, "reservation_id": reservation, "created_at": now,
             "updated_at": now})
            for n, name in enumerate(names)]

    def _fit(self, connection: sa.Connection, context: Context, specs: Sequence[ServerSpec],
             flavors: Mapping[str, Flavor]) -> Sequence[ServerSpec]:
        """The specs; of one alone no more servers than there is quota for, if these are as many as it insists on, as
        Nova does. Raises QuotaExceeded."""
        project = context.project_id or ""
        limits = limits_of(connection, project, context.user_id or "", self._ask.quotas.defaults)
        used = quota_usage.used(connection, project)
        wanted = {"instances": sum(s.max_count for s in specs),
                  "cores": sum(s.max_count * flavors[s.flavor_id].vcpus for s in specs),
                  "ram": sum(s.max_count * flavors[s.flavor_id].memory_mb for s in specs)}
        over = [name for name in wanted if limits[name] >= 0 and used[name] + wanted[name] > limits[name]]
        if over and len(specs) == 1:
            (spec,) = specs
            least = min((limits[name] - used[name]) // max(1, wanted[name] // spec.max_count) for name in over)
            if least >= spec.min_count:
                return self._fit(connection, context, [msgspec.structs.replace(spec, max_count=least)], flavors)
        if over:
            def said(numbers: Mapping[str, int]) -> str:
                return ", ".join(str(numbers[n]) for n in over)
            raise QuotaExceeded(f"Quota exceeded for {', '.join(over)}: Requested {said(wanted)}, but already used "
                                f"{said(used)} of {said(limits)} {', '.join(over)}")
        if any(0 <= limits["metadata_items"] < len(spec.metadata) for spec in specs):
            raise QuotaExceeded(f"Maximum number of metadata items exceeds {limits['metadata_items']}")
        return specs

    def _now(self) -> datetime:
        return self._clock.now().replace(tzinfo=None)


def _flavor(connection: sa.Connection, context: Context, spec: ServerSpec) -> Flavor:
    """Raises BadRequest."""
    try:
        return find_flavor(connection, context, spec.flavor_id)
    except NotFound:
        raise BadRequest(f"Flavor {spec.flavor_id} could not be found.", field="flavorRef") from None


def names_of(spec: ServerSpec) -> list[str]:
    """The servers' names: the one given, or `name-1`, `name-2` ... for several."""
    if spec.max_count == 1:
        return [spec.name]
    return [f"{spec.name}-{n}" for n in range(1, spec.max_count + 1)]


def hostname(name: str) -> str:
    """A host name out of a display name, as Nova makes it: lower case, spaces and underscores to dashes, no other
    signs, at most 63 characters. Empty where nothing is left."""
    kept = re.sub(r"[^a-z0-9.-]+", "", re.sub(r"[ _]", "-", name.lower()))
    return re.sub(r"[.]+", "-", kept).strip("-")[:63].strip("-")


def check_image(image: ImageFacts, flavor: Flavor) -> None:
    """Raises BadRequest (Conflict for an image that is not active) where the flavor cannot hold the image."""
    if image.status != "active":
        raise BadRequest(f"Image {image.id} is not active.", field="imageRef")
    if flavor.memory_mb < image.min_ram:
        raise BadRequest(f"Flavor's memory is too small for requested image: {flavor.memory_mb} MB, image needs "
                         f"{image.min_ram} MB.", field="flavorRef")
    if not flavor.root_gb:
        return  # the root disk is as large as the image
    for said, needed in (("minimum disk", image.min_disk * GIB), ("virtual size", image.virtual_size or 0),
                         ("size", image.size or 0)):
        if flavor.root_gb * GIB < needed:
            raise BadRequest(f"Flavor's disk is too small for requested image. Flavor disk is {flavor.root_gb * GIB} "
                             f"bytes, image's {said} is {needed} bytes.", field="flavorRef")


def new_row(context: Context, plan: Plan, spec: ServerSpec, fixed: dict[str, Any]) -> dict[str, Any]:
    """A new server's row. spec: with this server's own name and hostname; fixed: id, index, reservation, times."""
    image = plan.image
    zone = (spec.availability_zone or "").partition(":")[0]
    return {
        **fixed, "name": spec.name, "project_id": context.project_id, "user_id": context.user_id,
        "vm_state": "building", "task_state": "scheduling", "power_state": "", "host": "", "allocation_id": "",
        "epoch": 0, "deleted": False, "locked": False, "pinned_zone": zone or None, "availability_zone": zone or None,
        "flavor_id": plan.flavor.id, "memory_mb": plan.flavor.memory_mb, "vcpus": plan.flavor.vcpus,
        "flavor": msgspec.to_builtins(plan.size), "metadata": spec.metadata, "tags": list(spec.tags),
        "image_id": spec.image_id, "image_properties": image.properties,
        "kernel_id": spec.kernel_id, "ramdisk_id": spec.ramdisk_id, "key_name": spec.key_name,
        "key": [plan.key.name, plan.key.type, plan.key.public_key] if plan.key else None,
        "description": spec.description, "hostname": spec.hostname or f"server-{fixed['id']}",
        "access_ip_v4": spec.access_ip_v4, "access_ip_v6": spec.access_ip_v6, "disk_config": spec.disk_config,
        "config_drive": spec.config_drive, "user_data": spec.user_data,
        "root_device_name": "/dev/vda", "security_groups": list(spec.security_groups or ("default",)),
        "trusted_certs": list(spec.trusted_certs), "group_id": spec.hints.get("group"), "hints": spec.hints,
        "fault": None,
    }
