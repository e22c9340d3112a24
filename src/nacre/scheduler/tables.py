"""Compute hosts and their services: a row a host, written when something changes, not at every report."""

import sqlalchemy as sa

from nacre.base.db import metadata

compute_hosts = sa.Table(
    "compute_hosts", metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("uuid", sa.String(36), nullable=False, unique=True),
    sa.Column("host", sa.String(255), nullable=False, unique=True),
    #: The last HostReport that differed from the one before, as JSON.
    sa.Column("report", sa.JSON, nullable=False),
    #: Its number: one that another process heard before, and writes later, changes nothing.
    sa.Column("incarnation", sa.BigInteger, nullable=False, server_default="0", default=0),
    sa.Column("n", sa.BigInteger, nullable=False, server_default="0", default=0),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("disabled_reason", sa.String(255)),
    sa.Column("forced_down", sa.Boolean, nullable=False, default=False),
    #: An operator said that this database is right, though the host has seen a later one or another cloud's.
    sa.Column("accepted", sa.Boolean, nullable=False, server_default=sa.false(), default=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    #: When a report last came in; refreshed at most once a minute while nothing changes.
    sa.Column("updated_at", sa.DateTime, nullable=False),
)
