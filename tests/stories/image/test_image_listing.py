"""Lists: filters, order, pages."""

import httpx
import pytest
from image_cloud import A, register, send


@pytest.fixture
async def six(a: httpx.AsyncClient) -> list[str]:
    """Images i0 to i5 of sizes 0 to 50, or none for i0."""
    ids = []
    for number in range(6):
        image = await register(a, name=f"i{number}", tags=["even"] if number % 2 == 0 else ["odd", "x"],
                               min_ram=number, hw_kind=f"k{number % 3}", os_hidden=number == 5)
        ids.append(image["id"])
        if number:
            await send(a, image["id"], b"x" * 10 * number)
    return ids


@pytest.mark.parametrize(("query", "expected"), [
    ("", "43210"), ("name=i1", "1"), ("name=in:i1,i2", "21"), ('name=in:"i1",i3', "31"), ("status=active", "4321"),
    ("status=queued", "0"), ("status=in:queued,active", "43210"), ("tag=odd", "31"), ("tag=odd&tag=x", "31"),
    ("tag=odd&tag=even", ""), ("size_min=20", "432"), ("size_max=20", "21"), ("size_min=20&size_max=30", "32"),
    ("hw_kind=k1", "41"), ("hw_kind=none", ""), ("min_ram=3", "3"), ("os_hidden=true", "5"), ("owner=" + A, "43210"),
    ("owner=other", ""), ("visibility=public", ""), ("visibility=all", "43210"), ("disk_format=raw", "43210"),
    ("disk_format=in:qcow2,iso", ""), ("protected=false", "43210"), ("protected=true", ""),
    ("sort=name:asc", "01234"), ("sort_key=name&sort_dir=desc", "43210"), ("sort=size:asc", "01234"),
    ("sort_key=size&sort_key=name&sort_dir=desc", "43210"), ("created_at=gt:2020-01-01T00:00:00Z", "43210"),
    ("created_at=lt:2020-01-01T00:00:00", ""), ("limit=2", "43"), ("limit=0", "")])
async def test_filters(a: httpx.AsyncClient, six: list[str], query: str, expected: str) -> None:
    reply = await a.get(f"/v2/images?{query}")
    assert reply.status_code == 200, reply.text
    assert "".join(i["name"][1] for i in reply.json()["images"]) == expected


async def test_times_are_compared_as_they_are_shown(a: httpx.AsyncClient, six: list[str]) -> None:
    """In whole seconds, though more is kept: what was shown of an image is that image's."""
    shown = (await a.get(f"/v2/images/{six[1]}")).json()["created_at"]
    for operator, there in (("eq", 1), ("lte", 1), ("gte", 1), ("lt", 0), ("gt", 0), ("neq", 0)):
        found = (await a.get(f"/v2/images?name=i1&created_at={operator}:{shown}")).json()["images"]
        assert len(found) == there, operator


@pytest.mark.parametrize("query", [
    "limit=-1", "limit=x", "sort=nope", "sort=name:up", "sort_key=nope", "sort_dir=up", "sort=name&sort_key=size",
    "visibility=nope", "member_status=nope", "size_min=x", "created_at=yesterday", "os_hidden=perhaps",
    "changes-since=x", 'name=in:"open', "size_min=99999999999999999999", "name=%00",
    "created_at=gt:9999-12-31T23:59:59Z",
    "sort_key=name&sort_key=size&sort_key=id&sort_dir=asc&sort_dir=asc"])
async def test_bad_queries_say_so(a: httpx.AsyncClient, query: str) -> None:
    assert (await a.get(f"/v2/images?{query}")).status_code == 400


@pytest.mark.parametrize("order", ["name:asc", "size:desc", "size:asc", "created_at:desc", "status:asc,name:desc"])
async def test_pages_neither_repeat_nor_lose(a: httpx.AsyncClient, six: list[str], order: str) -> None:
    whole = [i["id"] for i in (await a.get(f"/v2/images?sort={order}")).json()["images"]]
    seen: list[str] = []
    url = f"/v2/images?limit=2&sort={order}"
    for _ in range(9):
        page = (await a.get(url)).json()
        seen += [i["id"] for i in page["images"]]
        assert page["first"].startswith("/v2/images?limit=2") and page["schema"] == "/v2/schemas/images"
        if "next" not in page:
            break
        url = page["next"]
    assert seen == whole and len(whole) == 5


async def test_a_marker_must_be_visible(a: httpx.AsyncClient, b: httpx.AsyncClient, six: list[str]) -> None:
    assert (await b.get(f"/v2/images?marker={six[0]}")).status_code == 404
    assert (await a.get("/v2/images?marker=nothing")).status_code == 404
