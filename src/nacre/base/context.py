"""Who is asking: made once from a token at the edge, carried as a value everywhere after that."""

import msgspec


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The caller of one request. `roles` already contains the implied ones (admin > manager > member > reader)."""

    request_id: str
    user_id: str | None = None
    user_name: str | None = None
    user_domain_id: str | None = None
    project_id: str | None = None
    project_name: str | None = None
    project_domain_id: str | None = None
    domain_id: str | None = None
    #: True for a token scoped to the whole system ("system": {"all": true}).
    system: bool = False
    roles: tuple[str, ...] = ()
    #: What the policy in force says of `is_admin`; None: nobody asked it.
    admin: bool | None = None
    #: The token's first audit id: what revocation and logs speak of. Never the token itself.
    audit_id: str | None = None

    @property
    def is_admin(self) -> bool:
        """Is the cloud's administrator, as the edge found by the policy in force; who came by no edge is it by role."""
        return "admin" in self.roles if self.admin is None else self.admin

    @property
    def sees_all(self) -> bool:
        """Whether what it sees is narrowed to no project: an administrator, or another service of the cloud."""
        return self.is_admin or "service" in self.roles

    def as_member(self) -> "Context":
        """A member of the caller's project, who is nobody in particular: a policy may name users."""
        return Context(request_id=self.request_id, project_id=self.project_id, project_name=self.project_name,
                       project_domain_id=self.project_domain_id, roles=("manager", "member", "reader"), admin=False)


def service_context(request_id: str = "req-nacre") -> Context:
    """The context of the cloud itself, for work that no user asked for (sweeps, reports)."""
    return Context(request_id=request_id, user_id="nacre", user_name="nacre",
                   roles=("admin", "manager", "member", "reader", "service"))
