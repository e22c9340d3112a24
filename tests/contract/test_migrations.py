"""What the migrations make is what the tables say, on each engine; upgrading again changes nothing."""

import datetime as dt
import importlib
import json

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from nacre import migrations
from nacre.base.clock import RealClock
from nacre.base.db import make_engine, metadata
from nacre.base.durable import eras
from nacre.base.durable.processes import BEAT, LEASE, database_now
from nacre.base.errors import NacreError
from nacre.identity.ended import end
from nacre.identity.ended import since as since_then
from nacre.identity.tables import access_rules, ended, services
from nacre.migrations import controls
from nacre.migrations.tables import MODULES
from nacre.network.nouns.network import NetworkSegment
from nacre.network.nouns.port import Port
from nacre.network.work import columns


def test_migrations_and_tables_agree(database_url: str) -> None:
    for module in MODULES:
        importlib.import_module(module)
    assert migrations.upgrade(database_url)
    engine = make_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        different = compare_metadata(context, metadata)
    engine.dispose()
    assert different == []
    assert not migrations.upgrade(database_url)
    assert migrations.current(database_url) == migrations.newest()


def test_a_database_of_a_newer_release_is_left_alone(database_url: str) -> None:
    migrations.upgrade(database_url)
    engine = make_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = '9999'")
    engine.dispose()
    with pytest.raises(NacreError, match="9999"):
        migrations.upgrade(database_url)


class Control:
    """Of an earlier release, on a database of that. Instead of a second passing it writes what is left of its lease, in
    parts of a whole one."""

    def __init__(self, url: str, *left: float):
        self.url, self.left, self.waited_for = url, list(left), 0
        self.lease(self.left.pop(0))

    def lease(self, parts: float) -> None:
        engine = make_engine(self.url)
        with engine.begin() as connection:
            until = database_now(connection, RealClock()) + dt.timedelta(seconds=parts * controls.LEASE)
            connection.execute(sa.text("update processes set lease_until = :until where role = 'control'"),
                               {"until": until})
        engine.dispose()

    def pause(self, seconds: float) -> None:
        self.waited_for += 1
        if self.left:
            self.lease(self.left.pop(0))


@pytest.fixture
def earlier(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database of an earlier release, with a control and a host. Leases last an hour, however slow all is."""
    monkeypatch.setattr(controls, "LEASE", 3600.0)
    command.upgrade(migrations._config(database_url), "0020")
    engine = make_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text(
            "insert into processes (id, role, name, address, public_key, version, generation, started_at, seen_at,"
            " lease_until) values (:role, :role, :name, '192.0.2.1:8774', :role, '0.0.9', 1, :now, :now, :now)"),
            [{"role": role, "name": name, "now": dt.datetime(2036, 11, 20)}
             for role, name in (("control", "first"), ("node", "host"))])
    engine.dispose()
    return database_url


def at_once(seconds: float) -> None:
    pytest.fail("it waits")


def test_no_control_of_an_earlier_release_runs_on_an_upgraded_database(earlier: str) -> None:
    lives = Control(earlier, 0.9)
    with pytest.raises(NacreError, match=r"control first at 192.0.2.1:8774 \(release 0.0.9\) runs.*nacre down") as said:
        migrations.upgrade(earlier, lives.pause)
    assert "at revision 0020" in str(said.value) and migrations.current(earlier) == "0020"
    Control(earlier, 0)  # it ended, and said so
    assert migrations.upgrade(earlier, at_once)
    Control(earlier, 0.9)  # one of this release: others may start beside it
    assert not migrations.upgrade(earlier, at_once)


@pytest.mark.parametrize("left", [(0.9, 0.6, 0.3, 0), (9.0,)], ids=["its lease ends", "its clock was set back since"])
def test_a_control_that_is_dead_holds_up_no_upgrade_for_longer_than_its_lease(
        earlier: str, left: tuple[float, ...]) -> None:
    dead = Control(earlier, *left)
    assert migrations.upgrade(earlier, dead.pause)
    assert 0 < dead.waited_for * BEAT <= LEASE + BEAT


def test_image_data_of_a_cloud_with_one_control(database_url: str) -> None:
    """0007: what was written, what was being written, what has no data."""
    command.upgrade(migrations._config(database_url), "0003")
    engine, now = make_engine(database_url), dt.datetime(2026, 11, 20)
    rows = {"active": ("key-1", None), "saving": ("key-2", "control"), "importing": ("key-3", "control"),
            "uploading": ("key-4", None), "queued": (None, None), "snapshot": (None, "host")}
    with engine.begin() as connection:
        connection.execute(sa.text(
            "insert into images (id, status, visibility, min_disk, min_ram, protected, os_hidden, data_key, worker,"
            " created_at, updated_at) values (:id, :status, 'shared', 0, 0, :no, :no, :key, :worker, :now, :now)"),
            [{"id": name, "status": name, "key": key, "worker": worker, "now": now, "no": False}
             for name, (key, worker) in rows.items()])
    migrations.upgrade(database_url)
    with engine.begin() as connection:
        found = connection.execute(sa.text(
            "select image_id, data_key, store, place, writer from image_locations order by data_key")).all()
        assert [tuple(row) for row in found] == [
            ("active", "key-1", "file", "", None), ("saving", "key-2", "file", "", "control"),
            ("importing", "key-3", "file", "", "control"), ("uploading", "key-4", "file", "", None)]
    engine.dispose()


@pytest.mark.parametrize(("users", "cloud"), [(1, True), (1, False), (0, True), (0, False)])
def test_the_first_rows_of_a_cloud_that_was_started_are_not_made_again(
        database_url: str, users: int, cloud: bool) -> None:
    """0008: a cloud with users has them; one that has no id yet gets it."""
    command.upgrade(migrations._config(database_url), "0007")
    engine, now = make_engine(database_url), dt.datetime(2026, 11, 20)
    with engine.begin() as connection:
        if users:
            connection.execute(sa.text(
                "insert into identity_users (id, domain_id, name, enabled, tokens_valid_from, extra)"
                " values ('u', 'default', 'admin', :yes, 0.0, '{}')"), {"yes": True})
        if cloud:
            connection.execute(sa.text("insert into cloud (number, id, created_at) values (1, 'mine', :now)"),
                               {"now": now})
    migrations.upgrade(database_url)
    with engine.begin() as connection:
        kept = connection.execute(sa.text("select id, first_rows_at from cloud")).all()
    engine.dispose()
    assert len(kept) == (1 if users or cloud else 0)
    assert all((first is not None) == bool(users) for _, first in kept)
    assert not cloud or kept[0][0] == "mine"


def test_what_hosts_have_seen_before_there_were_eras_is_judged_by_its_number(database_url: str) -> None:
    """0009: the nameless era ends with the next start of a control."""
    change = sa.text("insert into changes (n, kind, id, project_id, at) values (:n, 'host', 'h', '', :now)")
    command.upgrade(migrations._config(database_url), "0008")
    engine, now = make_engine(database_url), dt.datetime(2026, 11, 20)
    with engine.begin() as connection:
        connection.execute(change, [{"n": n, "now": now} for n in range(1, 11)])
    migrations.upgrade(database_url)
    with engine.begin() as connection:
        assert eras.position(connection) == eras.Position(10, "")
        assert eras.later(connection, [eras.Position(10), eras.Position(11)]) == {eras.Position(11)}
        connection.execute(change, {"n": 11, "now": now})
        eras.begin(connection)
        assert eras.position(connection).n == 11 and eras.position(connection).era
        assert eras.later(connection, [eras.Position(10), eras.Position(11)]) == {eras.Position(11)}
    engine.dispose()


def test_services_get_the_names_that_clients_look_for_and_access_rules_keep_their_order(database_url: str) -> None:
    """0013: our own names become the common ones, an operator's stay."""
    command.upgrade(migrations._config(database_url), "0009")
    engine = make_engine(database_url)
    service = sa.text("insert into identity_services (id, type, enabled, extra) values (:id, :type, :yes, :extra)")
    rule = sa.text("insert into identity_access_rules (id, user_id, service, path, method)"
                   " values (:id, 'u', 'compute', :id, 'GET')")
    with engine.begin() as connection:
        connection.execute(service, [{"id": f"{type}-{name}", "type": type, "yes": True, "extra": json.dumps(
            {"name": name, "description": "kept"})} for type, name in (
                ("identity", "nacre-identity"), ("image", "nacre-image"), ("compute", "nacre-compute"),
                ("network", "nacre-network"), ("compute", "mine"), ("dns", "nacre-compute"))])
        connection.execute(rule, [{"id": id} for id in ("a", "b", "c", "d")])
        connection.execute(sa.text(
            "insert into identity_application_credentials (id, user_id, project_id, name, secret_hash, role_ids,"
            " access_rule_ids, unrestricted) values ('x', 'u', 'p', 'x', '', '[]', :rules, :no)"),
            {"no": False, "rules": '["d", "b"]'})
        connection.execute(sa.text("insert into identity_revision (id, value) values (1, 7)"))
    migrations.upgrade(database_url)
    with engine.begin() as connection:
        named = {row.id: row.extra for row in connection.execute(sa.select(services))}
        ordered = connection.scalars(sa.select(access_rules.c.id).order_by(access_rules.c.number)).all()
        assert connection.scalar(sa.text("select value from identity_revision")) == 8
    engine.dispose()
    assert {id: extra["name"] for id, extra in named.items()} == {
        "identity-nacre-identity": "keystone", "image-nacre-image": "glance", "compute-nacre-compute": "nova",
        "network-nacre-network": "neutron", "compute-mine": "mine", "dns-nacre-compute": "nacre-compute"}
    assert all(extra["description"] == "kept" for extra in named.values())
    assert ordered == ["d", "b", "a", "c"]


def test_who_locked_a_server_was_not_written_down(database_url: str) -> None:
    """0015: the owner may unlock what is locked, as until then."""
    command.upgrade(migrations._config(database_url), "0014")
    engine = make_engine(database_url)
    with engine.begin() as connection:
        table = sa.Table("servers", sa.MetaData(), autoload_with=connection)
        plain = {str: "x", int: 0, bool: False, object: {}, dt.datetime: dt.datetime(2026, 11, 20)}
        row = {c.name: plain[c.type.python_type] for c in table.columns if not c.nullable and not c.primary_key}
        connection.execute(sa.insert(table), [row | {"id": "a", "locked": True}, row | {"id": "b", "locked": False}])
    migrations.upgrade(database_url)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("select id, locked_by from servers order by id").all()
    engine.dispose()
    assert [tuple(each) for each in found] == [("a", "owner"), ("b", None)]


def test_networks_and_hosts_of_before(database_url: str) -> None:
    """0014: what a policy opens as an external network is one; an address that nobody reaches is no tunnel's."""
    command.upgrade(migrations._config(database_url), "0009")
    engine, now = make_engine(database_url), dt.datetime(2026, 11, 20)
    with engine.begin() as connection:
        connection.execute(sa.text(
            "insert into networks (id, project_id, description, created_at, updated_at, revision_number, tags, name,"
            " admin_state_up, mtu, port_security_enabled, external, is_default, dns_domain, availability_zone_hints)"
            " values (:id, 'p', '', :now, :now, 1, '[]', '', :yes, 1450, :yes, :no, :no, '', '[]')"),
            [{"id": name, "now": now, "yes": True, "no": False} for name in ("opened", "shared", "own")])
        connection.execute(sa.text(
            "insert into network_rbac_policies (id, project_id, object_type, object_id, action, target_project)"
            " values (:id, 'p', 'network', :id, :action, '*')"), [
                {"id": "opened", "action": "access_as_external"}, {"id": "shared", "action": "access_as_shared"}])
        connection.execute(sa.text(
            "insert into network_agents (id, host, agent_type, admin_state_up, configurations, tunnel_ip, created_at,"
            " started_at, heartbeat_at) values (:id, :id, 'Open vSwitch agent', :yes, '{}', :at, :now, :now, :now)"), [
                {"id": host, "at": at, "now": now, "yes": True} for host, at in (
                    ("h1", "127.0.0.1"), ("h2", "192.0.2.1"), ("h3", None))])
    migrations.upgrade(database_url)
    with engine.begin() as connection:
        assert set(connection.execute(sa.text("select id from networks where external")).scalars()) == {"opened"}
        assert dict(connection.execute(sa.text("select host, tunnel_ip from network_agents")).all()) == {
            "h1": None, "h2": "192.0.2.1", "h3": None}


def test_hosts_that_were_known_are_written_by_their_next_report(database_url: str) -> None:
    """0012: their rows are of no number yet."""
    command.upgrade(migrations._config(database_url), "0009")
    engine, now = make_engine(database_url), dt.datetime(2026, 11, 21)
    said = sa.bindparam("said", type_=sa.JSON)
    with engine.begin() as connection:
        connection.execute(sa.text(
            "insert into compute_hosts (uuid, host, report, disabled, forced_down, accepted, created_at, updated_at) "
            "values ('u', 'h', :said, :no, :no, :no, :now, :now)").bindparams(said), {
                "said": {"host": "h"}, "no": False, "now": now})
    migrations.upgrade(database_url)
    with engine.begin() as connection:
        row = connection.execute(sa.text("select host, incarnation, n from compute_hosts")).one()
        assert tuple(row) == ("h", 0, 0)
    engine.dispose()


def test_what_ended_before_it_was_written_down_when_is_kept_from_then_on(database_url: str) -> None:
    """0020."""
    command.upgrade(migrations._config(database_url), "0016")
    engine = make_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("insert into identity_ended (id, revision) values ('user:u', 7)")
    migrations.upgrade(database_url)
    with engine.begin() as connection:
        [(revision, at)] = connection.execute(sa.text("select revision, ended_at from identity_ended")).all()
    engine.dispose()
    assert revision == 7 and abs(at - dt.datetime.now(dt.UTC).timestamp()) < 3600


def test_address_scopes_that_were_there_are_counted(database_url: str) -> None:
    """0022."""
    command.upgrade(migrations._config(database_url), "0020")
    engine = make_engine(database_url)
    with engine.begin() as connection:
        for ident, project in (("a", "p"), ("b", "p"), ("c", "q")):
            connection.execute(sa.text(
                "insert into address_scopes (id, project_id, description, created_at, updated_at, revision_number,"
                " tags, name, ip_version) values (:id, :project, '', :now, :now, 0, '[]', '', 4)"),
                {"id": ident, "project": project, "now": dt.datetime(2026, 1, 1)})
    migrations.upgrade(database_url)
    with engine.begin() as connection:
        rows = connection.execute(sa.text(
            "select project_id, used from network_usage where resource = 'address_scope'")).all()
    engine.dispose()
    assert {tuple(row) for row in rows} == {("p", 2), ("q", 1)}


def test_tokens_that_were_over_stay_so(database_url: str) -> None:
    """0023: a token that was taken back; a user's of before its password changed, if they are older than revisions are.
    Nobody else's: a user who has changed it since is there already, or was forgotten for its age."""
    command.upgrade(migrations._config(database_url), "0022")
    engine = make_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("insert into identity_revision (id, value) values (1, 7)")
        connection.exec_driver_sql("insert into identity_ended (id, revision, ended_at) values ('user:since', 5, 9.0)")
        connection.exec_driver_sql(
            "insert into identity_revocations (audit_id, revoked_at, expires_at) values ('a', 1.0, 2.0)")
        connection.execute(sa.text(
            "insert into identity_users (id, domain_id, name, enabled, tokens_valid_from, extra)"
            " values (:id, 'default', :id, :yes, :since, '{}')"), [
                {"id": id, "yes": True, "since": since} for id, since in (("since", 9.0), ("before", 8.0), ("u", 0.0))])
    migrations.upgrade(database_url)
    with engine.begin() as connection:
        rows = {tuple(row) for row in connection.execute(sa.select(ended.c.id, ended.c.revision, ended.c.ended_at))}
        assert rows == {("user:since", 5, 9.0), ("user:before", 1, 0.0), ("token:a", 8, 0.0)}
        for id, at, is_over in (("token:a", 7, True), ("token:b", 7, False), ("user:before", 0, True),
                                ("user:before", 1, False), ("user:u", 0, False), ("user:since", 4, True)):
            assert since_then(connection, at, [id]) is is_over, id
        end(connection, ["user:x"])  # which says of the others that they are from now on
        assert set(connection.scalars(sa.select(ended.c.id))) == {"anything", "user:before", "token:a", "user:x"}
        assert not since_then(connection, 5, ["user:u"])
    engine.dispose()


def test_hosts_that_were_there_keep_no_differences_of_networks_yet(database_url: str) -> None:
    """0025: until they say so themselves."""
    command.upgrade(migrations._config(database_url), "0024")
    engine = make_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text(
            "insert into network_agents (id, host, agent_type, admin_state_up, configurations, tunnel_ip, created_at,"
            " started_at, heartbeat_at) values ('a', 'h', 'Open vSwitch agent', :yes, '{}', '192.0.2.1', :now, :now,"
            " :now)"), {"yes": True, "now": dt.datetime(2026, 1, 1)})
    migrations.upgrade(database_url)
    with engine.begin() as connection:
        assert connection.execute(sa.text("select host, takes_differences from network_agents")).all() == [("h", False)]
        connection.exec_driver_sql("insert into network_port_changes (network_id, n, port_id) values ('n', 7, 'p')")
        connection.exec_driver_sql("insert into network_port_changes (network_id, n, port_id) values ('n', 7, 'q')")
    engine.dispose()


def test_routers_and_floating_ips_of_before(database_url: str) -> None:
    """0026: no gateway host is elected yet, and an address may have a floating IP of each external network."""
    command.upgrade(migrations._config(database_url), "0025")
    engine, now = make_engine(database_url), dt.datetime(2026, 1, 1)
    insert = ("insert into floatingips (id, project_id, description, created_at, updated_at, revision_number, tags, "
              "floating_network_id, floating_ip_address, floating_port_id, port_id, fixed_ip_address, status, "
              "dns_name, dns_domain) values (:id, 'p', '', :now, :now, 0, '[]', :net, '192.0.2.1', :id, 'port', "
              "'10.0.0.5', 'DOWN', '', '')")
    with engine.begin() as connection:
        connection.execute(sa.text(
            "insert into routers (id, project_id, description, created_at, updated_at, revision_number, tags, name, "
            "admin_state_up, enable_snat, routes, availability_zone_hints) "
            "values ('r', 'p', '', :now, :now, 0, '[]', '', :yes, :yes, '[]', '[]')"), {"now": now, "yes": True})
        connection.execute(sa.text(insert), {"id": "f", "net": "one", "now": now})
    migrations.upgrade(database_url)
    with engine.begin() as connection:
        row = connection.execute(sa.text("select gateway_host, gateway_term, distributed, ha from routers")).one()
        assert tuple(row) == (None, 0, False, False)
        connection.execute(sa.text(insert), {"id": "g", "net": "two", "now": now})
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        connection.execute(sa.text(insert), {"id": "h", "net": "two", "now": now})
    engine.dispose()


def test_segments_that_were_there_are_as_old_as_their_networks(database_url: str) -> None:
    """0027: a segment is a resource of its own, and ports and subnets have attributes more."""
    command.upgrade(migrations._config(database_url), "0026")
    engine = make_engine(database_url)
    then = {"now": dt.datetime(2026, 2, 3, 4, 5, 6), "yes": True, "no": False}
    with engine.begin() as connection:
        for statement in (
                "insert into networks (id, project_id, description, created_at, updated_at, revision_number, tags,"
                " name, admin_state_up, mtu, port_security_enabled, external, is_default, dns_domain,"
                " availability_zone_hints) values ('n', 'p', '', :now, :now, 0, '[]', '', :yes, 1450, :yes, :no, :no,"
                " '', '[]')",
                "insert into network_segments (id, network_id, network_type, segmentation_id, position, dynamic, claim)"
                " values ('s', 'n', 'vxlan', 7, 0, :no, 'vxlan::7')",
                "insert into ports (id, project_id, description, created_at, updated_at, revision_number, tags, name,"
                " network_id, mac_address, admin_state_up, status, device_id, device_owner, port_security_enabled,"
                " allowed_address_pairs, extra_dhcp_opts, dns_name, preserve, position) values ('q', 'p', '', :now,"
                " :now, 0, '[]', '', 'n', 'fa:16:3e:00:00:01', :yes, 'DOWN', '', '', :yes, '[]', '[]', '', :no, 0)"):
            connection.execute(sa.text(statement), then)
    migrations.upgrade(database_url)
    with engine.begin() as connection:
        [segment] = [NetworkSegment(*row) for row in connection.execute(sa.select(*columns(NetworkSegment)))]
        [port] = [Port(*row) for row in connection.execute(sa.select(*columns(Port)))]
    engine.dispose()
    assert (segment.created_at, segment.updated_at, segment.revision_number) == (then["now"], then["now"], 1)
    assert (segment.name, segment.tags, segment.project_id, segment.segmentation_id) == (None, [], "", 7)
    assert (port.qos_policy_id, port.dns_domain, port.name) == (None, "", "")


def test_no_physical_network_has_no_name(database_url: str) -> None:
    """0024: one without a name was written down by earlier releases, and no segment was free beside it."""
    command.upgrade(migrations._config(database_url), "0023")
    engine = make_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text(
            "insert into networks (id, project_id, description, created_at, updated_at, revision_number, tags, name,"
            " admin_state_up, mtu, port_security_enabled, external, is_default, dns_domain, availability_zone_hints)"
            " values ('n', 'p', '', :now, :now, 0, '[]', '', :yes, 1450, :yes, :no, :no, '', '[]')"),
            {"now": dt.datetime(2026, 1, 1), "yes": True, "no": False})
        for id, name in (("s", ""), ("t", "physnet1")):
            connection.execute(sa.text(
                "insert into network_segments (id, network_id, network_type, physical_network, segmentation_id,"
                " position, dynamic) values (:id, 'n', 'vxlan', :name, 7, 0, :no)"),
                {"id": id, "name": name, "no": False})
    migrations.upgrade(database_url)
    with engine.begin() as connection:
        found = connection.execute(sa.text("select id, physical_network from network_segments order by id")).all()
    assert found == [("s", None), ("t", "physnet1")]
    engine.dispose()
