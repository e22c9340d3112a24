"""Our compiled rules and oslo.policy's own enforcer give the same answers."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oslo_config import cfg
from oslo_policy import policy as oslo

from nacre.base.context import Context
from nacre.base.errors import BadRequest, Forbidden
from nacre.base.serving.gate import ADMIN
from nacre.compute.policies import POLICIES as COMPUTE
from nacre.identity.policies import POLICIES as IDENTITY
from nacre.identity.policy import PolicyEngine, facts
from nacre.image.policies import POLICIES as IMAGE
from nacre.network.policies import POLICIES as NETWORK

ALL = {**IDENTITY, **IMAGE, **NETWORK, **COMPUTE}
ENGINE = PolicyEngine((IDENTITY, IMAGE, NETWORK, COMPUTE))
IDS = st.sampled_from(["a", "b", None])
CALLERS = st.builds(
    Context, request_id=st.just("req"), user_id=IDS, user_domain_id=IDS, project_id=IDS, project_domain_id=IDS,
    domain_id=IDS, system=st.booleans(),
    roles=st.sets(st.sampled_from(["admin", "manager", "member", "reader", "service", "Other"])).map(tuple))
KEYS = ("project_id", "user_id", "domain_id", "tenant_id", "member_id", "owner", "visibility", "target.user.id",
        "target.user.domain_id", "target.group.domain_id", "target.project.id", "target.project.domain_id",
        "target.domain.id", "target.domain_id", "target.role.domain_id", "target.role.name", "target.token.user_id",
        "target.credential.user_id", "target.trust.trustor_user_id", "target.trust.trustee_user_id")
TARGETS = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["a", "b", None, "member", "public", "shared"]))


def reference(rules: dict[str, str]) -> oslo.Enforcer:
    config = cfg.ConfigOpts()
    config([])
    enforcer = oslo.Enforcer(config, use_conf=False, rules=oslo.Rules.from_dict({ADMIN: "role:admin", **rules}))
    return enforcer


REFERENCE = reference(ALL)


@settings(max_examples=40, deadline=None)
@given(caller=CALLERS, target=TARGETS)
def test_every_rule_answers_as_oslo_policy_does(caller: Context, target: dict[str, str | None]) -> None:
    credentials = facts(caller)
    credentials["roles"] = list(credentials["roles"])
    for rule, text in ALL.items():
        theirs = REFERENCE.enforce(rule, dict(target), dict(credentials))
        assert ENGINE.allows(caller, rule, target) == theirs, (rule, text)


@pytest.mark.parametrize("text", [
    "@", "!", "", "not @", "role:ADMIN", "role:%(wanted)s", "user_id:%(user_id)s", "'a':%(user_id)s", "None:%(gone)s",
    "True:%(flag)s", "project_id:%(project_id)s and not None:%(project_id)s", "rule:other", "rule:missing",
    "(role:admin or role:member) and not user_id:b", "token.project.domain.id:%(domain_id)s", "is_admin:True",
    "no.such.thing:a", "system_scope:all", "user_id:pre-%(user_id)s", "role:admin and", "((role:admin)"])
@settings(max_examples=20, deadline=None)
@given(caller=CALLERS, target=TARGETS)
def test_the_whole_language(text: str, caller: Context, target: dict[str, str | None]) -> None:
    rules = {"it": text, "other": "role:member"}
    credentials = {**facts(caller), "roles": list(caller.roles)}
    wanted = {**target, "wanted": "Member", "flag": True}
    assert PolicyEngine([rules]).allows(caller, "it", wanted) == reference(rules).enforce("it", wanted, credentials)


def test_an_operators_file_overrides(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text('"identity:list_users": "role:auditor"\n"identity:list_groups": "!"\n')
    engine = PolicyEngine([IDENTITY], file)
    auditor = Context(request_id="r", roles=("auditor",))
    assert engine.allows(auditor, "identity:list_users")
    assert not engine.allows(auditor, "identity:list_projects")
    assert not engine.allows(Context(request_id="r", roles=("admin",)), "identity:list_groups")


@pytest.mark.parametrize("system", [False, True])
def test_an_operator_says_once_who_administers_the_cloud(tmp_path: Path, system: bool) -> None:
    """It is felt on every rule of every service: nothing is left to whoever has the role of before."""
    file = tmp_path / "policy.yaml"
    file.write_text('"context_is_admin": "role:chief"\n')
    engine = PolicyEngine((IDENTITY, IMAGE, NETWORK, COMPUTE), file)

    def passed(engine: PolicyEngine, role: str) -> set[str]:
        who = Context(request_id="r", user_id="u", project_id=None if system else "p", system=system, roles=(role,))
        return {rule for rule in ALL if engine.allows(who, rule, {})}

    assert passed(engine, "chief") == passed(ENGINE, "admin") > passed(ENGINE, "nobody")
    assert passed(engine, "admin") == passed(ENGINE, "nobody")


@pytest.mark.parametrize("text", ['"a": "rule:b"\n"b": "not rule:a"\n', '"a": "http://somewhere/"\n'])
def test_a_file_that_cannot_work_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(BadRequest):
        PolicyEngine([IDENTITY], file)


def test_unknown_rules_allow_nobody_and_refusals_say_which_rule() -> None:
    admin = Context(request_id="r", roles=("admin",))
    assert not ENGINE.allows(admin, "identity:no_such_rule")
    nobody = Context(request_id="r", user_id="u", project_id="p")
    with pytest.raises(Forbidden, match="requested action: identity:list_users"):
        ENGINE.check(nobody, "identity:list_users")
    with pytest.raises(Forbidden, match="Policy doesn't allow some:thing to be performed"):
        ENGINE.check(nobody, "some:thing")


@pytest.mark.parametrize(("text", "said"), [
    ('"x": "not rule:gone"', "there is no rule gone."), ('"x": "role:a or (rule:here and rule:gone)"', "rule gone."),
    ('"compute:admin": "role:cloud_admin"', "it is called context_is_admin."),
    ('"x": "not rule:compute:admin"', "compute:admin any more")])
def test_a_file_that_refers_to_what_is_not_there_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """The first would let everybody pass."""
    (file := tmp_path / "policy.yaml").write_text('"here": "role:b"\n' + text + "\n")
    with pytest.raises(BadRequest, match=re.escape(said)):
        PolicyEngine([{"x": "role:c"}], file)


def test_a_member_is_nobody_in_particular(tmp_path: Path) -> None:
    """Whoever an operator's policy names."""
    (file := tmp_path / "policy.yaml").write_text('"context_is_admin": "user_id:u1"\n')
    one = Context(request_id="r", user_id="u1", project_id="p", roles=("admin", "member"))
    engine = PolicyEngine([{"x": "rule:context_is_admin", "y": "project_id:%(project_id)s"}], file)
    assert engine.allows(one, "x") and not engine.allows(one.as_member(), "x", {"project_id": "p"})
    assert engine.allows(one.as_member(), "y", {"project_id": "p"})
