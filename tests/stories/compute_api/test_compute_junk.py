"""Junk sent to every URL of the compute API: it is refused, never an internal error."""

import itertools

import pytest

from nacre.compute.api.microversions import MAXIMUM, text

JUNK = [None, [], {}, "x", 1, {"server": None}, {"server": {"name": None}}, {"servers": [None]}, {"os-start": []},
        {"": {}}, {"reboot": None}, {"lock": []}, {"os-getConsoleOutput": None}, {"addTenantAccess": []}]
VALUES = ["x", "-1", "99999999999999999999", "%00", "é" * 300, "a b"]
QUERIES = ["limit=99999999999999999999&marker=%00", "sort_key=%ff&sort_dir=x", "changes-since=9999-99-99",
           "name=%5B&ip=%28", "offset=-1", "start=%00&end=9999-12-31T00:00:00", "launch_index=%C2%B2&power_state=x",
           "minRam=%C2%B2", "tenant_id=&user_id=", "hypervisor_hostname_pattern=&with_servers="]


@pytest.mark.parametrize("version", ["2.1", text(MAXIMUM)])
async def test_no_internal_errors(client, version):
    routes = client.http._transport.app.services[0].routes
    wrong = []
    for route, value, body in itertools.product(routes, VALUES[:1], JUNK):
        if route.public or (route.method in ("GET", "DELETE") and body is not None):
            continue
        path = "/".join(value if part.startswith("{") else part for part in route.path.split("/"))
        answer = await client.raw(route.method, path, body, version=version, who="admin")
        if answer.status_code >= 500 and answer.status_code != 501:
            wrong.append((route.method, path, body, answer.text))
    for route, value, query in itertools.product(routes, VALUES[1:5], QUERIES[::2]):
        if route.method == "GET" and not route.public:
            path = "/".join(value if part.startswith("{") else part for part in route.path.split("/"))
            answer = await client.raw("GET", f"{path}?{query}", version=version, who="admin")
            if answer.status_code >= 500 and answer.status_code != 501:
                wrong.append((route.method, path, query, answer.text))
    assert not wrong, wrong[:5]
