"""The cloud, its processes, who may join them, its stories, and what changed: rows that all control processes share."""

import sqlalchemy as sa

from nacre.base.db import metadata

#: One row. The id is made with the database: hosts join that cloud, and take orders from no other.
cloud = sa.Table(
    "cloud", metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.String(36), nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    #: Since when its first rows are all there: none of them is made again.
    sa.Column("first_rows_at", sa.DateTime),
    #: The range for which the rows of `nacre up --external nat` were made: none of them is made again.
    sa.Column("external_cidr", sa.String(18)),
)

#: Every process of ours. A start counts the generation up, so that what an earlier life held is known to be free.
processes = sa.Table(
    "processes", metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("address", sa.String(255), nullable=False, default=""),
    sa.Column("public_key", sa.String(64), nullable=False, default="", index=True),
    sa.Column("version", sa.String(32), nullable=False, default=""),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("started_at", sa.DateTime, nullable=False),
    sa.Column("seen_at", sa.DateTime, nullable=False),
    #: Until then, by the database's clock, it holds what it took; it says so again well before.
    sa.Column("lease_until", sa.DateTime, nullable=False),
    sa.UniqueConstraint("role", "name"),
)

#: Tokens by which a machine may become a host, once. The key is what it proves to have when it asks.
join_tokens = sa.Table(
    "join_tokens", metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("public_key", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("expires_at", sa.DateTime, nullable=False),
    #: By which host, and that host's own key.
    sa.Column("used_at", sa.DateTime),
    sa.Column("used_by", sa.String(255)),
    sa.Column("used_key", sa.String(64)),
)

#: What was accepted and is not finished. The owner is a process in one of its generations; the epoch counts takings.
stories = sa.Table(
    "stories", metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("order", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("owner", sa.String(64)),
    sa.Column("generation", sa.Integer, nullable=False, default=0),
    sa.Column("epoch", sa.Integer, nullable=False, default=0),
    #: How often it stopped for a reason that is nobody's plan, and when it may be tried again.
    sa.Column("failures", sa.Integer, nullable=False, default=0),
    sa.Column("not_before", sa.DateTime),
    #: Why nobody can run it: it waits for an operator.
    sa.Column("set_aside", sa.String(255)),
)

#: What changed, in the order of the commits. The numbers never go back but in a database that was restored.
changes = sa.Table(
    "changes", metadata,
    sa.Column("n", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("id", sa.String(255), nullable=False),
    sa.Column("project_id", sa.String(64), nullable=False, default=""),
    sa.Column("at", sa.DateTime, nullable=False),
    sqlite_autoincrement=True,
)

#: From which change on the database's history has this name (`eras.py`). All are kept: one for each start of a control.
eras = sa.Table(
    "eras", metadata,
    sa.Column("n", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
)

#: The number of the last change of each thing of which that is asked. Whoever changes thousands of them at once (every
#: host with a member of a security group) notes one change, and the things here.
last_changes = sa.Table(
    "last_changes", metadata,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("n", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
)
