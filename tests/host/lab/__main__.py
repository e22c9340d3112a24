"""A lab by hand: up until Ctrl-C. `python -m tests.host.lab [HOSTS]`, as root, from the project's folder."""

import contextlib
import signal
import sys

from tests.host.lab import lab


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), lab(hosts=int(sys.argv[1]) if len(sys.argv) > 1 else 2) as cloud:
        print(f"export OS_CLIENT_CONFIG_FILE={cloud.data}/clouds.yaml   # clouds: demo, nacre")
        for host in cloud.hosts.values():
            print(f"{host.name}: {' '.join(host.entrance)} bash    # logs: {host.folder}/logs")
        print("Ctrl-C ends it.", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
