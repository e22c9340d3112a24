"""Address groups: lists of CIDRs that security group rules refer to."""

from collections.abc import Sequence

import sqlalchemy as sa

from nacre.base.errors import BadRequest, NotFound
from nacre.network import tables as t
from nacre.network.attributes.definitions import ADDRESS_GROUP
from nacre.network.extensions import rbac
from nacre.network.work import Row, Work, conflict, standard_view, where

MAX_ADDRESSES = 1000


class AddressGroups:
    """The store behind /address-groups."""

    resource = ADDRESS_GROUP

    def list(self, work: Work, filters: Row) -> list[Row]:
        rows = work.rows(sa.select(t.address_groups).where(
            rbac.visible(work, t.address_groups, "address_group"), *where(t.address_groups, filters)))
        return [standard_view(r) | {"addresses": r["addresses"]} for r in rows]

    def target(self, work: Work, data: Row) -> Row:
        return {}

    def create(self, work: Work, data: Row) -> Row:
        row = work.insert(t.address_groups, {
            **work.new(data), "name": data["name"], "addresses": data["addresses"]})
        return standard_view(row) | {"addresses": row["addresses"]}

    def update(self, work: Work, current: Row, data: Row) -> Row:
        work.change(t.address_groups, current["id"], data)
        return current | data

    def delete(self, work: Work, current: Row) -> None:
        r = t.security_group_rules.c
        if work.row(sa.select(r.id).where(r.remote_address_group_id == current["id"]).limit(1)):
            raise conflict("AddressGroupInUse", f"Address group {current['id']} is in use on one or more security "
                           "group rules.")
        rbac.forget(work, current["id"])
        work.remove(t.address_groups, id=current["id"])

    def change(self, work: Work, current: Row, addresses: Sequence[str], *, add: bool) -> Row:
        """Adds addresses to the group or takes them out; hosts whose rules use it are told."""
        have: Sequence[str] = current["addresses"]
        wrong = [a for a in addresses if (a in have) == add]
        if wrong:
            named, group = ", ".join(wrong[:20]), current["id"]
            if add:
                raise BadRequest(f"Addresses {named} already exist in address group {group}.", field="addresses",
                                 type="AddressesAlreadyExist")
            raise NotFound(f"Addresses {named} not found in address group {group}.", field="addresses",
                           type="AddressesNotFound")
        new = [*have, *addresses] if add else [a for a in have if a not in addresses]
        if len(new) > MAX_ADDRESSES:
            raise BadRequest(f"An address group has at most {MAX_ADDRESSES} addresses.", field="addresses")
        work.change(t.address_groups, current["id"], {"addresses": new})
        work.changes.address_groups.add(current["id"])
        return current | {"addresses": new}
