"""A token as the API shows it."""

from datetime import UTC, datetime
from typing import Any

from nacre.identity.derive import Facts, Row
from nacre.identity.tokens import Payload


def when(seconds: float | None) -> str | None:
    """`2026-01-01T00:00:00.000000Z`, as Keystone writes times."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def brief(row: Row) -> dict[str, str]:
    return {"id": row["id"], "name": row["name"]}


def token(payload: Payload, facts: Facts) -> dict[str, Any]:
    """The body of a token, without its catalog."""
    body: dict[str, Any] = {
        "methods": list(payload.methods),
        "user": {**brief(facts.user), "domain": brief(facts.user_domain), "password_expires_at": None},
        "audit_ids": list(payload.audit_ids),
        "expires_at": when(payload.expires_at), "issued_at": when(payload.issued_at)}
    if facts.system:
        body["system"] = {"all": True}
    if facts.domain:
        body["domain"] = brief(facts.domain)
    if facts.project and facts.project_domain:
        body["project"] = {**brief(facts.project), "domain": brief(facts.project_domain)}
        body["is_domain"] = bool(facts.project["is_domain"])
    if facts.roles:
        body["roles"] = [{"id": id, "name": name} for id, name in facts.roles]
    if facts.trust:
        body["OS-TRUST:trust"] = {
            "id": facts.trust["id"], "impersonation": bool(facts.trust["impersonation"]),
            "trustor_user": {"id": facts.trust["trustor_user_id"]},
            "trustee_user": {"id": facts.trust["trustee_user_id"]}}
    if facts.access:
        body["OS-OAUTH1"] = {"access_token_id": facts.access["id"], "consumer_id": facts.access["consumer_id"]}
    if facts.credential:
        shown: dict[str, Any] = {**brief(facts.credential), "restricted": not facts.credential["unrestricted"]}
        if facts.access_rules:
            shown["access_rules"] = [{k: r[k] for k in ("id", "service", "path", "method")}
                                     for r in facts.access_rules]
        body["application_credential"] = shown
    return body
