"""A token that is taken back is remembered for as long as tokens of then can live, and counts for its user so long."""

import time
from collections.abc import Callable

import msgspec
import pytest
import sqlalchemy as sa
from identity_cloud import Lab, project

from nacre.identity.ended import DAY
from nacre.identity.tables import ended
from nacre.identity.tokens import seal

Later = Callable[[float], None]
#: Of a token in the lab.
LIFE = 3600.0


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Sets the clocks forward by which it is found what is forgotten: control's and the database's. Those of tokens
    stand still: they would be over."""
    begin = time.time()

    def forward(seconds: float) -> None:
        monkeypatch.setattr("nacre.identity.ended._NOW", sa.select(sa.literal(begin + seconds)))
        monkeypatch.setattr(time, "time", lambda: begin + seconds)

    return forward


async def remembered(lab: Lab) -> int:
    return await lab.store.read(lambda conn: conn.execute(sa.select(sa.func.count()).where(
        ended.c.id.startswith("token:"))).scalar_one())


async def logout(lab: Lab, user: str = "demo") -> str:
    token = await lab.token(user, f"{user}-pw", project(user))
    await lab.identity.revoke(token)
    return token


async def test_a_logout_is_forgotten_a_day_after_the_last_token_of_before_is_over(lab: Lab, later: Later) -> None:
    later(0)
    first = await logout(lab)
    stays = await lab.token("demo", "demo-pw", project("demo"))
    for seconds in (LIFE + DAY - 60, LIFE + DAY + 60):
        later(seconds)
        await logout(lab, "admin")
        assert await remembered(lab) == 2, "the last one, and the first or the one between"
        assert await lab.works(stays) and not await lab.works(first), "though these clocks were wrong, as its own says"
    later(2 * (LIFE + DAY))
    await logout(lab, "admin")
    assert await remembered(lab) == 2 and not await lab.works(stays), "it was had before a logout that is forgotten"
    assert await lab.works(await lab.token("demo", "demo-pw", project("demo")))


async def test_a_token_that_lives_longer_than_those_of_today_is_remembered_longer(lab: Lab, later: Later) -> None:
    """Of before `identity.token_lifetime` was made shorter."""
    payload = (await lab.identity.inspect(await lab.token("demo", "demo-pw", project("demo")))).payload
    long = seal(msgspec.structs.replace(payload, expires_at=payload.issued_at + 10 * DAY),
                await lab.identity.keys.primary())
    later(0)
    await lab.identity.revoke(long)
    for days in (10.9, 11.1):
        later(days * DAY)
        await logout(lab)
        assert await remembered(lab) == 2, "the last one, and the first or the one between"
    assert not await lab.works(long)


async def test_logouts_of_tokens_that_are_over_count_no_more(
        lab: Lab, later: Later, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nacre.identity.ended.MOST", 3)
    for day in range(10):
        later(day * (LIFE + DAY + 60))
        stays = await lab.token("demo", "demo-pw", project("demo"))
        for _ in range(3):
            await logout(lab)
        assert await lab.works(stays), day
    await logout(lab)
    assert not await lab.works(stays), "four at once are too many"
