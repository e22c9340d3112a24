"""Everything identity keeps. Attributes that a user adds to a thing live in its `extra`."""

import sqlalchemy as sa

from nacre.base.db import metadata

Id = sa.String(64)

projects = sa.Table(  # a domain is a project with is_domain, under no domain: its domain_id is ""
    "identity_projects", metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("domain_id", Id, nullable=False),
    sa.Column("parent_id", Id, index=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("is_domain", sa.Boolean, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.UniqueConstraint("domain_id", "name"),
)

users = sa.Table(
    "identity_users", metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("domain_id", Id, nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("default_project_id", Id),
    sa.Column("password_hash", sa.String(255)),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.UniqueConstraint("domain_id", "name"),
)

groups = sa.Table(
    "identity_groups", metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("domain_id", Id, nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.UniqueConstraint("domain_id", "name"),
)

memberships = sa.Table(
    "identity_memberships", metadata,
    sa.Column("user_id", Id, primary_key=True),
    sa.Column("group_id", Id, primary_key=True, index=True),
)

roles = sa.Table(  # domain_id "" is a role of the whole cloud
    "identity_roles", metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("domain_id", Id, nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.UniqueConstraint("domain_id", "name"),
)

implied_roles = sa.Table(
    "identity_implied_roles", metadata,
    sa.Column("prior_id", Id, primary_key=True),
    sa.Column("implied_id", Id, primary_key=True),
)

assignments = sa.Table(
    "identity_assignments", metadata,
    sa.Column("actor_type", sa.String(8), primary_key=True),  # user | group
    sa.Column("actor_id", Id, primary_key=True),
    sa.Column("target_type", sa.String(8), primary_key=True),  # project | domain | system
    sa.Column("target_id", Id, primary_key=True, index=True),  # "all" for the system
    sa.Column("role_id", Id, primary_key=True),
    sa.Column("inherited", sa.Boolean, primary_key=True),  # holds for the projects below the target, not for itself
)

regions = sa.Table(
    "identity_regions", metadata,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("parent_region_id", sa.String(255)),
    sa.Column("extra", sa.JSON, nullable=False),
)

services = sa.Table(
    "identity_services", metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("type", sa.String(255), nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
)

endpoints = sa.Table(
    "identity_endpoints", metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("service_id", Id, nullable=False, index=True),
    sa.Column("region_id", sa.String(255)),
    sa.Column("interface", sa.String(8), nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
)

credentials = sa.Table(
    "identity_credentials", metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("user_id", Id, nullable=False, index=True),
    sa.Column("project_id", Id),
    sa.Column("type", sa.String(255), nullable=False),
    sa.Column("secret", sa.Text, nullable=False),  # the blob, encrypted
    sa.Column("extra", sa.JSON, nullable=False),
)

application_credentials = sa.Table(
    "identity_application_credentials", metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("user_id", Id, nullable=False),
    sa.Column("project_id", Id, nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("secret_hash", sa.String(255), nullable=False),
    sa.Column("role_ids", sa.JSON, nullable=False),
    sa.Column("access_rule_ids", sa.JSON),
    sa.Column("unrestricted", sa.Boolean, nullable=False),
    sa.Column("expires_at", sa.Float),  # seconds since the epoch
    sa.Column("description", sa.Text),
    sa.UniqueConstraint("user_id", "name"),
)

access_rules = sa.Table(
    "identity_access_rules", metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("user_id", Id, nullable=False, index=True),
    sa.Column("number", sa.Integer, nullable=False),  # rises with each that a user makes: the order of lists
    sa.Column("service", sa.String(64), nullable=False),
    sa.Column("path", sa.String(255), nullable=False),
    sa.Column("method", sa.String(16), nullable=False),
)

trusts = sa.Table(
    "identity_trusts", metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("trustor_user_id", Id, nullable=False, index=True),
    sa.Column("trustee_user_id", Id, nullable=False, index=True),
    sa.Column("project_id", Id),
    sa.Column("impersonation", sa.Boolean, nullable=False),
    sa.Column("role_ids", sa.JSON, nullable=False),
    sa.Column("expires_at", sa.Float),  # seconds since the epoch
    sa.Column("remaining_uses", sa.Integer),
    sa.Column("extra", sa.JSON, nullable=False),
)

documents = sa.Table(  # small things that are only kept and shown: policies, endpoint groups, domain configuration ...
    "identity_documents", metadata,
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("extra", sa.JSON, nullable=False),
)

ended = sa.Table(  # what was disabled, taken away or changed: tokens from before stay void when it is there again
    "identity_ended", metadata,
    sa.Column("id", sa.String(160), primary_key=True),  # as the functions of nacre.identity.ended name it
    sa.Column("revision", sa.Integer, nullable=False),  # tokens that were issued at an earlier one are void
    # Forgotten `ended.KEEP` later. 0: not known, of the release before; of one token, earlier by what it lives less.
    sa.Column("ended_at", sa.Float, nullable=False, index=True),
    sa.Column("owner", sa.String(160), index=True),  # of what is a part of it: a user whose token it is
)

revision = sa.Table(  # one row; counts writes, so that other processes know when to forget what they remember
    "identity_revision", metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("value", sa.Integer, nullable=False),
)

sealed_keys = sa.Table(  # what signs and encrypts for the whole cloud; only the seal key of a control opens a blob
    "sealed_keys", metadata,
    sa.Column("purpose", sa.String(16), primary_key=True),  # token | credential | join | authority
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),  # rises, is never used again
    sa.Column("state", sa.String(16), nullable=False),  # staged | primary | secondary
    sa.Column("blob", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),  # seconds since the epoch
    sa.Column("changed_at", sa.Float, nullable=False),  # since when it is in its state
)
