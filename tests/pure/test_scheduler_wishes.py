"""What a request may wish of its hosts, one wish a test; and the words when it cannot be had."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.errors import BadRequest, NoValidHost
from nacre.scheduler.contract import DiskReport, GroupRule
from nacre.scheduler.extra_specs import matches
from nacre.scheduler.filter_scheduler import FilterScheduler
from nacre.scheduler.name_match import NamePattern
from nacre.scheduler.query import compile_query
from tests.pure.scheduler_lab import AggregateFacts, Fleet, ask, report


def fleet(*names: str, **options: object) -> Fleet:
    made = Fleet(**options)
    for name in names:
        made.add(report(name))
    return made


def refused(made: Fleet, *servers: str, **wish: object) -> NoValidHost:
    with pytest.raises(NoValidHost) as error:
        made.place(ask(*servers, **wish))  # type: ignore[arg-type]
    return error.value


def hosts(made: Fleet, *servers: str, **wish: object) -> list[str]:
    return [p.host for p in made.place(ask(*servers, **wish))]  # type: ignore[arg-type]


# --- why ----------------------------------------------------------------------------------------------------------

def test_a_refusal_counts_its_reasons_and_names_the_nearest_to_administrators_only() -> None:
    made = Fleet()
    for n in range(31):
        made.add(report(f"small{n}", memory=256 + n))
    for n in range(9):
        made.add(report(f"off{n}"), out="are disabled")
    error = refused(made, memory=2048)
    assert error.message == ("No valid host was found. 0 of 40 hosts fit: 31 lack 2048 MB of memory, 9 are disabled; "
                             "the nearest lacks 1762 MB of memory")
    assert error.details == "small30 lacks 1762 MB of memory"


def test_the_nearest_lacks_the_least_of_what_it_lacks_most() -> None:
    made = Fleet()
    made.add(report("memory", memory=1000, vcpus=1))
    made.add(report("vcpus", memory=4096, vcpus=3))
    assert refused(made, memory=4000, vcpus=4).details == "vcpus lacks 1 vcpus"
    assert refused(made, memory=5000, vcpus=4).details == "vcpus lacks 904 MB of memory and 1 vcpus"


def test_a_host_that_would_fit_but_is_out_is_named() -> None:
    made = Fleet()
    made.add(report("a"), out="are down")
    assert refused(made).details == "a would fit, but is down"


def test_an_empty_cloud_says_so() -> None:
    assert "There are no hosts in the queue asked for" in refused(Fleet()).message


# --- hosts by name ------------------------------------------------------------------------------------------------

def test_a_forced_host_in_any_queue_and_a_queue() -> None:
    made = fleet("a")
    made.add(report("b", queue_name="gpu"))
    assert hosts(made, "1", host="b") == ["b"]
    assert hosts(made, "2", queue_name="gpu") == ["b"]
    assert "0 of 1 hosts fit: 1 lacks 99999 MB of memory" in refused(made, host="b", memory=99999).message
    assert "There are no hosts" in refused(made, queue_name="none").message
    assert "There is no host nowhere" in refused(made, host="nowhere").message


def test_host_match_is_a_search() -> None:
    made = fleet("rack1-a", "rack2-a")
    assert hosts(made, host_match="ack2") == ["rack2-a"]
    assert "2 do not match scheduler_host_match" in refused(made, host_match="(a+)+$x").message
    with pytest.raises(BadRequest, match="scheduler_host_match"):
        made.place(ask(host_match="("))


def test_a_pattern_that_was_asked_before_counts_every_host_once() -> None:
    made = Fleet()
    for n in range(400):
        made.add(report(f"rack{n // 10}-{n}", memory=1024), out="are down" if n % 10 == 0 else None)
    made.remove("rack5-55")
    first = refused(made, host_match="rack17", memory=2048).message
    assert "0 of 399 hosts fit: 359 lack 2048 MB of memory, 40 are down" in first
    again = refused(made, host_match="rack17", memory=2048).message  # its rows are known now
    assert "0 of 399 hosts fit: 389 do not match scheduler_host_match, 9 lack 2048 MB of memory, 1 is down" in again


@given(st.lists(st.text("ab-1.", min_size=1, max_size=8), min_size=1, max_size=20, unique=True),
       st.text("ab-1.^$*+?()[]|\\wsdDWSAz", max_size=8))
def test_all_names_at_once_are_as_each_by_itself(names: list[str], text: str) -> None:
    try:
        pattern = NamePattern(text)
    except BadRequest:
        return
    at_once = pattern.lines([n.encode() for n in names])
    assert list(at_once) == [n for n, name in enumerate(names) if pattern.found_in(name)]


# --- servers near and far -----------------------------------------------------------------------------------------

def test_staying_away_and_going_together() -> None:
    made = fleet("a", "b")
    hosts(made, "old", host="a")
    assert hosts(made, "x", different_host=("old",)) == ["b"]
    assert hosts(made, "y", same_host=("old",)) == ["a"]
    made.change("b", out="are disabled")
    assert hosts(made, "z", different_host=("old",), try_different_host=True) == ["a"]
    assert "1 runs a server to stay away from" in refused(made, different_host=("old",)).message
    assert "1 does not run the server to be with" in refused(made, same_host=("old",), memory=99999).message


def test_spread_puts_each_on_a_host_of_its_own() -> None:
    made = fleet("a", "b", "c")
    assert sorted(hosts(made, "1", "2", "3", spread=True)) == ["a", "b", "c"]
    assert "3 have a server of this request" in refused(made, "4", "5", "6", "7", spread=True).message


def test_as_many_as_min_count_allows() -> None:
    made = fleet("a", "b", "c")
    placed = made.place(ask("1", "2", "3", "4", "5", spread=True, min_count=2))
    assert [bool(p.host) for p in placed] == [True, True, True, False, False]
    assert "3 have a server of this request" in placed[3].why
    assert {h.free[0] for h in made.hosts()} == {4096 - 512}
    refused(made, "6", "7", "8", "9", spread=True, min_count=4)
    assert {h.free[0] for h in made.hosts()} == {4096 - 512}  # all or nothing


@pytest.mark.parametrize(("policy", "first", "second"), [
    ("anti-affinity", ["c", "b", "a"], None), ("soft-anti-affinity", ["c", "b", "a"], "c"),
    ("affinity", ["c", "c", "c"], "c"), ("soft-affinity", ["c", "c", "c"], "c")])
def test_server_groups(policy: str, first: list[str], second: str | None) -> None:
    made = fleet("a", "b", "c")
    members: tuple[str, ...] = ()
    for n, host in enumerate(first):
        rule = GroupRule(id="g", policy=policy, members=members)
        assert hosts(made, f"s{n}", group=rule) == [host]
        members += (f"s{n}",)
    rule = GroupRule(id="g", policy=policy, members=members)
    if second is None:
        assert "3 have a server of the group" in refused(made, group=rule).message
    else:
        assert hosts(made, "last", group=rule)[0] == second or policy == "soft-anti-affinity"
    at_once = fleet("a", "b", "c")
    placed = hosts(at_once, "1", "2", "3", group=GroupRule(id="g", policy=policy))
    assert len(set(placed)) == (3 if "anti" in policy else 1)


def test_a_server_that_is_placed_again_does_not_stand_in_its_own_way() -> None:
    """As when the database was away between the choice and the attempt, and the story begins anew."""
    made = fleet("a")
    rule = GroupRule(id="g", policy="anti-affinity", members=("1",))
    for _ in range(3):
        assert hosts(made, "1", memory=4096, group=rule) == ["a"]
    assert made.free("a") == 0
    made.release_all("1")
    assert made.free("a") == 4096


def test_soft_affinity_goes_elsewhere_when_full_and_affinity_does_not() -> None:
    made = fleet("a", "b")
    (host,) = hosts(made, "1", memory=4096)
    other = "b" if host == "a" else "a"
    assert hosts(made, "2", group=GroupRule(id="g", policy="soft-affinity", members=("1",))) == [other]
    error = refused(made, group=GroupRule(id="g", policy="affinity", members=("1",)))
    assert "1 does not run the group's servers" in error.message and "1 lacks 512 MB" in error.message


def test_anti_affinity_with_two_a_host() -> None:
    made = fleet("a", "b")
    rule = GroupRule(id="g", policy="anti-affinity", max_per_host=2)
    assert sorted(hosts(made, "1", "2", "3", "4", group=rule)) == ["a", "a", "b", "b"]
    refused(fleet("a", "b"), "1", "2", "3", "4", "5", group=rule)


# --- kinds of hosts -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("wish", "why"), [
    ({"availability_zone": "west"}, "are not in availability zone west"),
    ({"extra_specs": {"aggregate_instance_extra_specs:ssd": "true"}}, "are in no aggregate with ssd true"),
    ({"extra_specs": {"aggregate_instance_extra_specs:tier": "<or> gold <or> silver"}}, "are in no aggregate"),
    ({"extra_specs": {"capabilities:cpu_info:vendor": "Intel"}}, "lack the capability cpu_info:vendor Intel"),
    ({"extra_specs": {"capabilities:hypervisor_version": ">= 8000000"}}, "lack the capability hypervisor_version"),
    ({"extra_specs": {"trait:HW_CPU_X86_AVX512F": "required"}}, "lack HW_CPU_X86_AVX512F"),
    ({"extra_specs": {"trait:CUSTOM_GOLD": "required"}}, "lack CUSTOM_GOLD"),
    ({"image_properties": {"hw_architecture": "aarch64"}}, "are not aarch64"),
    ({"image_properties": {"img_hv_type": "xen"}}, "are not xen"),
    ({"image_properties": {"os_type": "windows"}}, "are in an aggregate for other images than os_type windows"),
])
def test_only_hosts_of_the_right_kind_are_taken(wish: dict[str, object], why: str) -> None:
    good = {"ssd": "true", "tier": "silver", "os_type": "windows,linux"}
    made = Fleet()
    for n in range(60):  # so many that all are asked at once, too
        made.add(report(f"bad{n}", 8192), aggregates=(AggregateFacts(name="x", metadata={"os_type": "linux"}),))
    error = refused(made, **wish)
    assert f"60 {why}" in error.message
    made.add(report("good", 4096, hypervisor_version=8002000, architecture="aarch64", hypervisor_type="xen",
                    cpu_info=json.dumps({"vendor": "Intel", "features": ["avx512f", "sse4.2"]}), vcpus=64),
             zone="west", aggregates=(AggregateFacts(name="y", metadata=good),))
    if "CUSTOM_GOLD" in why:
        assert "61 lack CUSTOM_GOLD" in refused(made, **wish).message
    else:
        assert hosts(made, **wish) == ["good"]


@pytest.mark.parametrize("trait", ["SSE42", "AVX512_VP2INTERSECT", "AESNI", "SHA", "FMA3"])
def test_traits_are_found_by_libvirts_names(trait: str) -> None:
    made = Fleet()
    made.add(report("new", cpu_info='{"features": ["sse4.2", "avx512-vp2intersect", "aes", "sha-ni", "fma"]}'))
    assert hosts(made, extra_specs={f"trait:HW_CPU_X86_{trait}": "required"}) == ["new"]


def test_forbidden_traits_and_other_projects_aggregates() -> None:
    made = Fleet()
    made.add(report("avx", 8192, cpu_info='{"features": ["avx2"]}'))
    made.add(report("plain", 4096))
    assert hosts(made, extra_specs={"trait:HW_CPU_X86_AVX2": "forbidden"}) == ["plain"]
    kept = Fleet()
    kept.add(report("kept"), aggregates=(AggregateFacts(name="k", metadata={"filter_tenant_id": "other,q"}),))
    assert "1 is kept for other projects" in refused(kept).message
    kept.add(report("mine"), aggregates=(AggregateFacts(name="m", metadata={"filter_tenant_id_1": "p"}),))
    assert hosts(kept) == ["mine"]


def test_a_filter_that_is_not_listed_is_not_asked() -> None:
    made = Fleet(filters=("zone",))
    made.add(report("a"))
    assert hosts(made, image_properties={"hw_architecture": "aarch64"}) == ["a"]
    with pytest.raises(KeyError, match="nonsense"):
        FilterScheduler(filters=("nonsense",))


@pytest.mark.parametrize(("value", "wanted", "fits"), [
    ("4", ">= 4", True), ("3", ">= 4", False), ("10", "= 4", True), ("4", "== 4.0", True), ("a", "s== a", True),
    ("b", "s> a", True), ("xavx", "<in> avx", True), ("avx", "<all-in> avx sse", False), ("b", "<or> a <or> b", True),
    ("<or>", "<or> a <or> b", False), ("plain text", "plain text", True), (None, "s== a", False), ("x", ">= 1", False),
    ("", "", True), ("x", "<in>", False), ("1", ">=", False), ("4", ">=4", True), ("plain", "plain text", False),
    ("['avx', 'sse']", "<all-in> avx sse", True), ("['avx']", "<all-in> avx sse", False), ("3", "< 4", True),
    ("15", "<range-in> [ 10 20 ]", True), ("20", "<range-in> [ 10 20 )", False), ("15", "<range-in> [ 20 10 ]", False),
    ("[" * 100_000, "<all-in> avx", False), ("nan", ">= 1", False)])
def test_the_language_of_extra_specs(value: str | None, wanted: str, fits: bool) -> None:
    assert matches(value, wanted) is fits


# --- the JSON query -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("query", "expected"), [
    ('[">=", "$free_ram_mb", 3000]', {"big", "wide"}), ('["=", "$host", "small"]', {"small"}),
    ('["in", "$hypervisor_hostname", "wide", "other"]', {"wide"}),
    ('["not", [">", "$vcpus_total", 4]]', {"small", "big"}),
    ('["and", [">", "$free_ram_mb", 9], ["or", ["=", "$host", "big"], ["<", "$free_ram_mb", 2000]]]', {"small", "big"}),
    ('["<", "$host", 5]', set()), ('["=", "$architecture", "x86_64"]', {"small", "big", "wide"})])
@pytest.mark.parametrize("crowd", [0, 60])
def test_a_query_chooses_hosts(query: str, expected: set[str], crowd: int) -> None:
    made = Fleet()
    for name, memory, vcpus in (("small", 1024, 4), ("big", 4096, 4), ("wide", 4096, 16)):
        made.add(report(name, memory, vcpus))
    for n in range(crowd):
        made.add(report(f"crowd{n}", 9999, 99, architecture="other"), zone="elsewhere")
    found = {p.host for n in range(3) for p in made.try_place(
        ask(f"s{n}", memory=0, vcpus=0, disk=1, query=query, spread=True, availability_zone="nova",
            ignore_hosts=tuple(h.name for h in made.hosts() if h.servers)))}
    assert found == expected


@pytest.mark.parametrize("query", [
    "no json", "{}", "[]", '["?", 1, 2]', '["=", "$nothing", 1]', '["=", 1]', '["and"]', '["=", null, 1]',
    '["=", true, 1]', "[1]", "[" * 5000, '["not", ' * 20 + '["=",1,1]' + "]" * 20, '["=", "' + "x" * 5000 + '", 1]'])
def test_a_query_that_is_none_is_refused_with_words(query: str) -> None:
    with pytest.raises(BadRequest, match="scheduler hint query"):
        compile_query(query)


# --- extra resources ----------------------------------------------------------------------------------------------

def test_bandwidth_is_counted_where_a_host_counts_it() -> None:
    made = Fleet()
    made.add(report("a", net_bandwidth=1000, disk_bandwidth=200, net_bandwidth_used=900))
    assert hosts(made, "1", net=100, io=150) == ["a"]
    error = refused(made, net=100, io=10)
    assert "1 lacks 100 Mbit/s of network bandwidth" in error.message
    assert "1 lacks 60 MB/s of disk bandwidth" in refused(made, io=60).message
    made.add(report("free"))
    assert hosts(made, "2", net=10**6) == ["free"]  # it does not count: it limits the guest, nothing else


def disks(**free: int) -> tuple[DiskReport, ...]:
    return tuple(DiskReport(path=f"/{name}", total_mb=10240, used_mb=10240 - mb, shares=100)
                 for name, mb in free.items())


def test_one_directory_must_hold_all_of_a_server() -> None:
    made = Fleet()
    made.add(report("a", 65536, 64, disks=disks(x=3000, y=5000)))
    (placed,) = made.place(ask("1", disk=4000, shares=60))
    assert (placed.host, placed.selected_dir) == ("a", "/y") and placed.limits is not None
    assert placed.limits.disk_mb == 10240 and placed.limits.disk_shares == 100
    assert made.place(ask("2", disk=1000, shares=60))[0].selected_dir == "/x"
    assert "1 lacks one directory with 3500 MB of disk and 50 shares" in roomy_elsewhere()
    assert "1 lacks 4000 MB of disk" in refused(made, disk=4000).message
    assert made.place(ask("3", disk=500, directory="/y"))[0].selected_dir == "/y"
    assert "1 lacks room in the directory asked for" in refused(made, disk=600, directory="/y").message
    made.release_all("1", "2", "3")
    assert [d.free_mb for d in made.host("a").directories.values()] == [3000, 5000]


def roomy_elsewhere() -> str:
    """The room is in one directory and the shares are in the other."""
    made = Fleet()
    made.add(report("a", 65536, 64, disks=(DiskReport(path="/x", total_mb=4000, used_mb=0, shares=100, shares_used=90),
                                           DiskReport(path="/y", total_mb=1000, used_mb=0, shares=100))))
    return refused(made, disk=3500, shares=50).message


def test_packing_takes_the_fullest_directory_and_spreading_the_emptiest() -> None:
    for sign, expected in ((1, "/x"), (-1, "/y")):
        made = Fleet(sign=sign)
        made.add(report("a", 65536, 64, disks=disks(x=3000, y=5000)))
        assert made.place(ask("1", disk=1000))[0].selected_dir == expected


def test_a_directory_is_asked_of_hosts_that_have_several() -> None:
    made = fleet("plain")
    assert "1 does not have the directory asked for" in refused(made, directory="/x").message
    assert "1 lacks 5 shares of a disk" in refused(made, shares=5).message
