"""metadef_given: which vocabularies this cloud was given once, so that what its operator deletes stays deleted"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0016"
branch_labels = None
depends_on = None


#: Those of the release before.
GIVEN = ("OS::OperatingSystem", "OS::Glance::CommonImageProperties", "OS::Compute::LibvirtImage",
         "OS::Compute::InstanceData", "OS::Compute::Quota", "Nacre::Compute::Flavor")


def upgrade() -> None:
    given = op.create_table(
        "metadef_given", sa.Column("namespace", sa.String(80), nullable=False),
        sa.PrimaryKeyConstraint("namespace", name=op.f("pk_metadef_given")))
    # A cloud that has one of them was given them all: what it lacks its operator deleted.
    there = sa.table("metadef_namespaces", sa.column("namespace", sa.String))
    query = sa.select(there.c.namespace).where(there.c.namespace.in_(GIVEN)).limit(1)
    if op.get_bind().execute(query).first() is not None:
        op.bulk_insert(given, [{"namespace": name} for name in GIVEN])
