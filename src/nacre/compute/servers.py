"""Servers: what the API asks for is checked, written in one transaction with the story that will make it so, and only
then said to be accepted."""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from nacre.base.errors import BadRequest, Conflict, Forbidden, NotFound, QuotaExceeded
from nacre.compute import history, planning, quota_usage, records
from nacre.compute.catalog.flavors import Flavor, Flavors, find_flavor
from nacre.compute.catalog.keypairs import KeyPair, KeyPairs
from nacre.compute.catalog.quotas import Quotas, limits_of
from nacre.compute.catalog.server_groups import find_group
from nacre.compute.contract import Server, ServerFlavor, ServerQuery, ServerSpec, StoryOrder
from nacre.compute.policies import rule
from nacre.compute.records import get_row, move, server_of
from nacre.compute.tables import server_tags, servers
from nacre.identity.contract import Policy
from nacre.image.contract import ImageFacts, Images
from nacre.network.contract import Network, PortsOrder

#: Runs a story that was committed. It cannot fail: a story that nobody runs is found by its row.
Run = Callable[[Story], None]

_encode = msgspec.msgpack.Encoder().encode



@dataclass(frozen=True)
class Suppliers:
    """Whom a create asks before it accepts."""

    flavors: Flavors
    keypairs: KeyPairs
    quotas: Quotas
    images: Images
    network: Network
    policy: Policy


class Servers:
    """What the API does to servers. Callers have checked policy."""

    def __init__(self, db: Database, clock: Clock, ask: Suppliers, stories: Stories, run: Run):
        self._db, self._clock, self._ask, self._stories, self._run = db, clock, ask, stories, run

    async def get(self, server_id: str, *, deleted: bool = False) -> Server:
        """One server. deleted: also one that is gone. Raises NotFound."""
        return server_of(await self._db.read(lambda c: get_row(c, server_id, deleted=deleted)))

    async def search(self, query: ServerQuery) -> list[Server]:
        """The servers of a query. Raises BadRequest."""
        return await self._db.read(lambda c: records.search(c, query))

    async def used(self, project_id: str, user_id: str | None = None) -> dict[str, int]:
        """What a project's servers take: instances, cores, ram (MB)."""
        return await self._db.read(lambda c: quota_usage.used(c, project_id, user_id))

    async def lived(self, start: datetime, end: datetime, project_id: str | None) -> list[Server]:
        """Every server, of a project or of all, that was there at some time between `start` and `end`: deleted ones
        too."""
        c = servers.c
        wanted = [c.launched_at.is_not(None), c.launched_at < end,
                  sa.or_(c.terminated_at.is_(None), c.terminated_at >= start)]
        if project_id is not None:
            wanted.append(c.project_id == project_id)
        rows = await self._db.read(lambda connection: connection.execute(
            sa.select(servers).where(*wanted).order_by(c.number)).mappings().all())
        return [server_of(dict(row)) for row in rows]

    async def on_hosts(self, hosts: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
        """host -> its servers as (id, domain name)."""
        wanted = list(hosts)
        rows = await self._db.read(lambda c: c.execute(sa.select(
            servers.c.host, servers.c.id, servers.c.number).where(
            servers.c.deleted.is_(False), servers.c.host.in_(wanted)).order_by(servers.c.number)).all())
        found: dict[str, list[tuple[str, str]]] = {}
        for host, server_id, number in rows:
            found.setdefault(host, []).append((server_id, records.domain_name(number, server_id)))
        return found

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

    async def _plan(self, context: Context, spec: ServerSpec, flavor: Flavor) -> "Plan":
        """The spec with what it names looked up and checked against each other. Changes nothing."""
        image = await self._image(context, spec.image_id, "imageRef") if spec.image_id else None
        if image is None:
            raise BadRequest("Invalid image provided: a server boots from an image here.", field="imageRef")
        for name in ("kernel_id", "ramdisk_id"):
            if linked := getattr(spec, name) or image.properties.get(name, ""):
                await self._image(context, linked, name)
                spec = msgspec.structs.replace(spec, **{name: linked})
        planning.check_image(image, flavor)
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

    def _rows(self, context: Context, plan: "Plan", reservation: str, now: datetime) -> list[dict[str, Any]]:
        names = planning.names(plan.spec)
        return [planning.row(context, plan, msgspec.structs.replace(
            plan.spec, name=name, hostname=plan.spec.hostname or planning.hostname(name)),
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

    async def delete(self, context: Context, server: Server) -> None:
        """Accept a delete; the story does it. Harmless where one is under way."""
        await self._begin(context, server, "delete", "delete", "delete")

    async def power(self, context: Context, server: Server, action: str) -> None:
        """action: start, stop, reboot-soft, reboot-hard. Raises Conflict in a state that forbids it."""
        await self._begin(context, server, action, "power", action.partition("-")[0])

    async def _begin(self, context: Context, server: Server, event: str, kind: str, action: str) -> None:
        """Compare-and-set to the event's state, with the action's start and the story, in one transaction."""
        now = self._now()

        def unit(connection: sa.Connection) -> Story | None:
            row = get_row(connection, server.id)
            if row["task_state"] == "deleting" and event == "delete":
                return None
            move(connection, row, event, now)
            if kind == "power" and not row["host"]:
                raise Conflict(f"Instance {server.id} is not ready")  # it was never built, and its fault says why
            history.begin(connection, context, [server.id], action, now)
            changes.note(connection, now, ("server", server.id), project_id=row["project_id"])
            return self._stories.insert(connection, kind, _encode(StoryOrder(
                context=context, server_ids=(server.id,), action=event)), now)

        if story := await self._db.run(unit):
            self._run(story)

    async def update(self, server_id: str, change: Callable[[Server], Mapping[str, Any]]) -> Server:
        """Change plain fields (name, description, hostname, metadata, tags, addresses, lock). change: from the server
        as it is in the transaction to the fields' new values, so that of two at once none is lost. Raises NotFound, and
        what `change` raises."""
        now = self._now()

        def unit(connection: sa.Connection) -> Server:
            row = get_row(connection, server_id)
            values = dict(change(server_of(row)))
            if not values:
                return server_of(row)
            if "tags" in values:
                values["tags"] = list(values["tags"])
                connection.execute(sa.delete(server_tags).where(server_tags.c.server_id == server_id))
                if values["tags"]:
                    connection.execute(sa.insert(server_tags), [
                        {"server_id": server_id, "tag": t} for t in values["tags"]])
            connection.execute(sa.update(servers).where(servers.c.id == server_id).values(**values, updated_at=now))
            changes.note(connection, now, ("server", server_id), project_id=row["project_id"])
            return server_of(get_row(connection, server_id))

        return await self._db.run(unit)

    def _now(self) -> datetime:
        return self._clock.now().replace(tzinfo=None)


def _flavor(connection: sa.Connection, context: Context, spec: ServerSpec) -> Flavor:
    """Raises BadRequest."""
    try:
        return find_flavor(connection, context, spec.flavor_id)
    except NotFound:
        raise BadRequest(f"Flavor {spec.flavor_id} could not be found.", field="flavorRef") from None


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


#: What a new row's columns that nobody set hold.
_EMPTY: dict[str, Any] = {c.name: None for c in servers.columns} | {
    "power_state": "", "host": "", "allocation_id": "", "epoch": 0, "deleted": False, "locked": False, "number": 0,
    "root_device_name": "/dev/vda"}
