"""A real S3 server for tests: moto's, in a virtual environment of its own (locks/s3-server.txt)."""

import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from nacre.cli.supervisor import free_port

PYTHON = Path(__file__).parents[1] / ".venv-s3" / "bin" / "python"
KEYS = {"access_key": "access", "secret_key": "secret", "region": "us-east-1"}


@contextmanager
def s3_server(port: int = 0) -> Iterator[str]:
    """Runs until the block ends, in memory; its URL."""
    if not PYTHON.exists():
        pytest.skip("no S3 server: install locks/s3-server.txt into .venv-s3")
    url = f"http://127.0.0.1:{port or (port := free_port())}"
    with tempfile.TemporaryFile() as said:
        server = subprocess.Popen([str(PYTHON), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
                                  stdout=said, stderr=said)
        try:
            _wait(url, server)
            yield url
        finally:
            server.terminate()
            server.wait()


def bucket(url: str) -> dict[str, str]:
    """A new bucket there, as the option images.s3 names it."""
    from nacre.image.data.s3 import S3Store

    options = {"endpoint": url, "bucket": f"b-{uuid.uuid4().hex[:12]}", "prefix": "nacre/", **KEYS}
    S3Store(options).client.create_bucket(Bucket=options["bucket"])
    return options


def _wait(url: str, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        try:
            if httpx.get(f"{url}/moto-api/", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start (exit code {server.poll()})")
