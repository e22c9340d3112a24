"""Every attribute of every resource, given anything: kept or refused by name, never a crash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.base.context import Context
from nacre.base.errors import BadRequest
from nacre.network.api.listing import parse
from nacre.network.api.service import STORES
from nacre.network.nouns.network import NETWORK
from nacre.network.nouns.port import BINDING

RESOURCES = [*(store.resource for store in STORES), BINDING]
LINES = [(r, a) for r in RESOURCES for a in r.attributes.values() if a.put]
ME = Context(request_id="r", project_id="p")

leaf = (st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
        | st.sampled_from(["10.0.0.1", "10.0.0.0/24", "::1", "fa:16:3e:00:00:01", "\n", "\x00", "0" * 300]))
keys = st.sampled_from(["ip_address", "subnet_id", "start", "end", "destination", "nexthop", "opt_name", "opt_value",
                        "network_id", "mac_address"]) | st.text(max_size=4)
anything = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
                        max_leaves=6)


@pytest.mark.parametrize(("resource", "attribute"), LINES, ids=[f"{r.name}-{a.name}" for r, a in LINES])
@given(value=anything)
def test_any_value_is_kept_or_refused_by_name(resource, attribute, value):
    try:
        resource.parse_update({attribute.name: value}, ME)
    except BadRequest as refused:
        assert refused.field == attribute.name and attribute.name in refused.message


@given(st.lists(st.tuples(st.sampled_from(["limit", "marker", "sort_key", "sort_dir", "fields", "tags", "name",
                                           "changed_since", "x"]), st.text(max_size=8)), max_size=4))
def test_any_query_is_understood_or_refused(query):
    try:
        parse(NETWORK, query)
    except BadRequest as refused:
        assert refused.field
