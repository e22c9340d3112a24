"""join tokens; whether a cloud's first rows are all there"""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "join_tokens",
        sa.Column("id", sa.String(36), nullable=False), sa.Column("public_key", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False), sa.Column("expires_at", sa.DateTime, nullable=False),
        sa.Column("used_at", sa.DateTime), sa.Column("used_by", sa.String(255)), sa.Column("used_key", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_join_tokens")),
        sa.UniqueConstraint("public_key", name=op.f("uq_join_tokens_public_key")))
    with op.batch_alter_table("cloud") as batch:
        batch.add_column(sa.Column("first_rows_at", sa.DateTime))
    # A cloud that has users was started by a release that kept this in its data folder. One that was not started since
    # clouds have ids gets its own now.
    connection = op.get_bind()
    started = connection.scalar(sa.text("select count(*) from identity_users"))
    if started and not connection.scalar(sa.text("select count(*) from cloud")):
        connection.execute(sa.text("insert into cloud (number, id, created_at) values (1, :id, current_timestamp)"),
                           {"id": str(uuid4())})
    if started:
        op.execute("update cloud set first_rows_at = created_at")
