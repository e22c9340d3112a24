"""Seeds in processes of their own, as many at once as there are processors."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Lines of a broken history that a report shows.
SHOWN = 60


def run(first: int, last: int, *more: str, step: int = 1) -> Iterator[dict[str, Any]]:
    """The results of every step-th seed, one after the other, from a process that ends with whoever asks."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NACRE_")}
    command = [sys.executable, "-W", "ignore", "-m", "tests.simulation.run", str(first), str(last), str(step), *more]
    path = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={
            **clean, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield json.loads(line)
        finally:
            process.kill()
    if process.returncode > 0:
        raise RuntimeError(f"the simulation of seeds {first} to {last} ended with {process.returncode}")


def everywhere(seeds: int) -> Iterator[dict[str, Any]]:
    """Seeds from 0 on, over all processors."""
    share = os.cpu_count() or 1
    with ExitStack() as stack:
        batches = [run(n, seeds - 1, step=share) for n in range(share)]
        for batch in batches:
            stack.callback(batch.close)
        while batches:
            for batch in list(batches):
                if (found := next(batch, None)) is None:
                    batches.remove(batch)
                else:
                    yield found


def told(result: dict[str, Any]) -> str:
    """A failing seed, for people."""
    seed, lines = result["seed"], result["history"]
    return "\n".join([
        f"seed {seed} breaks:", *(f"  {wrong}" for wrong in result["wrong"]), f"its last {SHOWN} steps:",
        *lines[-SHOWN:], f"all {len(lines)}: .venv/bin/python -m pytest -s tests/simulation --sim-seed {seed}"])
