"""What a noun of the network is: one row, field by field, and nothing that could change under its reader."""

from datetime import datetime
from typing import Any, ClassVar

import msgspec
import sqlalchemy as sa

#: A noun as the API shows it: attribute -> value.
View = dict[str, Any]


class Noun(msgspec.Struct, frozen=True):
    """A row. Its fields are columns of TABLE, in whatever order."""

    TABLE: ClassVar[sa.FromClause]


class Standard(Noun, frozen=True):
    """What Neutron keeps of (nearly) every resource: its standard attributes."""

    id: str
    project_id: str
    description: str
    created_at: datetime
    updated_at: datetime
    revision_number: int
    tags: list[str]

    def standard(self) -> View:
        """These as the API shows them."""
        return {
            "id": self.id, "project_id": self.project_id, "tenant_id": self.project_id,
            "description": self.description, "tags": self.tags, "revision_number": self.revision_number,
            "created_at": self.created_at.isoformat(timespec="seconds") + "Z",
            "updated_at": self.updated_at.isoformat(timespec="seconds") + "Z",
        }


class Named(Standard, frozen=True):
    """One that has a name, too."""

    name: str

    def standard(self) -> View:
        return {**super().standard(), "name": self.name}
