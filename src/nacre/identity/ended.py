"""What ended: tokens from before are void for good, also when it is there again (Keystone's revocation events). It is
the only way to end a token.

A token carries the revision of identity at which it was issued, and an end that which it made: no clocks are compared,
which may differ between control processes.
"""

import time
from collections.abc import Iterable

import sqlalchemy as sa
import structlog

from nacre.base.db import statements
from nacre.identity import tables as t
from nacre.identity.store import bump

log = structlog.get_logger()

DAY = 86400.0
#: What ended is forgotten after so many seconds: `identity.token_lifetime` allows a day less, for clocks that differ.
KEEP = 32 * DAY

_NOW = sa.select(sa.extract("epoch", sa.func.current_timestamp()))
#: So many single ends of a user are remembered: tokens that were taken back one by one, and what the user has lent; so
#: many of the tokens of one thing that is lent. The next ends all of theirs.
MOST, MOST_OF_LOAN = 10_000, 1_000
_OF_ONE = sa.select(sa.func.count()).where(
    t.ended.c.owner == sa.bindparam("owner"), t.ended.c.ended_at >= sa.bindparam("before"))
_IDS: sa.BindParameter[list[str]] = sa.bindparam("ids", expanding=True)
#: Whatever a token rests on: it ended when the last of what is forgotten did. However wrong the clocks are by which it
#: was found old, no token of before lives again: whoever has one logs in anew.
_ANYTHING = "anything"
_OLD = sa.or_(t.ended.c.ended_at < sa.bindparam("before"), t.ended.c.id == _ANYTHING)
_LAST_OLD, _FORGET = sa.select(sa.func.max(t.ended.c.revision)).where(_OLD), sa.delete(t.ended).where(_OLD)
#: A control process of the release before does not say when, one whose clock is ahead says what is still to come.
_UNKNOWN = sa.update(t.ended).where(sa.or_(t.ended.c.ended_at == 0, t.ended.c.ended_at > sa.bindparam("now"))).values(
    ended_at=sa.bindparam("now"))
_LAST = sa.select(sa.func.max(t.ended.c.revision)).where(t.ended.c.id.in_(_IDS))


def of_user(id: str) -> str:
    return f"user:{id}"


def of_project(id: str) -> str:
    """A project or a domain."""
    return f"project:{id}"


def of_grant(user_id: str, target_id: str) -> str:
    """A user's roles on a project, a domain or "all" of the system."""
    return f"grant:{user_id}:{target_id}"


def of_loan(id: str) -> str:
    """A trust, an application credential or an OAuth access token."""
    return f"loan:{id}"


def of_token(audit_id: str) -> str:
    """A token alone, not those that were had with it."""
    return f"token:{audit_id}"


def revision(conn: sa.Connection) -> int:
    """The one that a token is issued at. To be read before what the token says."""
    return conn.scalar(sa.select(t.revision.c.value)) or 0


def end(conn: sa.Connection, ids: Iterable[str], owner: str | None = None, keep: float = KEEP) -> None:
    """These end now. What ended so long ago that no token is left of before is forgotten: by the database's clock and
    by our own, either of which may be wrong for a while; what is written down is the later of the two. owner: of
    which, with others, this is a part: a user's token, say."""
    found = sorted(set(ids))
    if found:
        bump(conn)  # first: others that write wait, so that no token is issued at this revision before its commit
        at = revision(conn)
        early, late = sorted((float(conn.execute(_NOW).scalar_one()), time.time()))
        statements.delete(conn, t.ended, id=found)
        conn.execute(_UNKNOWN, {"now": late})
        if (last := conn.scalar(_LAST_OLD, {"before": early - KEEP})) is not None:
            conn.execute(_FORGET, {"before": early - KEEP})
        ends = [(id, at, owner, late - (KEEP - keep)) for id in found]
        ends += [] if last is None else [(_ANYTHING, last, None, late)]
        statements.insert(conn, t.ended, [
            {"id": id, "revision": at, "ended_at": then, "owner": whose} for id, at, whose, then in ends])


def end_token(conn: sa.Connection, audit_id: str, owner: str, lives: float) -> None:
    """This one token ends now. owner: whose it is, in the words of `of_user` or `of_loan`. lives: seconds for which a
    token of now may live at most, or this one, if that is longer."""
    _end_one(conn, of_token(audit_id), owner, min(lives + DAY, KEEP))


def end_loan(conn: sa.Connection, id: str, user_id: str | None) -> None:
    """What a user has lent ends now, if there is any; what ended of it alone need not be known any more."""
    if user_id is not None:
        statements.delete(conn, t.ended, owner=of_loan(id))
        _end_one(conn, of_loan(id), of_user(user_id))


def _end_one(conn: sa.Connection, id: str, owner: str, keep: float = KEEP) -> None:
    """Where too many of an owner's are remembered, all of theirs end: a few bytes for each would fill the database of
    everybody."""
    most = MOST_OF_LOAN if owner.startswith(of_loan("")) else MOST
    if conn.execute(_OF_ONE, {"owner": owner, "before": time.time() - KEEP}).scalar_one() < most:
        return end(conn, [id], owner, keep)
    log.warning("too many single ends are remembered: all tokens of their owner end", owner=owner, most=most)
    statements.delete(conn, t.ended, owner=owner)
    end(conn, [owner])


def since(conn: sa.Connection, at: int, ids: Iterable[str]) -> bool:
    """Whether one of these ended after a token of that revision was issued."""
    return (conn.scalar(_LAST, {"ids": [_ANYTHING, *ids]}) or 0) > at


def take_grants(conn: sa.Connection, *where: sa.ColumnElement[bool]) -> int:
    """Takes assignments away, and ends what they gave. How many they were. Application credentials stay: what one may
    do is found when it is used, as in Keystone."""
    m = t.memberships.c
    gone = conn.execute(sa.select(t.assignments).where(*where)).mappings().all()
    groups = {row["actor_id"] for row in gone if row["actor_type"] == "group"}
    members: dict[str, list[str]] = {}
    for row in conn.execute(sa.select(t.memberships).where(m.group_id.in_(groups))).mappings() if groups else ():
        members.setdefault(row["group_id"], []).append(row["user_id"])
    conn.execute(sa.delete(t.assignments).where(*where))
    users = [(row, user) for row in gone for user in (
        members.get(row["actor_id"], ()) if row["actor_type"] == "group" else (row["actor_id"],))]
    end(conn, (of_user(user) if row["inherited"] else of_grant(user, row["target_id"]) for row, user in users))
    return len(gone)
