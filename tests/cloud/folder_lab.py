"""Data folders as earlier releases and other accounts leave them, for tests."""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USER = pwd.getpwnam("games")
OTHER = pwd.getpwnam("daemon")
#: Bits of a file's mode by which others may write to it.
OTHERS = 0o022
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
#: Programs for `working`.
IDLE = "print(flush=True); input()"
HOLDS = """
import sys
from pathlib import Path
from nacre.cli.processes.lock import held
with held(Path(sys.argv[1])):
    print("there", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def working(program: str, *words: str, cwd: Path | None = None, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A process that says when it is there."""
    with subprocess.Popen([sys.executable, "-c", program, *words], cwd=cwd, text=True, stdout=subprocess.PIPE,
                          stdin=subprocess.PIPE,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environ}) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def owners(data: Path) -> dict[str, int]:
    return {p.name: p.lstat().st_uid for p in (data, *data.iterdir())}


def former(data: Path) -> None:
    """As an earlier release left it: the folder is the user's, control's files lie in it."""
    data.mkdir()
    for name in ("run", "logs", "node", "control"):
        (data / name).mkdir()
    for name in ("nacre.db", "nacre.db-wal", "clouds.yaml", "nacre.toml"):
        (data / name).write_text(name)
        os.chown(data / name, USER.pw_uid, USER.pw_gid)
    for path in (data, data / "control"):
        os.chown(path, USER.pw_uid, USER.pw_gid)


def python_of_all() -> tuple[str, dict[str, str]]:
    """One that the account can run, and its environment under sudo: where this one lies in root's home, the system's
    does."""
    python = sys.executable
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "SUDO_USER": USER.pw_name}
    if not runs(python, environ):
        python = "/usr/bin/python3"
        environ["PYTHONPATH"] += f":{next(p for p in sys.path if p.endswith('site-packages'))}"
        if not runs(python, environ):
            pytest.skip("the account games can run no Python that has the libraries")
    return python, environ


def runs(python: str, environ: dict[str, str]) -> bool:
    """Whether the account gets as far as Nacre's libraries with it."""
    try:
        return not subprocess.run([python, "-c", "import msgspec, zmq, uvloop"], user=USER.pw_uid, group=USER.pw_gid,
                                  extra_groups=[], env=environ, capture_output=True, timeout=30, check=False).returncode
    except OSError:
        return False


@contextlib.contextmanager
def reached_by_all() -> Iterator[Path]:
    """A folder that other accounts reach."""
    path = Path(tempfile.mkdtemp(prefix="nacre-folders-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
