"""Namespaces and what is in them."""

import sqlalchemy as sa

from nacre.base.db import metadata

namespaces = sa.Table(
    "metadef_namespaces", metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("namespace", sa.String(80), nullable=False, unique=True),
    sa.Column("display_name", sa.String(80)),
    sa.Column("description", sa.Text),
    sa.Column("visibility", sa.String(25), nullable=False),
    sa.Column("protected", sa.Boolean, nullable=False),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
)

items = sa.Table(
    "metadef_items", metadata,
    sa.Column("namespace_id", sa.String(36), sa.ForeignKey("metadef_namespaces.id", ondelete="CASCADE"),
              primary_key=True),
    sa.Column("kind", sa.String(20), primary_key=True),  # objects, properties, tags, resource_types
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
)

#: Names of the vocabularies that this cloud was given once: what its operator deletes stays deleted.
given = sa.Table("metadef_given", metadata, sa.Column("namespace", sa.String(80), primary_key=True))
