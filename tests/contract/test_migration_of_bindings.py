"""A database with ports, as the release before had them, comes to a binding per host with nothing lost."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from tests.stories.network_cloud import CALLERS, Cloud

from nacre import migrations
from nacre.base.db import Database, make_engine
from nacre.base.errors import QuotaExceeded
from nacre.network import tables as t
from nacre.network.work import NetworkSettings

NOW = datetime(2026, 1, 1)
DETAILS = {"port_filter": True, "bridge_name": "br-int"}


def insert(connection: sa.Connection, table: str, *rows: dict[str, Any]) -> None:
    """Rows of a table as it is in the database, with the columns that every resource has filled where they are not
    given."""
    found = sa.Table(table, sa.MetaData(), autoload_with=connection)
    standard = {"description": "", "created_at": NOW, "updated_at": NOW, "revision_number": 1, "tags": [], "name": "",
                "project_id": "p"}
    connection.execute(sa.insert(found), [
        {c.name: row[c.name] if c.name in row else standard[c.name] for c in found.c
         if c.name in row or c.name in standard} for row in rows])


def port(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "network_id": "n", "mac_address": f"fa:16:3e:00:00:{name[-1:]:0>2}", "admin_state_up": True,
            "status": "DOWN", "device_id": "", "device_owner": "", "port_security_enabled": True,
            "allowed_address_pairs": [], "extra_dhcp_opts": [], "dns_name": "", "host": "", "vnic_type": "normal",
            "vif_type": "unbound", "vif_details": {}, "profile": {}, "preserve": False, "position": 0, **more}


def before(connection: sa.Connection) -> None:
    """A bound and wired port, a bound one, a failed one, a loose one, a DHCP port; two segments that bindings were
    given, of which one carries none."""
    insert(connection, "networks", {
        "id": "n", "admin_state_up": True, "mtu": 1450, "port_security_enabled": True, "external": False,
        "is_default": False, "dns_domain": "", "availability_zone_hints": []})
    insert(connection, "network_segments", *({
        "id": name, "network_id": "n", "network_type": kind, "physical_network": physical, "segmentation_id": number,
        "position": 0, "dynamic": dynamic, "claim": name} for name, kind, physical, number, dynamic in (
            ("vxlan", "vxlan", None, 7, False), ("used", "vlan", "rack", 100, True),
            ("leaked", "vlan", "rack", 101, True))))
    insert(connection, "ports", port("p1", host="h1", vif_type="ovs", vif_details=DETAILS, status="ACTIVE"),
           port("p2", host="h2", vif_type="ovs", vif_details=DETAILS, profile={"a": 1}),
           port("p3", host="h1", vif_type="binding_failed"),
           port("p4", vnic_type="direct", project_id="q"), port("p5", vif_type="distributed", status="ACTIVE"))
    insert(connection, "port_binding_levels", *({"port_id": p, "level": level, "host": host, "driver": driver,
                                                 "segment_id": segment} for p, level, host, driver, segment in (
        ("p1", 0, "h1", "openvswitch", "vxlan"), ("p2", 0, "h2", "tor_vlan", "vxlan"),
        ("p2", 1, "h2", "openvswitch", "used"))))
    insert(connection, "security_groups", {"id": "g", "stateful": True})
    insert(connection, "port_security_groups", *({"port_id": f"p{n}", "group_id": "g"} for n in (1, 2, 4)))
    insert(connection, "network_agents", *({
        "id": host, "host": host, "agent_type": kind, "admin_state_up": True, "description": None,
        "configurations": config, "started_at": NOW, "heartbeat_at": NOW, "created_at": NOW}
        for host, kind, config in (
            *((h, "Open vSwitch agent", {"tunnel_ip": ip}) for h, ip in (
                ("h1", "192.0.2.1"), ("h2", "evil"), ("h3", "fd00::1"), ("h4", None))),
            ("h5", "DHCP agent", {}))))


@pytest.fixture
def upgraded(database_url: str) -> Iterator[sa.Connection]:
    script = ScriptDirectory.from_config(migrations._config(database_url))
    ours = next(s for s in script.walk_revisions() if "a binding per host" in str(s.doc))
    command.upgrade(migrations._config(database_url), str(ours.down_revision))
    engine = make_engine(database_url)
    with engine.begin() as connection:
        before(connection)
    engine.dispose()
    assert migrations.upgrade(database_url)
    engine = make_engine(database_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_every_port_has_its_binding_with_what_hung_on_it(upgraded: sa.Connection) -> None:
    found = {r.id: (r.host, r.active, r.wired, r.vnic_type, r.vif_type, r.vif_details, r.profile)
             for r in upgraded.execute(sa.select(t.placed))}
    assert found == {
        "p1": ("h1", True, True, "normal", "ovs", DETAILS, {}),
        "p2": ("h2", True, False, "normal", "ovs", DETAILS, {"a": 1}),
        "p3": ("h1", True, False, "normal", "binding_failed", {}, {}),
        "p4": ("", True, False, "direct", "unbound", {}, {}),
        "p5": ("", True, False, "normal", "distributed", {}, {})}
    assert {(r.port_id, r.host, r.level, r.driver, r.segment_id) for r in upgraded.execute(sa.select(t.levels))} == {
        ("p1", "h1", 0, "openvswitch", "vxlan"), ("p2", "h2", 0, "tor_vlan", "vxlan"),
        ("p2", "h2", 1, "openvswitch", "used")}
    assert {tuple(r) for r in upgraded.execute(sa.select(t.binding_groups))} == {("g", "h1", "p1"), ("g", "h2", "p2")}
    assert {r.id for r in upgraded.execute(sa.select(t.segments))} == {"vxlan", "used"}
    assert {r.host: r.tunnel_ip for r in upgraded.execute(sa.select(t.agents))} == {
        "h1": "192.0.2.1", "h2": None, "h3": None, "h4": None, "h5": None}


def test_what_projects_have_is_counted(upgraded: sa.Connection) -> None:
    assert {(r.project_id, r.resource): r.used for r in upgraded.execute(sa.select(t.usage))} == {
        ("p", "network"): 1, ("p", "port"): 4, ("q", "port"): 1, ("p", "security_group"): 1}


async def test_the_service_goes_on_from_there(upgraded: sa.Connection, database_url: str) -> None:
    upgraded.rollback()
    db = Database(database_url)
    network = Cloud(db, NetworkSettings(quotas={"port": 4})).network
    assert [(p.id, p.active) for p in (await network.wiring("h1")).ports] == [("p1", True)]
    assert "192.0.2.1" in {r.tunnel_ip for r in (await network.wiring("h2")).remotes}
    with pytest.raises(QuotaExceeded):
        await network.write(CALLERS["one"], lambda work: work.room("port", "p"))
    await db.close()
