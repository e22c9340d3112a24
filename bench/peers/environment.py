"""A virtual environment with Nova in it, for nova_scheduler.py. Prints the path of its python.

    python bench/peers/environment.py [DIR]       default: nacre-bench/nova below the user's cache folder

Made once: a folder that has this version is answered as it is, a half-made one is finished.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

VERSION = "32.2.1"
ASK = "import importlib.metadata as have; print(have.version('nova'))"


def default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nacre-bench" / "nova"


def ready(python: Path) -> bool:
    if not python.exists():
        return False
    answer = subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=False)
    return answer.stdout.strip() == VERSION


def python_with_nova(folder: Path | None = None) -> Path:
    """The python of the environment in `folder`, which is made when it is not there: about a minute, 400 MB."""
    folder = (folder or default_folder()).absolute()
    python = folder / "bin" / "python"
    if not ready(python):
        # Their own output goes to stderr: stdout is for the answer.
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, stdout=sys.stderr)
        subprocess.run([python, "-m", "pip", "install", f"nova=={VERSION}"], check=True, stdout=sys.stderr)
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes Nova's environment, once; prints the path of its python.")
    parser.add_argument("folder", nargs="?", type=Path)
    print(python_with_nova(parser.parse_args().folder))


if __name__ == "__main__":
    main()
