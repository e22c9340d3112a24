"""Who may pass: what a route asks of the policy, and the one place that asks it, before the handler runs.

Every route names its `Gate`: rules of the operator's policy, or `PUBLIC` or `AUTHENTICATED` by name. Where a rule is
about an object, the gate's target looks for it; the handler gets what was found and has nothing left to ask.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nacre.base.context import Context
from nacre.base.errors import NacreError

Facts = Mapping[str, Any]
#: Whether a caller may do this (a rule's name) to that.
Allows = Callable[[Context, str, Facts], bool]
#: How a service words a refusal of a rule.
Refusal = Callable[[str], NacreError]


@dataclass(frozen=True)
class Subject:
    """What a request is about, as policy sees it.

    missing: the error for what is not there. It is raised when the asks have passed, if `found` is None; and instead of
    a refusal, if `seen` (a rule) is refused too: whoever may not see a thing is told that there is none.
    """

    facts: Facts
    found: Any = None  # the object itself, for the handler
    rule: str | None = None  # which of the gate's rules; None: its first
    more: tuple[tuple[str, Facts], ...] = ()  # asked as well: for attributes that have rules of their own
    missing: NacreError | None = None
    seen: str | None = None


#: Finds what a request is about. May raise: a thing that nobody is told about is not found before it is asked for.
Target = Callable[[Any], Awaitable[Subject]]


@dataclass(frozen=True)
class Gate:
    """What a route asks. target None: the rule is asked about the caller's own project, before the body is looked at;
    else when the body is known to be well formed."""

    rules: tuple[str, ...] = ()
    target: Target | None = None
    parts: tuple[str, ...] = ()  # rules for parts of the request or of the answer: asked only where there is one

    @property
    def open(self) -> bool:
        """Whether no rule decides who passes."""
        return self.rules in ((), (EVERYBODY,))

    @property
    def names(self) -> frozenset[str]:
        """Every rule that this route may ask."""
        return frozenset((*self.rules, *self.parts))


#: In a rule's place: there is nothing to ask of whoever has a token.
EVERYBODY = "@"
#: The rule that makes a caller the cloud's administrator. Others refer to it; for what has no rule of its own (other
#: projects' things, deleted ones, what went wrong on which host) it is asked itself: `Context.is_admin`. Nova, Neutron
#: and Glance have it by this name.
ADMIN = "context_is_admin"
#: No token is needed.
PUBLIC = Gate()
#: Whoever has a token may: the answer is of nobody's, or is refused or allowed where it comes from.
AUTHENTICATED = Gate((EVERYBODY,))


def asks(*rules: str, about: Target | None = None, parts: tuple[str, ...] = ()) -> Gate:
    """A gate that asks one of `rules`: the first, unless the subject names another."""
    return Gate(rules, about, parts)


def stated(make: Callable[[Any], Facts]) -> Target:
    """A target that the request itself states."""
    async def target(request: Any) -> Subject:
        return Subject(make(request))
    return target


def own(context: Context) -> Facts:
    """What is asked about where a route is about nothing: the caller's own. Of no project is nobody's project."""
    mine = {"project_id": context.project_id, "user_id": context.user_id, "domain_id": context.domain_id}
    return {name: id for name, id in mine.items() if id is not None}


def check(gate: Gate, subject: Subject, may: Callable[[str, Facts], bool], refusal: Refusal) -> Any:
    """What was found, if the caller may. Raises the service's refusal, or what is missing."""
    for rule, facts in ((subject.rule or gate.rules[0], subject.facts), *subject.more):
        if rule != EVERYBODY and not may(rule, facts):
            if subject.missing and subject.seen and (rule == subject.seen or not may(subject.seen, subject.facts)):
                raise subject.missing
            raise refusal(rule)
    if subject.found is None and subject.missing is not None:
        raise subject.missing
    return subject.found
