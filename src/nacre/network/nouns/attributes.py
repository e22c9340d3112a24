"""The attribute table of a resource, and what follows from it: parsing, policy per attribute, rendering."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nacre.base.context import Context
from nacre.base.errors import BadRequest
from nacre.network.nouns import checks

#: Attribute -> value: what a client asked for, checked.
Attributes = dict[str, Any]


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


#: No default: the attribute is absent when the client does not send it.
UNSET: Final = _Unset()


#: What lines have in common: set by both verbs, a truth value, asked for by no list (neither to filter nor to sort by).
BOTH: dict[str, Any] = {"post": True, "put": True}
FLAG: dict[str, Any] = {"check": checks.boolean, "convert": checks.boolean}
MUTE: dict[str, Any] = {"filter": False}
VERSION: dict[str, Any] = {"check": checks.ip_version, "convert": checks.integer}


@dataclass(frozen=True)
class Attribute:
    """One line of a table. post, put: may be given on create, on update. guard: setting it asks the rule
    `create_<resource>:<name>`. secret: seeing it asks `get_<resource>:<name>`. filter, sort: a list may be asked for by
    it (sort None: as filter); convert: what the text of a filter becomes before it is compared."""

    name: str
    check: checks.Check = checks.anything
    post: bool = False
    put: bool = False
    default: Any = UNSET
    required: bool = False
    guard: bool = False
    secret: bool = False
    visible: bool = True
    filter: bool = True
    sort: bool | None = None
    convert: checks.Check | None = None

    @property
    def sorts(self) -> bool:
        return self.filter if self.sort is None else self.sort


@dataclass(frozen=True)
class Resource:
    """A resource's names and its attributes. base: its path, where that is not the plural's spelling in URLs."""

    name: str
    plural: str
    attributes: Mapping[str, Attribute]
    base: str = ""

    @property
    def path(self) -> str:
        return self.base or self.plural.replace("_", "-")

    def parse_create(self, raw: Mapping[str, Any], context: Context) -> Attributes:
        """What a POST asks for, checked, with defaults. Raises BadRequest naming the attribute."""
        given = self._known(raw, context)
        data: Attributes = {}
        for name, attribute in self.attributes.items():
            if name in given:
                if not attribute.post:
                    raise BadRequest(f"Attribute '{name}' not allowed in POST", field=name, type="HTTPBadRequest")
                data[name] = _checked(attribute, given[name])
            elif attribute.required:
                raise BadRequest(f"Failed to parse request. Required attribute '{name}' not specified", field=name,
                                 type="HTTPBadRequest")
            elif attribute.post and attribute.default is not UNSET:
                default = attribute.default
                data[name] = list(default) if isinstance(default, list) else default
        own = context.project_id or ""
        if data.setdefault("project_id", own) != own and not context.sees_all:
            raise BadRequest("Specifying 'project_id' other than the authenticated project in a request requires "
                             "admin privileges", field="project_id", type="HTTPBadRequest")
        return data

    def parse_update(self, raw: Mapping[str, Any], context: Context) -> Attributes:
        """What a PUT changes, checked. Raises BadRequest naming the attribute."""
        given = self._known(raw, context)
        for name in given:
            if not self.attributes[name].put:
                raise BadRequest(f"Cannot update read-only attribute {name}", field=name, type="HTTPBadRequest")
        return {name: _checked(self.attributes[name], value) for name, value in given.items()}

    def _known(self, raw: Mapping[str, Any], context: Context) -> Attributes:
        given = dict(raw)
        if "tenant_id" in given:
            tenant = given.pop("tenant_id")
            if given.setdefault("project_id", tenant) != tenant:
                raise BadRequest("'project_id' and 'tenant_id' do not match", field="tenant_id", type="HTTPBadRequest")
        if unknown := [name for name in given if name not in self.attributes]:
            raise BadRequest(f"Unrecognized attribute(s) '{', '.join(unknown)[:500]}'", field=unknown[0],
                             type="HTTPBadRequest")
        return given

    def guarded(self, raw: Mapping[str, Any]) -> list[str]:
        """The attributes of a body whose setting needs a policy rule of its own."""
        return [name for name in raw if name in self.attributes and self.attributes[name].guard]

    def secrets(self) -> list[str]:
        return [a.name for a in self.attributes.values() if a.secret]

    def unseen(self) -> set[str]:
        """What may be given or filtered by and is never shown."""
        return {a.name for a in self.attributes.values() if not a.visible}


def _checked(attribute: Attribute, value: Any) -> Any:
    try:
        return attribute.check(value)
    except ValueError as error:
        raise BadRequest(f"Invalid input for {attribute.name}. Reason: {error}.", field=attribute.name,
                         type="HTTPBadRequest") from None


def standard(*, named: bool = True) -> list[Attribute]:
    """The attributes that every resource has. Times and revision are kept by the service."""
    attributes = [
        Attribute("id"),
        Attribute("name", checks.name, post=True, put=True, default=""),
        Attribute("project_id", checks.text(64), post=True),
        Attribute("tenant_id"),
        Attribute("description", checks.text(255), post=True, put=True, default="", sort=False),
        Attribute("created_at", filter=False), Attribute("updated_at", filter=False),
        Attribute("revision_number", convert=checks.integer, sort=False),
        Attribute("tags", filter=False),
    ]
    return [a for a in attributes if named or a.name != "name"]


def resource(name: str, plural: str, attributes: Iterable[Attribute], *, named: bool = True,
             base: str = "") -> Resource:
    """A resource with the standard attributes; later lines of the same name replace earlier ones."""
    table = {a.name: a for a in [*standard(named=named), *attributes]}
    return Resource(name, plural, table, base)
