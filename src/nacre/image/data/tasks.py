"""The records of imports, which Glance calls tasks: how each goes, and for two days how it went.

Glance hides a task 48 hours after its end, for ever in the database; here its row goes then.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from nacre.base import errors as e
from nacre.image.tables import image_tasks, images

#: How long after its end: Glance's `task_time_to_live`.
LIVES = dt.timedelta(hours=48)
#: So many are remembered of one project. The next takes the place of the one that ended first.
MOST = 1000
_T = image_tasks.c
_GOES_ON = sa.and_(_T.status == "processing", sa.exists().where(
    images.c.id == _T.image_id, images.c.status == "importing"))
#: Of one that is "processing" and does not go on: a crash, or an outage of the database, ended it with its import.
LOST = "What imported it ended before it had told how."


def _over(now: dt.datetime) -> sa.ColumnElement[bool]:
    return sa.and_(_T.updated_at <= now - LIVES, sa.not_(_GOES_ON))


def begin(conn: sa.Connection, task: Mapping[str, Any]) -> None:
    """An import begins. An earlier one of its image is not going on any more."""
    end(conn, task["created_at"], LOST, _T.image_id == task["image_id"])
    mine = _T.owner == task["owner"]
    number = conn.execute(sa.select(sa.func.count()).select_from(image_tasks).where(mine)).scalar_one()
    if number >= MOST:
        conn.execute(sa.delete(image_tasks).where(_T.id.in_(sa.select(_T.id).where(
            mine, sa.not_(_GOES_ON)).order_by(_T.updated_at).limit(number - MOST + 1))))
    conn.execute(sa.insert(image_tasks).values(task))


def end(conn: sa.Connection, now: dt.datetime, message: str, which: sa.ColumnElement[bool]) -> None:
    """Those of these that had not ended did so. message: why they failed; "": they did not."""
    conn.execute(sa.update(image_tasks).where(which, _T.status == "processing").values(
        status="failure" if message else "success", message=message, updated_at=now))


def any_over(conn: sa.Connection, now: dt.datetime) -> bool:
    """Whether `forget` has something to do."""
    return conn.execute(sa.select(_T.id).where(_over(now)).limit(1)).first() is not None


def forget(conn: sa.Connection, now: dt.datetime) -> None:
    """Those go that ended long ago."""
    conn.execute(sa.delete(image_tasks).where(_over(now)))


def of_image(conn: sa.Connection, now: dt.datetime, image_id: str) -> list[Mapping[str, Any]]:
    """Those of an image, newest first."""
    return _found(conn, sa.not_(_over(now)), _T.image_id == image_id)


def every(conn: sa.Connection, now: dt.datetime) -> list[Mapping[str, Any]]:
    """The newest of all projects."""
    return _found(conn, sa.not_(_over(now)))


def one(conn: sa.Connection, now: dt.datetime, task_id: str) -> Mapping[str, Any]:
    """Raises NotFound."""
    if not (found := _found(conn, sa.not_(_over(now)), _T.id == task_id.replace("\x00", ""))):
        raise e.NotFound(f"Task {task_id[:64]} not found")
    return found[0]


def _found(conn: sa.Connection, *where: sa.ColumnElement[bool]) -> list[Mapping[str, Any]]:
    rows = conn.execute(sa.select(image_tasks, sa.case((_GOES_ON, 1), else_=0).label("goes_on")).where(*where).order_by(
        _T.created_at.desc()).limit(MOST)).mappings()
    return [_shown(**row) for row in rows]


def _shown(goes_on: int, **row: Any) -> Mapping[str, Any]:
    if row["status"] == "processing" and not goes_on:
        row |= {"status": "failure", "message": LOST}
    return {**row, "expires_at": None if goes_on else row["updated_at"] + LIVES}
