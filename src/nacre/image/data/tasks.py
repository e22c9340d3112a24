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
#: One that a crash left behind ended too: nobody imports that image.
_GOES_ON = sa.and_(_T.status == "processing", sa.exists().where(
    images.c.id == _T.image_id, images.c.status == "importing"))


def _over(now: dt.datetime) -> sa.ColumnElement[bool]:
    return sa.and_(_T.updated_at <= now - LIVES, sa.not_(_GOES_ON))


def begin(conn: sa.Connection, task: Mapping[str, Any]) -> None:
    """An import begins."""
    mine = _T.owner == task["owner"]
    number = conn.execute(sa.select(sa.func.count()).select_from(image_tasks).where(mine)).scalar_one()
    if number >= MOST:
        conn.execute(sa.delete(image_tasks).where(_T.id.in_(sa.select(_T.id).where(
            mine, sa.not_(_GOES_ON)).order_by(_T.updated_at).limit(number - MOST + 1))))
    conn.execute(sa.insert(image_tasks).values(task))


def end(conn: sa.Connection, now: dt.datetime, message: str, *which: sa.ColumnElement[bool]) -> None:
    """These ended. message: why they failed; "": they did not."""
    conn.execute(sa.update(image_tasks).where(*which).values(
        status="failure" if message else "success", message=message, updated_at=now))


def forget(conn: sa.Connection, now: dt.datetime) -> None:
    """Those go that ended long ago. Those whose end was not written down, as the process or the database went away
    then, end now."""
    lost = _T.status == "processing", sa.not_(_GOES_ON)
    done = sa.exists().where(images.c.id == _T.image_id, images.c.status == "active")
    end(conn, now, "", *lost, done)
    end(conn, now, "What imported it ended before it had told how.", *lost, sa.not_(done))
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
    rows = conn.execute(sa.select(image_tasks).where(*where).order_by(_T.created_at.desc()).limit(MOST)).mappings()
    return [{**row, "expires_at": None if row["status"] == "processing" else row["updated_at"] + LIVES} for row in rows]
