"""A database of the release before, with servers in every state, comes to the ledger and the counters with nothing
lost, on each engine; and a cloud that is started over it, with its hosts' journals, goes on where it was."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from alembic import command
from cryptography.fernet import Fernet
from tests.contract.test_migration_of_bindings import DETAILS, before, insert, port
from tests.pure.test_node_journal import old_order, old_record

from nacre import migrations
from nacre.base.db import Database, make_engine
from nacre.base.db.statements import find
from nacre.base.rpc.memory import CONTROL, MemoryHub, MemoryTransport
from nacre.base.rpc.server import Peer
from nacre.cloud.control import Control, build_control
from nacre.cloud.node import build_node
from nacre.compute.tables import allocations, servers, usage
from nacre.config import load
from nacre.identity.tables import sealed_keys
from nacre.network import tables as network
from nacre.node.hypervisor.fake import FakeGuest, FakeHypervisor
from nacre.node.journal import Journal
from nacre.node.journal_v1 import allocation_of

NOW, IMAGE = datetime(2026, 1, 1), "7a3f0a0e-30f1-4d6c-b6b7-0d4f2c9d8f11"
#: server: vm_state, task_state, host, epoch, its attempts as (epoch, host), and the kind of its story.
SERVERS: dict[str, tuple[str, str | None, str, int, tuple[tuple[int, str], ...], str]] = {
    "accepted": ("building", "scheduling", "", 0, (), "build"),
    "tried": ("building", "networking", "h1", 1, ((1, "h1"),), "build"),
    "retried": ("building", "networking", "h1", 2, ((1, "h2"), (2, "h1")), "build"),
    "active": ("active", None, "h1", 1, ((1, "h1"),), ""),
    "wandered": ("active", None, "h1", 3, ((1, "h2"), (2, "h1"), (3, "h1")), ""),
    "stopped": ("stopped", None, "h1", 1, ((1, "h1"),), ""),
    "stopping": ("active", "powering-off", "h1", 1, ((1, "h1"),), "stop"),
    "rebooting": ("active", "rebooting_hard", "h1", 1, ((1, "h1"),), "reboot-hard"),
    "failed": ("error", None, "", 1, ((1, "h2"),), ""),
    "failed clean": ("error", None, "", 1, (), ""),
    "going": ("active", "deleting", "h1", 2, ((1, "h1"),), "delete"),
    "gone, and its host was silent": ("deleted", None, "h2", 2, ((1, "h2"),), ""),
    "gone": ("deleted", None, "h1", 2, (), ""),
}
SPECS = {"active": {"quota:vif_outbound_average": "250", "quota:disk_read_bytes_sec": "3000000"},
         "stopped": {"nacre:disk_shares": "4", "nacre:network_bandwidth": "7"}}
HINTS = {"active": {"network_bandwidth": 9, "disk_shares": "3"}, "wandered": {"disk_bandwidth": 5}}
#: What the journal of the release before says at each host: server, epoch, stage.
JOURNALS = {
    "h1": [("tried", 1, "claimed"), ("retried", 2, "prepared"), ("active", 1, "running"), ("wandered", 3, "running"),
           ("stopped", 1, "running"), ("stopping", 1, "running"), ("rebooting", 1, "running"),
           ("going", 1, "running")],
    "h2": [("retried", 1, "claimed"), ("failed", 1, "prepared"), ("wandered", 1, "closing"),
           ("gone, and its host was silent", 1, "running")]}
POWER = {"running": "running", "stopped": "shutdown"}


def server(name: str) -> dict[str, Any]:
    vm_state, task, host, epoch, _, _ = SERVERS[name]
    flavor = {"id": "f", "name": "f", "memory_mb": 512, "vcpus": 2, "root_gb": 3, "ephemeral_gb": 1, "swap_mb": 64,
              "extra_specs": SPECS.get(name, {})}
    return {
        "id": name, "name": name, "project_id": "q" if name == "accepted" else "p",
        "user_id": "two" if name == "active" else "one", "vm_state": vm_state, "task_state": task,
        "power_state": {"active": "running", "stopped": "shutdown"}.get(vm_state, ""), "epoch": epoch, "host": host,
        "created_at": NOW, "updated_at": NOW, "deleted": vm_state == "deleted", "flavor_id": "f", "memory_mb": 512,
        "vcpus": 2, "flavor": flavor, "metadata": {"role": "web"}, "tags": ["a"], "image_id": IMAGE,
        "image_properties": {}, "kernel_id": "", "ramdisk_id": "", "hostname": "h", "disk_config": "MANUAL",
        "config_drive": False, "reservation_id": "r", "launch_index": 0, "root_device_name": "/dev/vda",
        "security_groups": ["default"], "locked": False, "trusted_certs": [], "hints": HINTS.get(name, {}),
        "selected_dir": "/srv/one" if name == "stopped" else "",
        "fault": {"code": 500, "message": "no", "created_at": NOW.isoformat(), "details": ""}
        if vm_state == "error" else None}


def story(name: str, kind: str) -> dict[str, Any]:
    """Held by the process that was killed. Its order is as that release wrote it."""
    action = kind if kind in ("stop", "reboot-hard", "delete") else ""
    context = {"request_id": f"req-{name}", "user_id": "one", "project_id": "p", "roles": ["member", "reader"]}
    order = {"context": context, "server_ids": [name], "action": action, "spec": {
        "name": name, "flavor_id": "f", "image_id": IMAGE, "networks": [], "tags": ["a"],
        "admin_password": "sesame-7731", "files": [["/a", "Yg=="]]} if kind == "build" else None}
    return {"id": f"story of {name}", "kind": kind if kind in ("build", "delete") else "power", "created_at": NOW,
            "order": msgspec.msgpack.encode(order), "owner": "control", "lease_until": datetime(2100, 1, 1), "epoch": 3}


def report(host: str) -> dict[str, Any]:
    """What a host said then."""
    return {"host": host, "hypervisor_type": "fake", "hypervisor_version": 1, "vcpus": 64, "memory_mb": 65536,
            "disk_gb": 2048, "vcpus_used": 2, "memory_mb_used": 512, "disk_gb_used": 4.0, "servers": ["active"]}


def rows(connection: sa.Connection) -> None:
    before(connection)
    insert(connection, "identity_users", {
        "id": "one", "domain_id": "default", "name": "one", "enabled": True, "tokens_valid_from": 0.0, "extra": {}})
    insert(connection, "images", {
        "id": IMAGE, "name": "image", "owner": "p", "status": "active", "visibility": "public", "disk_format": "raw",
        "container_format": "bare", "size": 0, "min_disk": 0, "min_ram": 0, "protected": False, "os_hidden": False})
    insert(connection, "ports", *(port(
        f"{n} of {name}", device_id=name, device_owner="compute:nova", host="h1", vif_type="ovs", vif_details=DETAILS)
        for n, name in ((8, "active"), (9, "going"))))
    for name, (*_, attempts, kind) in SERVERS.items():
        insert(connection, "servers", server(name))
        insert(connection, "server_tags", {"server_id": name, "tag": "a"})
        for epoch, host in attempts:
            insert(connection, "attempts", {"server_id": name, "epoch": epoch, "host": host})
        if kind:
            insert(connection, "stories", story(name, kind))
    insert(connection, "attempts", {"server_id": "no such server", "epoch": 1, "host": "h1"})
    insert(connection, "compute_hosts", *({
        "uuid": host, "host": host, "report": report(host), "disabled": False, "forced_down": False}
        for host in ("h1", "h2")))


@pytest.fixture
def upgraded(database_url: str) -> Iterator[str]:
    command.upgrade(migrations._config(database_url), "0003")
    engine = make_engine(database_url)
    with engine.begin() as connection:
        rows(connection)
    engine.dispose()
    assert migrations.upgrade(database_url)
    yield database_url


def look(url: str, table: sa.Table) -> list[dict[str, Any]]:
    engine = make_engine(url)
    with engine.connect() as connection:
        found = find(connection, table)
    engine.dispose()
    return found


def test_attempts_become_the_ledger(upgraded: str) -> None:
    found = {(r["server_id"], r["epoch"]): r for r in look(upgraded, allocations)}
    assert {key: (r["host"], r["state"]) for key, r in found.items()} == {
        ("tried", 1): ("h1", "wanted"), ("retried", 1): ("h2", "ending"), ("retried", 2): ("h1", "wanted"),
        ("active", 1): ("h1", "held"), ("wandered", 1): ("h2", "ending"), ("wandered", 2): ("h1", "ending"),
        ("wandered", 3): ("h1", "held"), ("stopped", 1): ("h1", "held"), ("stopping", 1): ("h1", "held"),
        ("rebooting", 1): ("h1", "held"), ("failed", 1): ("h2", "ending"), ("going", 1): ("h1", "held"),
        ("gone, and its host was silent", 1): ("h2", "ending")}
    assert all(r["id"] == allocation_of(*key) for key, r in found.items())  # as the hosts' journals name them
    assert {r["purpose"] for r in found.values()} == {"build"}
    amounts = {key: tuple(r[name] for name in ("memory_mb", "vcpus", "disk_mb", "net_bandwidth", "disk_bandwidth",
                                               "disk_shares", "disk")) for key, r in found.items()}
    assert amounts["active", 1] == (512, 2, 4160, 2, 3, 3, "")
    assert amounts["stopped", 1] == (512, 2, 4160, 7, 0, 4, "/srv/one")
    assert amounts["wandered", 3] == (512, 2, 4160, 0, 5, 0, "")
    held = {key[0]: r["id"] for key, r in found.items() if r["state"] == "held"}
    assert {r["id"]: r["allocation_id"] for r in look(upgraded, servers)} == {name: held.get(name, "")
                                                                              for name in SERVERS}


def test_what_servers_take_is_counted(upgraded: str) -> None:
    assert {(r["project_id"], r["user_id"]): (r["instances"], r["cores"], r["ram"]) for r in look(upgraded, usage)} == {
        ("p", "one"): (9, 18, 9 * 512), ("p", "two"): (1, 2, 512), ("q", "one"): (1, 2, 512)}


class Cloud:
    """Control and both hosts, in this process."""

    def __init__(self, folder: Path, url: str):
        self.folder, self.hub, self.db = folder, MemoryHub(), Database(url)
        self.stack, self.control = AsyncExitStack(), None

    def settings(self, **more: str) -> Any:
        return load(self.folder, environ={"NACRE_HYPERVISOR": "fake", "NACRE_RPC_CONTROL_NAME": CONTROL.name,
                                          "NACRE_NODE_REPORT_PERIOD": "0.5", **more})

    def leave(self) -> None:
        """The files of the release before: keys, and each host's journal and guests."""
        keys = self.folder / "control" / "token-keys"
        keys.mkdir(parents=True)
        for number in (0, 1):
            (keys / str(number)).write_bytes(Fernet.generate_key())
        for host, entries in JOURNALS.items():
            folder = self.folder / "hosts" / host / "node"
            folder.mkdir(parents=True)
            (folder / "journal").write_bytes(b"".join(old_record(
                server_id=name, epoch=epoch, stage=stage, order=old_order(name, epoch))
                for name, epoch, stage in entries))
            guests = FakeHypervisor(folder=folder / "fake-guests")
            for name, _, stage in entries:
                guests.servers[name] = FakeGuest(name=name, power=None if stage != "running" else
                                                 "shutdown" if name == "stopped" else "running")
                guests._save(name)

    async def start(self) -> Control:
        control = build_control(self.settings(), MemoryTransport(self.hub), self.db)
        await self.stack.enter_async_context(control.running())
        for host in JOURNALS:
            own = msgspec.structs.replace(self.settings(NACRE_NODE_NAME=host),
                                          data_dir=str(self.folder / "hosts" / host))
            node = build_node(own, MemoryTransport(self.hub, me=Peer(host, "node")))
            await self.stack.enter_async_context(node())
        return control

    def guests(self, host: str) -> dict[str, str | None]:
        folder = self.folder / "hosts" / host / "node" / "fake-guests"
        return {name: guest.power for name, guest in FakeHypervisor(folder=folder).servers.items()}

    async def journal(self, host: str) -> set[str]:
        """After the end of its host."""
        journal = Journal(self.folder / "hosts" / host / "node" / "journal.db")
        found = {entry.allocation for entry in journal.all()}
        await journal.close()
        return found


@pytest.fixture
async def cloud(upgraded: str, tmp_path: Path) -> AsyncIterator[Cloud]:
    made = Cloud(tmp_path / "data", upgraded)
    made.leave()
    yield made
    await made.stack.aclose()
    await made.db.close()


async def test_a_cloud_goes_on_from_there(cloud: Cloud) -> None:
    await cloud.start()

    async def of(table: sa.Table) -> list[dict[str, Any]]:
        return await cloud.db.read(lambda c: find(c, table))

    def busy(found: list[dict[str, Any]], ledger: list[dict[str, Any]]) -> dict[str, Any]:
        """What is not at its end: servers and allocations, with their states."""
        return {s["id"]: s["task_state"] for s in found if s["task_state"]} | {
            a["id"]: (a["server_id"], a["state"]) for a in ledger if a["state"] != "held"}

    for _ in range(200):
        if not (left := busy(await of(servers), await of(allocations))):
            break
        await asyncio.sleep(0.1)
    assert not left
    states = {s["id"]: (s["vm_state"], s["task_state"]) for s in await of(servers)}
    active, stopped, failed = ("active", None), ("stopped", None), ("error", None)
    assert states == {
        "accepted": active, "tried": active, "retried": active, "active": active, "wandered": active,
        "rebooting": active, "stopped": stopped, "stopping": stopped, "failed": failed, "failed clean": failed,
        **dict.fromkeys(("going", "gone", "gone, and its host was silent"), ("deleted", None))}
    ledger = await of(allocations)
    where = {a["server_id"]: a["host"] for a in ledger}
    living = {name for name, state in states.items() if state in (active, stopped)}
    assert len(ledger) == len(living) and where.keys() == living
    assert {s["allocation_id"] for s in await of(servers) if s["id"] in living} == {a["id"] for a in ledger}
    for host in JOURNALS:
        assert cloud.guests(host) == {name: "running" if states[name] == active else "shutdown"
                                      for name in living if where[name] == host}
    counted = {(r["project_id"], r["user_id"]): r["instances"] for r in await of(usage)}
    assert counted == {("p", "one"): 8, ("p", "two"): 1, ("q", "one"): 1}
    assert {p["device_id"] for p in await of(network.ports) if p["device_owner"]} == {"active"}
    assert {k["purpose"] for k in await of(sealed_keys)} >= {"token", "credential"}
    assert not list((cloud.folder / "control").glob("token-keys/*"))
    await cloud.stack.aclose()
    for host in JOURNALS:
        assert await cloud.journal(host) == {a["id"] for a in ledger if a["host"] == host}
