"""GET /allocation_candidates: what is asked and by which version, and which hosts have room by the ledger."""

from typing import Any
from urllib.parse import parse_qsl

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import BadRequest
from nacre.compute.api.placement.candidates import candidates, wish
from nacre.compute.api.placement.providers import Provider, provider
from nacre.scheduler.contract import Allocation, Amounts, DiskReport, HostReport, HostState
from nacre.scheduler.hosts import Host, Kinds, claim_of

AGG, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def report(name: str = "h1", **more: Any) -> HostReport:
    return HostReport(**{"host": name, "hypervisor_type": "fake", "hypervisor_version": 1, "vcpus": 8,
                         "memory_mb": 8192, "disk_gb": 100, "vcpus_used": 0, "memory_mb_used": 0, "disk_gb_used": 0,
                         "cpu_ratio": 2.0, "reserved_memory_mb": 192, **more})


def uuid(name: str) -> str:
    return f"00000000-0000-4000-8000-{int(name[1:]):012}"


def host(name: str = "h1", *taken: Amounts, aggregates: tuple[str, ...] = (), disabled: bool = False, **more: Any
         ) -> Provider:
    state = HostState(id=1, uuid=uuid(name), report=report(name, **more), up=True, disabled=disabled)
    return provider(state, [allocation(n, each) for n, each in enumerate(taken)], aggregates)


def allocation(n: int, amounts: Amounts) -> Allocation:
    return Allocation(id=f"a{n}", server_id=f"s{n}", host="h1", epoch=1, purpose="build", state="held", amounts=amounts)


def ask(query: str, *hosts: Provider, version: int = 39) -> dict[str, Any]:
    return candidates(wish(parse_qsl(query), (1, version)), hosts, (1, version))


def names(answer: dict[str, Any]) -> list[str]:
    assert len(answer["allocation_requests"]) == len(answer["provider_summaries"])
    return [f"h{int(each[-12:])}" for each in answer["provider_summaries"]]


def test_the_answer_by_version() -> None:
    one = host("h1", Amounts(vcpus=2, memory_mb=100, disk_mb=1500))
    amounts, traits = {"VCPU": 2, "MEMORY_MB": 512}, sorted(one.traits)
    used = {"VCPU": {"capacity": 16, "used": 2}, "MEMORY_MB": {"capacity": 8000, "used": 100}}
    every, tree = used | {"DISK_GB": {"capacity": 100, "used": 2}}, {
        "parent_provider_uuid": None, "root_provider_uuid": one.uuid}
    plain, mapped = {"allocations": {one.uuid: {"resources": amounts}}}, {"mappings": {"": [one.uuid]}}
    for version, request, summary in (
            (10, {"allocations": [{"resource_provider": {"uuid": one.uuid}, "resources": amounts}]},
             {"resources": used}),
            (12, plain, {"resources": used}), (17, plain, {"resources": used, "traits": traits}),
            (27, plain, {"resources": every, "traits": traits}),
            (29, plain, {"resources": every, "traits": traits, **tree}),
            (34, plain | mapped, {"resources": every, "traits": traits, **tree})):
        assert ask("resources=VCPU:2,MEMORY_MB:512", one, version=version) == {
            "allocation_requests": [request], "provider_summaries": {one.uuid: summary}}


@pytest.mark.parametrize(("query", "found"), [
    ("resources=VCPU:8", ["h1", "h2", "h3"]), ("resources=VCPU:9", []), ("resources=VCPU:8&limit=2", ["h1", "h2"]),
    ("resources=VCPU: 8&limit=1&limit=2", ["h1"]),
    ("resources=MEMORY_MB:8000,DISK_GB:100", ["h2", "h3"]), ("resources=MEMORY_MB:8001", []),
    ("resources=VCPU:1&required=!COMPUTE_STATUS_DISABLED", ["h1", "h2"]),
    ("resources=VCPU:1&required=COMPUTE_STATUS_DISABLED,COMPUTE_NODE", ["h3"]),
    ("resources=VCPU:1&required=COMPUTE_STATUS_DISABLED&required=!COMPUTE_STATUS_DISABLED1", ["h3"]),
    ("resources=VCPU:1&required=in:X,COMPUTE_STATUS_DISABLED", ["h3"]),
    ("resources=VCPU:1&root_required=!COMPUTE_STATUS_DISABLED", ["h1", "h2"]),
    (f"resources=VCPU:1&member_of={AGG}", ["h2"]), (f"resources=VCPU:1&member_of=!{AGG}", ["h1", "h3"]),
    (f"resources=VCPU:1&member_of=in:{AGG},{OTHER}", ["h2"]),
    (f"resources=VCPU:1&member_of={AGG}&member_of={OTHER}", []),
    (f"resources=VCPU:1&in_tree={uuid('h3')}", ["h3"]), (f"resources=VCPU:1&in_tree={OTHER}", []),
    ("resources1=VCPU:4&resources2=VCPU:4&group_policy=none", ["h1", "h2", "h3"]),
    ("resources1=VCPU:4&resources2=VCPU:5&group_policy=none", []),
    ("resources1=VCPU:4&resources2=VCPU:4&group_policy=isolate", []),
    ("resources=VCPU:4&resources_A=VCPU:4&group_policy=isolate", ["h1", "h2", "h3"]),
    ("resources=VCPU:1&required_X=COMPUTE_STATUS_DISABLED&same_subtree=_X", ["h3"]),
    ("resources_A=VCPU:1&required_X=COMPUTE_NODE&same_subtree=_A,_X&group_policy=isolate", [])])
def test_which_hosts(query: str, found: list[str]) -> None:
    hosts = (host("h1", Amounts(vcpus=1, memory_mb=1, disk_mb=1)), host("h2", aggregates=(AGG,)),
             host("h3", disabled=True))
    assert names(ask(query, *hosts)) == found


def test_groups_on_one_host_are_one_allocation() -> None:
    one = host()
    answer = ask("resources=DISK_GB:3&resources_A=VCPU:2&resources_B=VCPU:1,MEMORY_MB:5&group_policy=none", one)
    assert answer["allocation_requests"] == [{
        "allocations": {one.uuid: {"resources": {"DISK_GB": 3, "VCPU": 3, "MEMORY_MB": 5}}},
        "mappings": {"": [one.uuid], "_A": [one.uuid], "_B": [one.uuid]}}]


@pytest.mark.parametrize(("query", "version", "words"), [
    ("", 10, "'resources' is a required property"), ("resources=VCPU:1&limit=1", 15, "'limit' was unexpected"),
    ("resources=VCPU:1&required=A", 16, "'required' was unexpected"),
    ("resources=VCPU:1&required=!A", 21, "of the form: HW_CPU_X86_VMX,CUSTOM_MAGIC"),
    ("resources=VCPU:1&required=in:A,B", 38, "since microversion 1.39"),
    ("resources=VCPU:1&required=in:A,!B", 39, "does not support forbidden traits"),
    ("resources=VCPU:1&required=A,", 39, "empty trait"), ("resources=VCPU:1&required=A,!A", 39, "required: (A)"),
    (f"resources=VCPU:1&member_of={AGG}", 20, "'member_of' was unexpected"),
    (f"resources=VCPU:1&member_of={AGG}&member_of={AGG}", 23, "Multiple member_of parameters"),
    (f"resources=VCPU:1&member_of=!{AGG}", 31, "Forbidden member_of parameters"),
    ("resources=VCPU:1&member_of=x", 39, "valid UUID(s)"),
    (f"resources=VCPU:1&member_of={AGG},{OTHER}", 39, "must be prefixed with"),
    ("resources1=VCPU:1", 24, "'resources1' was unexpected"),
    ("resources_A=VCPU:1", 32, "'resources_A' was unexpected"),
    ("resources0=VCPU:1", 25, "'resources0' was unexpected"),
    (f"resources=VCPU:1&in_tree={AGG}", 30, "'in_tree' was unexpected"),
    ("resources=VCPU:1&in_tree=x", 31, "format of uuid"), ("resources=VCPU:1&root_required=A", 34, "was unexpected"),
    ("resources=VCPU:1&root_required=A&root_required=B", 35, "only once"),
    ("resources=VCPU:1&root_required=A,!A", 35, "found in root_required: A"),
    ("resources=VCPU:1&same_subtree=_A", 35, "was unexpected"), ("resources=VCPU:1&same_subtree=", 36, "Empty string"),
    ("resources=VCPU:1&same_subtree=_A", 36, "Real suffixes"), ("required=A", 36, "at least one resources"),
    ("resources=VCPU:1&required_A=X", 36, "Resourceless suffixed group"),
    ("resources=VCPU:1&required1=X", 25, "orphaned traits keys: required1"),
    (f"resources=VCPU:1&member_of1={AGG}", 25, "orphaned member_of keys: member_of1"),
    ("", 25, "At least one request group"), ("", 36, "at least one resources"),
    ("resources1=VCPU:1&resources2=VCPU:1", 25, '"group_policy" parameter is required'),
    ("resources=VCPU:1&group_policy=x", 25, "not one of"), ("resources=VCPU:1&limit=0", 16, "does not match"),
    ("resources=VCPU:1&limit=9999999999999999999999", 39, "does not match"),
    ("resources=VGPU:1", 39, "No such resource class VGPU"), ("resources=VCPU", 39, "Badly formed"),
    ("resources=VCPU:0", 39, "requires amount >= 1"), ("resources=VCPU:x", 39, "expected positive integer amount"),
    (f"resources=VCPU:{1 << 31}", 39, "expected positive integer amount"), ("resources=", 39, "Got: empty string"),
    ("resources=VCPU:1&colour=red", 39, "'colour' was unexpected")])
def test_refusals(query: str, version: int, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        wish(parse_qsl(query, keep_blank_values=True), (1, version))
    assert words in refused.value.message and refused.value.field


_AMOUNTS = st.builds(Amounts, vcpus=st.integers(0, 6), memory_mb=st.integers(0, 4096),
                     disk_mb=st.integers(0, 40).map(lambda gb: gb * 1024), disk=st.sampled_from(["/a", "/b"]))


@given(st.lists(_AMOUNTS, max_size=4), _AMOUNTS, st.sampled_from([0.5, 1.0, 1.5, 2.0]), st.booleans())
def test_a_host_is_a_candidate_if_the_scheduler_finds_room_there(
        taken: list[Amounts], wanted: Amounts, ratio: float, several: bool) -> None:
    """One server, of at most what the host has in all of a thing (placement's max_unit)."""
    disks = tuple(DiskReport(path=path, total_mb=gb << 10, used_mb=0) for path, gb in (("/a", 60), ("/b", 40)))
    said = report(ram_ratio=ratio, cpu_ratio=ratio, disks=disks if several else ())
    scheduled, placed = Host(said, Kinds().of(said, "nova", ())), list[Amounts]()
    for each in taken if several else [msgspec.structs.replace(each, disk="") for each in taken]:
        if scheduled.directory(each, 1) is not None:
            scheduled.take(f"a{len(placed)}", claim_of(allocation(len(placed), each)))
            placed.append(each)
    memory, vcpus, disk = scheduled.free[:3]
    room = (not wanted.memory_mb or memory >= wanted.memory_mb) and (not wanted.vcpus or vcpus >= wanted.vcpus) and (
        not wanted.disk_mb or disk >= wanted.disk_mb)
    asked = {"VCPU": wanted.vcpus, "MEMORY_MB": wanted.memory_mb, "DISK_GB": wanted.disk_mb // 1024}
    query = ",".join(f"{name}:{amount}" for name, amount in asked.items() if amount)
    if query:
        one = host("h1", *placed, ram_ratio=ratio, cpu_ratio=ratio, disks=said.disks)
        fits = all(amount <= one.inventories[name]["max_unit"] for name, amount in asked.items())
        assert bool(names(ask(f"resources={query}", one))) == (room and fits)


def test_groups_have_an_end() -> None:
    query = "&".join(f"resources{n}=VCPU:1" for n in range(1, 66)) + "&group_policy=none"
    with pytest.raises(BadRequest, match="64 groups are allowed, not 65"):
        ask(query, host())


def test_what_groups_ask_alike_is_looked_for_once() -> None:
    query = "&".join(f"resources{n}=VCPU:1&required{n}=COMPUTE_NODE&member_of{n}={AGG}" for n in range(1, 65))
    wanted = wish(parse_qsl(query + "&group_policy=none"), (1, 39))
    assert len(wanted.groups) == 64 and len(wanted.parts) == 3 and wanted.amounts == {"VCPU": 64}


def test_what_may_be_asked_of_a_host_has_an_end() -> None:
    """Each part is looked for at each of thousands of hosts, and 64 kB of query have room for very many."""
    def query(number: int) -> str:
        return "resources=VCPU:1&" + "&".join(f"required=in:COMPUTE_NODE,T{n}" for n in range(number))

    assert names(ask(query(63), host())) == ["h1"]
    with pytest.raises(BadRequest, match=r"64 different sets of traits and aggregates, and trees, are .*, not 65"):
        ask(query(64), host())


def test_what_a_host_says_it_reserves_is_no_more_than_it_has() -> None:
    (wanted,) = ask("resources=VCPU:1", host(reserved_memory_mb=1 << 40))["provider_summaries"].values()
    assert wanted["resources"]["MEMORY_MB"]["capacity"] == 0
    for ratio in (0.0, 5e-324):
        with pytest.raises(msgspec.ValidationError, match="ram_ratio"):
            msgspec.convert({**msgspec.to_builtins(report()), "ram_ratio": ratio}, HostReport)
