"""A cloud's identity for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from identity_cloud import Lab

from nacre.base.db import Database


@pytest.fixture
async def lab(tmp_path: Path, story_db: Database) -> Lab:
    lab = Lab(tmp_path, story_db)
    await lab.start()
    return lab


@pytest.fixture
async def admin(lab: Lab) -> AsyncIterator[httpx.AsyncClient]:
    async with await lab.admin() as client:
        yield client


@pytest.fixture
async def demo(lab: Lab) -> AsyncIterator[httpx.AsyncClient]:
    async with await lab.demo() as client:
        yield client
