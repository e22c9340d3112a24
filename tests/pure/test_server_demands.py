"""What a server takes of its host: from its flavor, the flavor's extra specs, the user's hints."""

from collections.abc import Iterable
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from nacre.base.errors import BadRequest
from nacre.compute.contract import Group, Server, ServerFlavor, ServerSpec, StoryOrder
from nacre.conductor.build import known_to
from nacre.conductor.orders import NOBODY, amounts, placement_request
from nacre.scheduler.contract import GroupRule
from tests.cloud.conductor_lab import CONTEXT

SIZE = {"id": "f", "name": "f", "memory_mb": 512, "vcpus": 2, "root_gb": 3, "ephemeral_gb": 1, "swap_mb": 64}


def server(specs: dict[str, str] | None = None, ident: str = "s", **hints: Any) -> Server:
    flavor = ServerFlavor(**SIZE, extra_specs=specs or {})  # type: ignore[arg-type]
    return Server(id=ident, name="s", project_id="p", user_id="u", vm_state="building", flavor=flavor, hints=hints,
                  created_at=datetime(2026, 1, 1), group_id="g" if "group" in hints else None)


def test_disk_is_root_and_ephemeral_and_swap() -> None:
    found = amounts(server())
    assert (found.memory_mb, found.vcpus, found.disk_mb) == (512, 2, 1024 * 4 + 64)
    assert (found.net_bandwidth, found.disk_bandwidth, found.disk_shares, found.disk) == (0, 0, 0, "")


@pytest.mark.parametrize(("specs", "hints", "expected"), [
    ({}, {"network_bandwidth": 7, "disk_bandwidth": 8, "disk_shares": 9, "selected_dir": "/x"}, (7, 8, 9, "/x")),
    ({"nacre:network_bandwidth": "70", "nacre:disk_bandwidth": "80", "nacre:disk_shares": "90",
      "nacre:selected_dir": "/y"},
     {"network_bandwidth": 7, "disk_bandwidth": 8, "disk_shares": 9, "selected_dir": "/x"}, (70, 80, 90, "/y")),
    ({"quota:vif_inbound_average": "1000", "quota:vif_outbound_average": "2001"}, {"network_bandwidth": 1},
     (17, 0, 0, "")),
    ({"quota:disk_total_bytes_sec": "1500000"}, {}, (0, 2, 0, "")),
    ({"quota:disk_read_bytes_sec": "1000000", "quota:disk_write_bytes_sec": "2000000"}, {}, (0, 3, 0, ""))])
def test_a_flavors_word_counts_before_a_hint(specs: dict[str, str], hints: dict[str, Any],
                                             expected: tuple[int, int, int, str]) -> None:
    found = amounts(server(specs, **hints))
    assert (found.net_bandwidth, found.disk_bandwidth, found.disk_shares, found.disk) == expected


@pytest.mark.parametrize("specs", [{"nacre:disk_shares": "many"}, {"quota:vif_inbound_average": "-5"},
                                   {"nacre:network_bandwidth": "10000001"}, {"quota:disk_total_bytes_sec": "1e9"}])
def test_what_is_no_number_is_refused_by_name(specs: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match=min(specs)):
        amounts(server(specs))


def test_what_the_scheduler_is_asked() -> None:
    spec = ServerSpec(name="s", flavor_id="f", image_id="i", min_count=2, max_count=4, availability_zone="east:h7")
    order = StoryOrder(context=CONTEXT, server_ids=("a", "b", "c", "d"), spec=spec)
    wishes = {"different_host": "true", "same_host": ["old"], "queue_name": "gpu", "scheduler_host_match": "^r",
              "query": '["=",1,1]', "group": "g"}
    group = Group(policy="anti-affinity", max_per_host=2, members=("a", "z"))
    asked = placement_request([server(None, i, **wishes) for i in "abcd"], order, group, ["bad"], {"old"})
    assert (asked.server_ids, asked.min_count, asked.availability_zone, asked.host) == (tuple("abcd"), 2, "east", "h7")
    assert asked.spread and asked.different_host == () and asked.same_host == ("old",)
    assert (asked.queue_name, asked.host_match, asked.query, asked.ignore_hosts) == ("gpu", "^r", '["=",1,1]', ("bad",))
    assert asked.group == GroupRule(id="g", policy="anti-affinity", members=("a", "z"), max_per_host=2)
    left = placement_request([server(None, "d", **wishes)], order)  # a crash later only one is left: it must be
    assert left.min_count == 1 and left.group is None


def test_a_server_that_the_project_may_not_know_of_is_on_no_host() -> None:
    order = StoryOrder(context=CONTEXT, server_ids=("a",))
    wishes = {"different_host": ["mine", "theirs"], "same_host": ["theirs"]}
    asked = placement_request([server(None, "a", **wishes)], order, known={"mine"})
    assert asked.different_host == ("mine",) and asked.same_host == (NOBODY,)


class Written:
    """The servers that there are."""

    def __init__(self, *servers: Server) -> None:
        self._servers = servers

    async def load(self, ids: Iterable[str]) -> list[Server]:
        return [s for s in self._servers if s.id in set(ids)]


async def test_a_project_knows_its_own_servers_and_an_administrator_all() -> None:
    parts: Any = SimpleNamespace(progress=Written(
        server(None, "mine"), msgspec.structs.replace(server(None, "theirs"), project_id="other")))
    asking = server(None, "a", different_host=["mine", "theirs", "nowhere"], same_host=["theirs"])
    order = StoryOrder(context=CONTEXT, server_ids=("a",))
    assert await known_to(parts, order, asking) == {"mine"}
    admin = msgspec.structs.replace(order, context=msgspec.structs.replace(CONTEXT, roles=("admin",)))
    assert await known_to(parts, admin, asking) >= {"mine", "theirs"}
    assert await known_to(parts, order, server(None, "a")) == set()
