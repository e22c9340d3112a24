"""the services' names as clients look for them; the order of access rules"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

NAMES = {"identity": "keystone", "image": "glance", "compute": "nova", "network": "neutron"}

services = sa.table("identity_services", sa.column("id", sa.String), sa.column("type", sa.String),
                    sa.column("extra", sa.JSON))
rules = sa.table("identity_access_rules", sa.column("id", sa.String), sa.column("user_id", sa.String),
                 sa.column("number", sa.Integer))
credentials = sa.table("identity_application_credentials", sa.column("id", sa.String),
                       sa.column("access_rule_ids", sa.JSON))


def upgrade() -> None:
    connection = op.get_bind()
    _rename(connection)
    with op.batch_alter_table("identity_access_rules") as batch:
        batch.add_column(sa.Column("number", sa.Integer, nullable=False, server_default="0"))
    _number(connection)
    with op.batch_alter_table("identity_access_rules") as batch:
        batch.alter_column("number", server_default=None)
    # What processes of the last release remember of the catalog is out of date.
    op.execute("update identity_revision set value = value + 1")


def _rename(connection: sa.Connection) -> None:
    """A name that an operator gave stays."""
    for row in connection.execute(sa.select(services)).all():
        if row.type in NAMES and row.extra.get("name") == f"nacre-{row.type}":
            connection.execute(sa.update(services).where(services.c.id == row.id).values(
                extra={**row.extra, "name": NAMES[row.type]}))


def _number(connection: sa.Connection) -> None:
    """Rules of a credential in its order, which is that in which they were made; then the others."""
    order: dict[str, int] = {}
    for ids in connection.scalars(sa.select(credentials.c.access_rule_ids).order_by(credentials.c.id)):
        for id in ids or ():
            order.setdefault(id, len(order) + 1)
    for id in connection.scalars(sa.select(rules.c.id).order_by(rules.c.id)).all():
        number = order.setdefault(id, len(order) + 1)
        connection.execute(sa.update(rules).where(rules.c.id == id).values(number=number))
