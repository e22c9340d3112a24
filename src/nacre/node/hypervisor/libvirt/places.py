"""Where servers' folders lie on this host: below its own folder, or in several disk directories of their own."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from nacre.base.durable.files import write_whole
from nacre.base.errors import BuildFailed
from nacre.node.contract import BuildOrder
from nacre.node.hypervisor.libvirt.service import qemu_account
from nacre.node.names import FORMER_BRIDGE, Names

log = structlog.get_logger()

#: The folder of servers' folders in a directory, and the file in it that names whose it is.
NAME, MARK = "nacre-servers", ".cloud"


def host_names(cloud: str, own: Path, directories: Sequence[str]) -> Names:
    """What the cloud's things are called on the host whose servers lie there (as in `Places`)."""
    return Names(cloud, former=Places(own, directories).former_bridge)


class Places:
    """directories: what an order may name; none: all servers lie below `own`. Servers that were built when it was
    otherwise are found where they are: `own`/directories remembers."""

    def __init__(self, own: Path, directories: Sequence[str]):
        self._own = own
        self._chosen = {path: Path(path) / NAME for path in directories} or {"": own / "servers"}
        self._note = own / "directories"
        self._known = msgspec.json.decode(self._note.read_bytes(), type=list[str]) if self._note.exists() else []
        self._earlier = {path: Path(path) / NAME for path in self._known if path not in self._chosen}
        self._everywhere = tuple(dict.fromkeys((*self._chosen.values(), own / "servers", *self._earlier.values())))

    def make(self, cloud: str) -> None:
        """Folders that QEMU's own account can pass through, those outside `own` marked with the cloud's id. Raises
        BuildFailed."""
        for path, place in self._chosen.items():
            try:
                place.mkdir(parents=True, exist_ok=True, mode=0o711)
                place.chmod(0o711)
                if path:
                    self._take(place, cloud)
                    _passable(place)
            except OSError as error:
                raise BuildFailed(f"node.disks: {place.parent} cannot be used: {error.strerror}") from error
        self._remember()
        if len({place.stat().st_dev for place in self._chosen.values()}) < len(self._chosen):
            log.warning("disk directories share a file system, whose size counts for each", disks=list(self._chosen))

    @property
    def all(self) -> frozenset[str]:
        """The folders of servers' folders, as domains name them."""
        return frozenset(map(str, self._everywhere))

    def of(self, order: BuildOrder) -> Path:
        """The folder of a server, there or not. Raises BuildFailed: this host has no such directory."""
        try:
            return self._chosen[order.selected_dir] / order.server_id
        except KeyError:
            raise BuildFailed(f"this host has no disk directory {order.selected_dir or 'of its own'}") from None

    def find(self, server_id: str) -> Path | None:
        """The folder of a server that is here. Raises OSError: it may be on a disk that cannot be read."""
        broken = None
        for place in self._everywhere:
            try:
                if (folder := place / server_id).is_dir():
                    return folder
            except OSError as error:
                broken = error
        if broken is not None:
            raise broken
        return None

    def notes(self, name: str) -> list[Path]:
        """The files of this name in all servers' folders."""
        return [file for place in self._everywhere for file in place.glob(f"*/{name}")]

    @property
    def former_bridge(self) -> bool:
        """Whether a server that is here was plugged into the bridge of releases before names carried the cloud's id."""
        for place in self._everywhere:
            with contextlib.suppress(OSError):  # a disk that cannot be read: its guests do not run
                if any(f'bridge="{FORMER_BRIDGE}"' in file.read_text() for file in place.glob("*/domain.xml")):
                    return True
        return False

    def _take(self, place: Path, cloud: str) -> None:
        """A directory is one cloud's: another's would be counted twice, and its servers' folders be taken for ours. An
        earlier release marked it with our folder."""
        mark, new = place / MARK, place / f"{MARK}.new"
        new.write_text(cloud)
        try:
            os.link(new, mark)  # whole or not at all, and never over another's
        except FileExistsError:
            if (owner := mark.read_text()) == str(self._own):
                os.replace(new, mark)
            elif owner != cloud:
                raise BuildFailed(f"node.disks: {place.parent} is used by the cloud {owner}; if that is gone, or "
                                  f"was moved here, remove {mark}") from None
        finally:
            new.unlink(missing_ok=True)

    def _remember(self) -> None:
        """Every directory that has been configured, and still is or has servers."""
        kept = [*filter(None, self._chosen), *(path for path, place in self._earlier.items() if _inhabited(place))]
        if kept != self._known:
            write_whole(self._note, msgspec.json.encode(kept))


def _inhabited(place: Path) -> bool:
    """A disk that cannot be read now may have servers, too."""
    try:
        return any(entry.is_dir() for entry in os.scandir(place))
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _passable(place: Path) -> None:
    """Raises BuildFailed where QEMU's account cannot get in: guests would fail one by one."""
    name, uid, _ = qemu_account()
    if closed := [p for p in place.parents if name is not None and p.stat().st_uid != uid and not p.stat().st_mode & 1]:
        raise BuildFailed(f"node.disks: guests' account {name} cannot pass through {closed[-1]}: chmod o+x, or another "
                          "directory")
