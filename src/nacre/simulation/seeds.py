"""Ids out of a seed. Every id of the cloud (uuid4, messages) comes from os.urandom, so that is what is replaced while a
simulation runs: its process serves nobody else, and what it makes is thrown away."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside the block os.urandom is the seed's."""
    real, dice = os.urandom, random.Random(f"{seed}/ids")  # noqa: S311 - a simulation's ids guard nothing
    os.urandom = dice.randbytes
    try:
        yield
    finally:
        os.urandom = real
