"""QoS policies, and which networks and ports have one; trunks; default rules; segments and their ranges"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _qos()
    _trunks()
    _default_rules()
    _ranges()
    _segments()
    _topologies()
    op.add_column("ports", sa.Column("dns_domain", sa.String(255), nullable=False, server_default=""))


def _standard() -> list[sa.Column[Any]]:
    return [sa.Column("id", sa.String(36), nullable=False), sa.Column("project_id", sa.String(64), nullable=False),
            sa.Column("description", sa.String(255), nullable=False),
            sa.Column("created_at", sa.DateTime, nullable=False), sa.Column("updated_at", sa.DateTime, nullable=False),
            sa.Column("revision_number", sa.Integer, nullable=False), sa.Column("tags", sa.JSON, nullable=False),
            sa.Column("name", sa.String(255), nullable=False)]


def _qos() -> None:
    op.create_table("qos_policies", *_standard(), sa.Column("is_default", sa.Boolean, nullable=False),
                    sa.PrimaryKeyConstraint("id", name=op.f("pk_qos_policies")))
    op.create_index(op.f("ix_qos_policies_project_id"), "qos_policies", ["project_id"])
    op.create_index("one_default_policy_a_project", "qos_policies", ["project_id"], unique=True,
                    sqlite_where=sa.text("is_default"), postgresql_where=sa.text("is_default"))
    op.create_table(
        "qos_rules",
        sa.Column("id", sa.String(36), nullable=False), sa.Column("policy_id", sa.String(36), nullable=False),
        sa.Column("type", sa.String(32), nullable=False), sa.Column("direction", sa.String(8), nullable=False),
        sa.Column("value", sa.Integer, nullable=False), sa.Column("burst", sa.Integer),
        sa.ForeignKeyConstraint(["policy_id"], ["qos_policies.id"], name=op.f("fk_qos_rules_policy_id"),
                                ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_qos_rules")),
        sa.UniqueConstraint("policy_id", "type", "direction", name=op.f("uq_qos_rules_policy_id_type_direction")))
    op.create_index(op.f("ix_qos_rules_policy_id"), "qos_rules", ["policy_id"])
    for table in ("networks", "ports"):
        op.add_column(table, sa.Column("qos_policy_id", sa.String(36)))
        op.create_index(op.f(f"ix_{table}_qos_policy_id"), table, ["qos_policy_id"])


def _trunks() -> None:
    op.create_table(
        "trunks", *_standard(), sa.Column("admin_state_up", sa.Boolean, nullable=False),
        sa.Column("port_id", sa.String(36), nullable=False), sa.Column("status", sa.String(16), nullable=False),
        sa.ForeignKeyConstraint(["port_id"], ["ports.id"], name=op.f("fk_trunks_port_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trunks")),
        sa.UniqueConstraint("port_id", name=op.f("uq_trunks_port_id")))
    op.create_index(op.f("ix_trunks_project_id"), "trunks", ["project_id"])
    op.create_table(
        "trunk_subports",
        sa.Column("port_id", sa.String(36), nullable=False), sa.Column("trunk_id", sa.String(36), nullable=False),
        sa.Column("segmentation_type", sa.String(32), nullable=False),
        sa.Column("segmentation_id", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(["port_id"], ["ports.id"], name=op.f("fk_trunk_subports_port_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["trunk_id"], ["trunks.id"], name=op.f("fk_trunk_subports_trunk_id"),
                                ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("port_id", name=op.f("pk_trunk_subports")),
        sa.UniqueConstraint("trunk_id", "segmentation_type", "segmentation_id",
                            name=op.f("uq_trunk_subports_trunk_id_segmentation_type_segmentation_id")))
    op.create_index(op.f("ix_trunk_subports_trunk_id"), "trunk_subports", ["trunk_id"])


def _default_rules() -> None:
    op.create_table(
        "security_group_default_rules",
        sa.Column("id", sa.String(36), nullable=False), sa.Column("description", sa.String(255), nullable=False),
        sa.Column("direction", sa.String(8), nullable=False), sa.Column("ethertype", sa.String(8), nullable=False),
        sa.Column("protocol", sa.String(40)), sa.Column("port_range_min", sa.Integer),
        sa.Column("port_range_max", sa.Integer), sa.Column("remote_ip_prefix", sa.String(64)),
        sa.Column("remote_group_id", sa.String(36)), sa.Column("remote_address_group_id", sa.String(36)),
        sa.Column("used_in_default_sg", sa.Boolean, nullable=False),
        sa.Column("used_in_non_default_sg", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_security_group_default_rules")))


def _ranges() -> None:
    op.create_table(
        "network_segment_ranges", *_standard(), sa.Column("shared", sa.Boolean, nullable=False),
        sa.Column("network_type", sa.String(32), nullable=False),
        sa.Column("physical_network", sa.String(64), nullable=False),
        sa.Column("minimum", sa.BigInteger, nullable=False), sa.Column("maximum", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_network_segment_ranges")))
    op.create_index(op.f("ix_network_segment_ranges_project_id"), "network_segment_ranges", ["project_id"])


def _segments() -> None:
    text, moment = sa.String(255), "1970-01-01 00:00:00"
    for column in (
            sa.Column("project_id", sa.String(64), nullable=False, server_default=""), sa.Column("name", text),
            sa.Column("description", text, nullable=False, server_default=""),
            sa.Column("created_at", sa.DateTime, nullable=False, server_default=moment),
            sa.Column("updated_at", sa.DateTime, nullable=False, server_default=moment),
            sa.Column("revision_number", sa.Integer, nullable=False, server_default="1"),
            sa.Column("tags", sa.JSON, nullable=False, server_default="[]")):
        op.add_column("network_segments", column)
    op.create_index(op.f("ix_network_segments_project_id"), "network_segments", ["project_id"])
    # As old as their networks.
    op.execute("update network_segments set created_at = (select created_at from networks where id = network_id),"
               " updated_at = (select created_at from networks where id = network_id)")
    op.add_column("subnets", sa.Column("segment_id", sa.String(36)))
    op.create_index(op.f("ix_subnets_segment_id"), "subnets", ["segment_id"])


def _topologies() -> None:
    op.create_table(
        "network_topologies",
        sa.Column("project_id", sa.String(64), nullable=False), sa.Column("network_id", sa.String(36), nullable=False),
        sa.Column("router_id", sa.String(36), nullable=False),
        sa.ForeignKeyConstraint(["network_id"], ["networks.id"], name=op.f("fk_network_topologies_network_id"),
                                ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_network_topologies")))
    op.create_index(op.f("ix_network_topologies_network_id"), "network_topologies", ["network_id"])
