"""Where servers' folders lie on this host: below its own folder, or in several disk directories of their own."""

from collections.abc import Sequence
from pathlib import Path

from nacre.base.errors import BuildFailed
from nacre.node.contract import BuildOrder


class Places:
    """directories: what an order may name; none: all servers lie below `own`."""

    def __init__(self, own: Path, directories: Sequence[str]):
        self._places = {path: Path(path) / "nacre-servers" for path in directories} or {"": own / "servers"}
        #: The folders of servers' folders, as domains name them.
        self.all = frozenset(str(place) for place in self._places.values())

    def make(self) -> None:
        """Folders that QEMU's own account can pass through. Raises BuildFailed."""
        for place in self._places.values():
            try:
                place.mkdir(parents=True, exist_ok=True, mode=0o711)
                place.chmod(0o711)
            except OSError as error:
                raise BuildFailed(f"node.disks: {place.parent} cannot be used: {error.strerror}") from error

    def of(self, order: BuildOrder) -> Path:
        """The folder of a server, there or not. Raises BuildFailed: this host has no such directory."""
        try:
            return self._places[order.selected_dir] / order.server_id
        except KeyError:
            raise BuildFailed(f"this host has no disk directory {order.selected_dir or 'of its own'}") from None

    def find(self, server_id: str) -> Path | None:
        """The folder of a server that is here."""
        return next((f for place in self._places.values() if (f := place / server_id).is_dir()), None)

    def notes(self, name: str) -> list[Path]:
        """The files of this name in all servers' folders."""
        return [file for place in self._places.values() for file in place.glob(f"*/{name}")]
