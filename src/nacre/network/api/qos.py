"""The rules of QoS policies, and which kinds of them hosts enforce."""

from nacre.base.errors import BadRequest, Forbidden, NotFound
from nacre.base.serving.gate import Gate, Subject, asks
from nacre.base.web import Reply, Request, Route
from nacre.network.api import listing as lists
from nacre.network.api.resource import Controller, any_body, bodies, fields_of
from nacre.network.manager import NetworkManager
from nacre.network.nouns import checks
from nacre.network.nouns.attributes import Attribute, Resource
from nacre.network.nouns.noun import View
from nacre.network.nouns.qos import KINDS, Kind, QosRule, rule_view
from nacre.network.traffic import qos_rules
from nacre.network.work import Work, missing

#: The kinds of rules that hosts enforce, with the name of what does it there. No host enforces any yet.
ENFORCED: dict[str, str] = {}
_TYPES = Resource("rule_type", "rule_types", {a.name: a for a in (
    Attribute("type"), Attribute("all_rules", convert=checks.boolean),
    Attribute("all_supported", convert=checks.boolean))})


class QosActions:
    """/v2.0/qos/policies/<id>/<kind>_rules, /v2.0/qos/alias-<kind>-rules, /v2.0/qos/rule-types."""

    def __init__(self, manager: NetworkManager, controller: Controller):
        self._manager, self._controller = manager, controller

    def routes(self) -> list[Route]:
        found = [Route("GET", "/v2.0/qos/rule-types", self.types, "get_rule_type"),
                 Route("GET", "/v2.0/qos/rule-types/{type}", self.type, "get_rule_type")]
        for name, kind in KINDS.items():
            found += _Rules(self._manager, self._controller, name, kind).routes()
        return found

    async def types(self, request: Request) -> View:
        """Those that all hosts enforce; with all_rules, those that policies may have."""
        listing = lists.parse(_TYPES, request.query)
        every = any(listing.filters.get("all_rules", ()))
        wanted = listing.filters.get("type") or KINDS
        return {"rule_types": [{"type": name} for name in (KINDS if every else ENFORCED) if name in wanted]}

    async def type(self, request: Request) -> View:
        if not request.context.is_admin:  # as in Neutron, whatever the rule says
            raise Forbidden("Not authorized.", type="NotAuthorized")
        name = request.params["type"]
        if name not in KINDS:
            raise BadRequest(f"Invalid input for operation: '{name[:64]}' is no type of QoS rules.", field="type",
                             type="InvalidInput")
        drivers = [{"name": ENFORCED[name], "supported_parameters": []}] if name in ENFORCED else []
        return {"rule_type": {"type": name, "drivers": drivers}}


class _Rules:
    """The rules of one kind."""

    def __init__(self, manager: NetworkManager, controller: Controller, name: str, kind: Kind):
        self._manager, self._controller, self._name, self._kind = manager, controller, name, kind
        self._resource = kind.resource

    def routes(self) -> list[Route]:
        rule = self._resource.name
        every = f"/v2.0/qos/policies/{{id}}/{self._resource.plural}"
        one, alias = f"{every}/{{rule}}", f"/v2.0/qos/alias-{self._resource.plural.replace('_', '-')}/{{rule}}"

        def ask(verb: str) -> Gate:
            return asks(f"{verb}_policy_{rule}", about=self._controller.about)

        def ask_alias(verb: str) -> Gate:
            return asks(f"{verb}_alias_{rule}", about=self._aliased)

        found = [Route("GET", every, self.index, ask("get")),
                 Route("POST", every, self.create, asks(f"create_policy_{rule}", about=self._parent), body=any_body),
                 Route("GET", one, self.show, ask("get")), Route("PUT", one, self.update, ask("update"), body=any_body),
                 Route("DELETE", one, self.delete, ask("delete"))]
        if self._name == "packet_rate_limit":  # as in Neutron, these have no alias
            return found
        return [*found, Route("GET", alias, self.show, ask_alias("get")),
                Route("PUT", alias, self.update, ask_alias("update"), body=any_body),
                Route("DELETE", alias, self.delete, ask_alias("delete"))]

    async def index(self, request: Request) -> View:
        listing = lists.parse(self._resource, request.query)
        rules = await self._manager.read(request.context, lambda work: qos_rules.of(
            work, request.params["id"], self._name))
        rows = lists.page([row for row in map(rule_view, rules) if lists.matches(row, listing)], listing)
        return {self._resource.plural: fields_of(rows, listing.fields)}

    async def show(self, request: Request) -> View:
        fields = [v for k, v in request.query if k == "fields" and v]
        rule = await self._manager.read(request.context, lambda work: self._rule(work, request))
        return {self._resource.name: fields_of([rule_view(rule)], fields)[0]}

    async def create(self, request: Request) -> Reply:
        data = self._resource.parse_create(bodies(request.body, self._resource.name, None)[0][0], request.context)
        rule = await self._manager.write(request.context, lambda work: qos_rules.add(
            work, self._controller.one(work, request.params["id"]), self._name, data))
        return Reply({self._resource.name: rule_view(rule)}, 201)

    async def update(self, request: Request) -> View:
        data = self._resource.parse_update(bodies(request.body, self._resource.name, None)[0][0], request.context)
        rule = await self._manager.write(request.context, lambda work: qos_rules.change(
            work, self._rule(work, request), data))
        return {self._resource.name: rule_view(rule)}

    async def delete(self, request: Request) -> Reply:
        await self._manager.write(request.context, lambda work: qos_rules.drop(work, self._rule(work, request)))
        return Reply(status=204)

    def _rule(self, work: Work, request: Request) -> QosRule:
        """The rule that the URL names, below its policy or alone. Raises NotFound."""
        return qos_rules.get(work, request.params["rule"], self._name, request.params.get("id"))

    async def _parent(self, request: Request) -> Subject:
        """The policy that gets a rule. Who may give none to any is not told which there are, as in Neutron."""
        policy_id = request.params["id"]
        try:
            return await self._controller.about(request)
        except NotFound:
            return Subject({}, missing=missing("policy", policy_id))

    async def _aliased(self, request: Request) -> Subject:
        """The policy of the rule that the URL names, if the caller may see it. Raises NotFound."""
        def step(work: Work) -> View:
            rule = qos_rules.get(work, request.params["rule"], self._name)
            try:
                return self._controller.view(work, rule.policy_id)
            except NotFound:
                raise qos_rules.missing(rule.id, None) from None

        return Subject(await self._manager.read(request.context, step))
