"""The metadata definitions that a new cloud has, as dashboards and clients ask for them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.stories.whole_cloud import WholeCloud, whole_cloud

from nacre.image.metadefs.builtin import NAMESPACES
from nacre.image.metadefs.schemas import CHECKS


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[WholeCloud]:
    async with whole_cloud(tmp_path) as running:
        yield running


async def get(cloud: WholeCloud, path: str) -> Any:
    answer = await cloud.ask("demo", "GET", "image", path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_they_are_what_the_api_takes() -> None:
    for document in NAMESPACES:
        assert not [str(error) for error in CHECKS["namespace"].iter_errors(document)], document["namespace"]


async def test_a_new_cloud_has_them(cloud: WholeCloud) -> None:
    found = (await get(cloud, "/metadefs/namespaces?sort_key=namespace&sort_dir=asc&limit=1000"))["namespaces"]
    assert [n["namespace"] for n in found] == sorted(d["namespace"] for d in NAMESPACES)
    assert {n["visibility"] for n in found} == {"public"} and all(n["protected"] for n in found)
    types = {t["name"] for t in (await get(cloud, "/metadefs/resource_types"))["resource_types"]}
    assert {"OS::Glance::Image", "OS::Nova::Flavor", "OS::Nova::Server"} <= types


@pytest.mark.parametrize(("kind", "some"), [
    ("OS::Nova::Server", 2), ("OS::Glance::Image", 4), ("OS::Nova::Flavor", 2), ("OS::Nova::Aggregate", 1)])
async def test_as_the_launch_dialog_asks(cloud: WholeCloud, kind: str, some: int) -> None:
    path = f"/metadefs/namespaces?limit=1000&sort_key=namespace&sort_dir=asc&resource_types={kind}"
    found = (await get(cloud, path))["namespaces"]
    assert len(found) == some
    for each in found:
        whole = await get(cloud, f"/metadefs/namespaces/{each['namespace']}?resource_type={kind}")
        assert whole["namespace"] == each["namespace"] and (whole.get("properties") or whole.get("objects"))
        for part in ("properties", "objects", "tags", "resource_types"):
            await get(cloud, f"/metadefs/namespaces/{each['namespace']}/{part}")
