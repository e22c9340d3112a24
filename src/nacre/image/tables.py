"""Images and what belongs to them."""

import sqlalchemy as sa

from nacre.base.db import metadata

images = sa.Table(
    "images", metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(255)),
    sa.Column("owner", sa.String(255), index=True),
    sa.Column("status", sa.String(30), nullable=False, index=True),
    sa.Column("visibility", sa.String(9), nullable=False, index=True),
    sa.Column("disk_format", sa.String(20)),
    sa.Column("container_format", sa.String(20)),
    sa.Column("size", sa.BigInteger),  # bytes
    sa.Column("virtual_size", sa.BigInteger),  # bytes
    sa.Column("checksum", sa.String(32)),
    sa.Column("os_hash_algo", sa.String(64)),
    sa.Column("os_hash_value", sa.String(128)),
    sa.Column("min_disk", sa.Integer, nullable=False),  # GB
    sa.Column("min_ram", sa.Integer, nullable=False),  # MB
    sa.Column("protected", sa.Boolean, nullable=False),
    sa.Column("os_hidden", sa.Boolean, nullable=False),
    sa.Column("data_key", sa.String(36)),  # its data; new for every upload, so that two never meet
    sa.Column("worker", sa.String(64)),  # the process that is writing its data, while one is
    sa.Column("created_at", sa.DateTime, nullable=False, index=True),
    sa.Column("updated_at", sa.DateTime, nullable=False),
)

image_properties = sa.Table(
    "image_properties", metadata,
    sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("value", sa.Text),
)

image_tags = sa.Table(
    "image_tags", metadata,
    sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("tag", sa.String(255), primary_key=True, index=True),
)

image_members = sa.Table(
    "image_members", metadata,
    sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("member_id", sa.String(255), primary_key=True, index=True),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
)

#: Every piece of data that there is, and where. One without an image is to be deleted.
image_locations = sa.Table(
    "image_locations", metadata,
    sa.Column("data_key", sa.String(36), primary_key=True),
    sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id", ondelete="SET NULL"), index=True),
    sa.Column("store", sa.String(16), nullable=False),
    sa.Column("place", sa.String(64), nullable=False),  # the control process that has it; empty: all reach it
    sa.Column("writer", sa.String(64), index=True),  # the control process that is writing it, while one is
)

#: Ids that were an image's once, and are nobody's again: whoever trusts an id must not get other bytes.
deleted_images = sa.Table(
    "deleted_images", metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("deleted_at", sa.DateTime, nullable=False),
)

#: Images that an administrator asked to have at hand.
image_cache = sa.Table(
    "image_cache", metadata,
    sa.Column("image_id", sa.String(36), primary_key=True),
    sa.Column("queued_at", sa.DateTime, nullable=False),
)

image_tasks = sa.Table(
    "image_tasks", metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("image_id", sa.String(36), index=True),  # stays when the image goes: it is history
    sa.Column("type", sa.String(30), nullable=False),
    sa.Column("status", sa.String(30), nullable=False),
    sa.Column("owner", sa.String(255), index=True),
    sa.Column("user_id", sa.String(64)),
    sa.Column("request_id", sa.String(64)),
    sa.Column("input", sa.JSON),
    sa.Column("message", sa.Text),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False, index=True),  # when it ended, if it did
)
