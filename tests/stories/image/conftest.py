"""A cloud for each test, and clients of two projects and an administrator."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from image_cloud import Cloud

from nacre.base.db import Database
from nacre.image.service import Settings


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def cloud(tmp_path: Path, settings: Settings, story_db: Database) -> AsyncIterator[Cloud]:
    cloud = Cloud(tmp_path / "store", story_db, settings)
    yield cloud
    await cloud.uploads.close()


@pytest.fixture
async def a(cloud: Cloud) -> AsyncIterator[httpx.AsyncClient]:
    async with cloud.client("a-member") as client:
        yield client


@pytest.fixture
async def b(cloud: Cloud) -> AsyncIterator[httpx.AsyncClient]:
    async with cloud.client("b-member") as client:
        yield client


@pytest.fixture
async def admin(cloud: Cloud) -> AsyncIterator[httpx.AsyncClient]:
    async with cloud.client("x-admin") as client:
        yield client
