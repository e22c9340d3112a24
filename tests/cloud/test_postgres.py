"""A whole cloud on PostgreSQL: real processes, from the first `up` to many builds at once, killed and started again."""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

import psycopg
import pytest

from tests.cloud.process_lab import SECONDS, Lab

pytestmark = [pytest.mark.processes, pytest.mark.postgres, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def lab(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    name = f"cloud{uuid.uuid4().hex}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"create database {name}")
    made = Lab(tmp_path_factory.mktemp("postgres"), f"{postgres_server}/{name}")
    yield made
    made.nacre("down")


def test_two_hundred_at_once_all_become_active_and_leave_nothing(lab: Lab) -> None:
    """By as many requests, thirty at a time: no retry runs out, no address is given twice."""
    lab.lift_quotas()
    with ThreadPoolExecutor(30) as pool:
        made = list(pool.map(lambda n: str(lab.call("POST", "compute", "/servers", {
            "server": {**lab.body["server"], "name": f"many-{n}"}})["server"]["id"]), range(200)))
    begin = time.monotonic()
    servers = lab.until_active("many", 200)
    print(f"200 active {time.monotonic() - begin:.1f} s after the last create")
    addresses = [a["addr"] for s in servers for each in s["addresses"].values() for a in each]
    assert len(addresses) == len(set(addresses)) == 200
    with ThreadPoolExecutor(30) as pool:
        assert set(pool.map(lambda s: lab.cloud.raw("DELETE", f"{lab.cloud.roots['compute']}/servers/{s}")[0], made)
                   ) == {204}
    lab.no_leaks()
