"""image_tasks: those of a project, and those that ended long ago, are found; when they go is counted from their end;
network_segments: no physical network is one without a name"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_image_tasks_owner"), "image_tasks", ["owner"])
    op.create_index(op.f("ix_image_tasks_updated_at"), "image_tasks", ["updated_at"])
    op.execute("update network_segments set physical_network = null where physical_network = ''")
    with op.batch_alter_table("image_tasks") as table:
        table.drop_column("expires_at")
