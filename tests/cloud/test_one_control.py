"""One control process runs in a data folder, whoever starts it: two would be one member of the cloud."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nacre.cli.processes import folder
from nacre.cli.processes.lock import STARTS, WORKS, who
from nacre.cli.supervisor import free_port
from nacre.cli.up import supervisor_pid
from tests.cloud.fleet_lab import until
from tests.cloud.process_lab import nacre

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    nacre(tmp_path / "data", "down")


def up(data: Path) -> subprocess.CompletedProcess[str]:
    return nacre(data, "up", "-d", "--hypervisor", "fake", "--port", str(free_port()))


def refused(done: subprocess.CompletedProcess[str], pid: int | None, cure: str) -> bool:
    """With one line that names the process and what to do."""
    assert pid is not None and done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    return f"(process {pid})" in line and cure in line


def test_up_beside_a_control_in_the_foreground_is_refused_and_the_other_way_round(data: Path) -> None:
    with subprocess.Popen([sys.executable, "-m", "nacre.cli.main", "control", "--data", str(data)], env={
            **os.environ, "NACRE_HYPERVISOR": "fake", "NACRE_PORT": str(free_port())}) as control:
        try:
            until(lambda: who(data, WORKS) == control.pid, 60, "it runs")
            for second in (up(data), nacre(data, "control"), nacre(data, "control", "-d")):
                assert refused(second, control.pid, f"`kill {control.pid}`")
            assert control.poll() is None and supervisor_pid(data) is None
        finally:
            control.terminate()
    assert who(data, STARTS) is who(data, WORKS) is None

    assert (started := up(data)).returncode == 0, started.stderr
    before = supervisor_pid(data)
    assert refused(nacre(data, "control"), before, "`nacre down`") and supervisor_pid(data) == before
    assert before is not None and "was up already" in up(data).stderr


def test_a_control_whose_supervisor_was_killed_has_the_folder_until_the_next_up(data: Path) -> None:
    assert (started := up(data)).returncode == 0, started.stderr
    supervisor, control = supervisor_pid(data), who(data, WORKS)
    assert supervisor is not None and control not in (None, supervisor)
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: who(data, STARTS) is None, 30, "it is gone")
    assert refused(nacre(data, "control"), control, f"`kill {control}`")
    assert (again := up(data)).returncode == 0, again.stderr
    assert who(data, WORKS) not in (None, control)


def test_who_has_to_wait_for_one_place_keeps_the_other(tmp_path: Path) -> None:
    """A lock of this kind ends when its process closes the file, however often it has it open."""
    folder.prepare(tmp_path, None)
    holds = "import sys, time; from pathlib import Path; from nacre.cli.processes import lock; lock.PATIENCE = 60\n" \
            "with lock.control_of(Path(sys.argv[1]), None, *map(int, sys.argv[3:])): time.sleep(float(sys.argv[2]))"
    command = [sys.executable, "-c", holds, str(tmp_path)]
    with subprocess.Popen([*command, "60", str(WORKS)]) as first:
        until(lambda: who(tmp_path, WORKS) == first.pid, 30, "it works")
        with subprocess.Popen([*command, "60", str(STARTS), str(WORKS)]) as second:
            until(lambda: who(tmp_path, STARTS) == second.pid, 30, "it starts")
            first.kill()
            until(lambda: who(tmp_path, WORKS) == second.pid, 30, "it works")
            held = who(tmp_path, STARTS)
            second.kill()
    assert held == second.pid
