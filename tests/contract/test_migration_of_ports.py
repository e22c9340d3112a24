"""0011: whose interface a port is was read out of what its owner says of it; it is written down for what is true."""

import sqlalchemy as sa
from alembic import command
from tests.contract.test_migration_of_bindings import insert, port
from tests.contract.test_migration_of_servers import server

from nacre import migrations
from nacre.base.db import make_engine


def test_a_port_that_only_says_so_becomes_no_interface(database_url: str) -> None:
    command.upgrade(migrations._config(database_url), "0003")
    engine = make_engine(database_url)
    with engine.begin() as connection:
        insert(connection, "networks", {
            "id": "n", "admin_state_up": True, "mtu": 1450, "port_security_enabled": True, "external": False,
            "is_default": False, "dns_domain": "", "availability_zone_hints": []})
        insert(connection, "servers", server("active"))
        its = {"device_id": "active", "device_owner": "compute:nova"}
        insert(connection, "ports", port("1", **its), port("2", **its, preserve=True),
               port("3", **its, project_id="mallory"), port("4", device_id="active"),
               port("5", device_id="nothing", device_owner="compute:nova"), port("6"))
    migrations.upgrade(database_url)
    with engine.begin() as connection:
        found = connection.execute(sa.text("select id, server_id from ports order by id")).all()
    engine.dispose()
    assert [tuple(row) for row in found] == [
        ("1", "active"), ("2", "active"), ("3", None), ("4", None), ("5", None), ("6", None)]
