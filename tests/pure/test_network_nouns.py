"""The network's nouns are its rows, field by field, and nothing changes under who reads one."""

from collections.abc import Iterator

import pytest

from nacre.network.api import service  # with it all nouns are there
from nacre.network.nouns.noun import Noun
from nacre.network.nouns.port import Placed, Port
from nacre.network.work import COUNTED

#: Of no project: operators make them, and not more than a limit says.
OPERATORS = {"default_security_group_rule", "network_segment_range", "segment"}


def kinds(above: type[Noun] = Noun) -> Iterator[type[Noun]]:
    for kind in above.__subclasses__():
        if hasattr(kind, "TABLE"):
            yield kind
        yield from kinds(kind)


def test_everything_that_quotas_count_is_a_noun():
    assert set(COUNTED.values()) <= {kind.TABLE for kind in kinds()}
    assert {store.resource.name for store in service.STORES} - OPERATORS == set(COUNTED)


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_a_noun_has_the_columns_of_its_table_and_no_other_fields(kind):
    assert set(kind.__struct_fields__) == set(kind.TABLE.c.keys())


def test_a_noun_does_not_change():
    port = Placed(**dict.fromkeys(Placed.__struct_fields__))
    with pytest.raises(AttributeError):
        port.host = "h"
    assert isinstance(port, Port) and not port.bound
