"""Address groups: lists of CIDRs that security group rules refer to."""

from collections.abc import Sequence

import sqlalchemy as sa

from nacre.base.errors import BadRequest, NotFound
from nacre.network import tables as t
from nacre.network.nouns.address import ADDRESS_GROUP, AddressGroup, group_view
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.sharing import access, grants
from nacre.network.work import Work, conflict, where

MAX_ADDRESSES = 1000
#: What the rules of one security group name through address groups, a group that two rules name twice.
MAX_NAMED = 5000


class AddressGroups:
    """The store behind /address-groups."""

    resource = ADDRESS_GROUP

    def list(self, work: Work, filters: Attributes) -> list[AddressGroup]:
        return work.search(AddressGroup, access.visible(work, t.address_groups, "address_group"),
                           *where(t.address_groups, filters))

    def views(self, work: Work, found: Sequence[AddressGroup]) -> Sequence[View]:
        return [group_view(group) for group in found]

    def target(self, work: Work, data: Attributes) -> Attributes:
        return {}

    def create(self, work: Work, data: Attributes) -> View:
        work.room("address_group", data["project_id"])
        return group_view(work.add(AddressGroup(
            **work.new(data), name=data["name"], addresses=data["addresses"])))

    def update(self, work: Work, current: AddressGroup, data: Attributes) -> None:
        work.change(t.address_groups, current.id, data)

    def delete(self, work: Work, current: AddressGroup) -> None:
        r = t.security_group_rules.c
        if work.row(sa.select(r.id).where(r.remote_address_group_id == current.id).limit(1)):
            raise conflict("AddressGroupInUse", f"Address group {current.id} is in use on one or more security "
                           "group rules.")
        grants.forget(work, current.id)
        work.remove(t.address_groups, id=current.id)

    def change(self, work: Work, current: AddressGroup, addresses: Sequence[str], *, add: bool) -> None:
        """Adds addresses to the group or takes them out; hosts whose rules use it are told."""
        have: Sequence[str] = current.addresses
        known = set(have)
        wrong = [a for a in addresses if (a in known) == add]
        if wrong:
            named, group = ", ".join(wrong[:20]), current.id
            if add:
                raise BadRequest(f"Addresses {named} already exist in address group {group}.", field="addresses",
                                 type="AddressesAlreadyExist")
            raise NotFound(f"Addresses {named} not found in address group {group}.", field="addresses",
                           type="AddressesNotFound")
        gone = set[str]() if add else set(addresses)
        new = [*have, *addresses] if add else [a for a in have if a not in gone]
        if len(new) > MAX_ADDRESSES:
            raise BadRequest(f"An address group has at most {MAX_ADDRESSES} addresses.", field="addresses")
        work.change(t.address_groups, current.id, {"addresses": new})
        work.changes.address_groups.add(current.id)
        if add:
            r = t.security_group_rules.c
            for group in set(work.conn.execute(sa.select(r.security_group_id).where(
                    r.remote_address_group_id == current.id, r.project_id == current.project_id)).scalars()):
                check_named(work, group)


def check_named(work: Work, security_group_id: str) -> None:
    """How many addresses a security group's rules name through address groups: each host of a port of it has a flow for
    each. Another project's address group counts as full, so that its owner may fill it. Raises Conflict."""
    r, a = t.security_group_rules.c, t.address_groups.c
    own = work.rows(sa.select(a.addresses, (a.project_id == r.project_id).label("own")).join(
        t.security_group_rules, r.remote_address_group_id == a.id).where(r.security_group_id == security_group_id))
    count = sum(len(row["addresses"]) if row["own"] else MAX_ADDRESSES for row in own)
    if count > MAX_NAMED:
        raise conflict("OverQuota", f"The rules of security group {security_group_id} would name {count} addresses "
                       f"through address groups, and {MAX_NAMED} are the most.")
