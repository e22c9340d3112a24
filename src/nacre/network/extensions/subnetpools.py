"""Subnet pools: prefixes from which subnets' ranges are cut."""

import sqlalchemy as sa

from nacre.network.work import Row, Work, missing


def choose(work: Work, data: Row) -> str | None:
    return None
