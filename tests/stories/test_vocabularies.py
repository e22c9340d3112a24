"""The metadata definitions that a new cloud has, as dashboards and clients ask for them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from tests.stories.whole_cloud import WholeCloud, whole_cloud

from nacre import migrations
from nacre.base.db import make_engine
from nacre.cli.bootstrap import first_rows
from nacre.image.metadefs.builtin import NAMESPACES
from nacre.image.metadefs.schemas import CHECKS
from nacre.image.metadefs.tables import given, namespaces


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


async def names(cloud: WholeCloud) -> set[str]:
    found = (await get(cloud, "/metadefs/namespaces?limit=1000"))["namespaces"]
    return {n["namespace"] for n in found}


async def test_what_an_operator_deletes_stays_deleted(cloud: WholeCloud) -> None:
    """A start gives what the cloud was never given, and nothing else; what has such a name already stays as it is."""
    ours, control = [d["namespace"] for d in NAMESPACES], cloud.control
    gone, own, fresh = ours[0], ours[1], ours[2]
    for name in (gone, own):
        path = f"/metadefs/namespaces/{name}"
        await cloud.ask("admin", "PUT", "image", path, {"namespace": name, "protected": False})
        assert (await cloud.ask("admin", "DELETE", "image", path)).status_code == 204
    await cloud.ask("admin", "POST", "image", "/metadefs/namespaces", {
        "namespace": own, "visibility": "public", "display_name": "the operator's"})
    await control.db.run(lambda c: [c.execute(sa.delete(given).where(given.c.namespace.in_((own, fresh)))),
                                    c.execute(sa.delete(namespaces).where(namespaces.c.namespace == fresh))])
    for _ in range(2):
        await first_rows(control)
        assert await names(cloud) == set(ours) - {gone}
    assert (await get(cloud, f"/metadefs/namespaces/{own}"))["display_name"] == "the operator's"
    assert (await get(cloud, f"/metadefs/namespaces/{fresh}")).get("properties")


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_cloud_of_an_earlier_release_is_given_them(tmp_path: Path, deleted: bool) -> None:
    """0018: one that never had any is; one whose operator deleted some of them keeps
    what it has, and is given what is new."""
    url = f"sqlite:///{tmp_path}/old.db"
    command.upgrade(migrations._config(url), "0016")
    engine = make_engine(url)
    with engine.begin() as connection:
        if deleted:
            connection.execute(sa.text(
                "insert into metadef_namespaces (id, namespace, visibility, protected, owner, created_at, updated_at) "
                "values ('1', 'OS::OperatingSystem', 'public', 1, 'x', '2026-01-01', '2026-01-01')"))
    engine.dispose()
    migrations.upgrade(url)
    async with whole_cloud(tmp_path, url, host=False) as cloud:
        later = {"Nacre::Compute::Aggregate", "Nacre::Compute::SchedulerHints"}
        every = {d["namespace"] for d in NAMESPACES}
        assert later < every and await names(cloud) == (later | {"OS::OperatingSystem"} if deleted else every)
