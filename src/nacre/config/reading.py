"""Reading the options: defaults, then the TOML file, then NACRE_* variables, then the command line."""

import os
import pwd
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from nacre.base.errors import NacreError
from nacre.config.sections import Section, Settings

#: The file in the data folder that holds the database's URL.
DATABASE_FILE = "database-url"
#: The file in the data folder that holds what its cloud was started with last, of what `nacre up` may be told.
KEPT_FILE = "kept.json"
#: Where earlier releases kept that: it counts until a cloud is started by this one.
KEPT_BEFORE = "logs/up.json"
#: Where the folders of clouds lie that are started by `sudo`, by the user's name: only root can put anything else in
#: their place, which is not so in a home.
CLOUDS = Path("/var/lib/nacre/clouds")


class External(msgspec.Struct, frozen=True, kw_only=True):
    """The public network's way out, as `nacre up --external` was told last (kind "": nothing). cidr: its range, also
    of one that was, as the cloud's rows are made for it."""

    kind: Literal["", "none", "nat", "interface"] = ""
    cidr: str = ""
    interface: str = ""

    @property
    def leads(self) -> bool:
        """Whether there is one."""
        return self.kind in ("nat", "interface")


class SettingsError(NacreError):
    """An option that is wrong: the message names it, and what would be right."""


def owner() -> "pwd.struct_passwd | None":
    """The user behind `sudo`, whose cloud it is; None without sudo."""
    name = os.environ.get("SUDO_USER") if os.geteuid() == 0 else None
    try:
        return pwd.getpwnam(name) if name and name != "root" else None
    except KeyError:
        return None


def data_folder(given: Path | None = None) -> Path:
    """Where a cloud keeps everything: `given`, else NACRE_DATA_DIR, else ~/.nacre; for a cloud that is new under sudo,
    and from then on, the user's in CLOUDS."""
    if given is None and (named := os.environ.get("NACRE_DATA_DIR")):
        given = Path(named)
    return (given or _usual(owner())).expanduser().absolute()


def _usual(sudo: "pwd.struct_passwd | None") -> Path:
    own = (Path(sudo.pw_dir) if sudo else Path.home()) / ".nacre"
    if sudo is None and os.geteuid() == 0:
        return own
    try:
        roots = CLOUDS / (sudo or pwd.getpwuid(os.geteuid())).pw_name
    except KeyError:
        return own
    elsewhere = not os.path.lexists(own) or (own.is_symlink() and Path(os.readlink(own)) == roots)
    return roots if elsewhere and (sudo or roots.is_dir()) else own


def load(data: Path | None = None, *, environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """The settings of a cloud. given: what the command line says (None: nothing). Raises SettingsError."""
    environ = os.environ if environ is None else environ
    folder = data_folder(data)
    tree = _file(Path(environ.get("NACRE_CONFIG") or folder / "nacre.toml"), must="NACRE_CONFIG" in environ)
    _merge_environment(tree, environ)
    if not tree.get("database_url"):
        tree["database_url"] = _text(folder / DATABASE_FILE).strip()
    for name, value in kept(folder).items():
        tree.setdefault(name, value)
    tree |= {k: v for k, v in given.items() if v is not None}
    tree["data_dir"] = str(folder)
    try:
        return msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error))) from None


def kept(folder: Path) -> dict[str, Any]:
    """What the folder's cloud was started with last: its port and its hypervisor; nothing of one that is new."""
    return _kept(folder)[0]


def kept_external(folder: Path) -> External:
    """And the public network's way out."""
    return _kept(folder)[1]


def _kept(folder: Path) -> tuple[dict[str, Any], External]:
    file, before = folder / KEPT_FILE, folder / KEPT_BEFORE
    if not os.path.lexists(file) and os.path.isfile(before):  # no pipe, at which root would wait
        file = before
    try:
        found = msgspec.json.decode(_text(file) or "{}", type=dict[str, Any])
        told: dict[str, Any] = {name: found[name] for name in ("port", "hypervisor") if name in found}
        msgspec.convert(told, Settings)
        return told, msgspec.convert(found.get("external", {}), External)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not as `nacre up` writes it ({error}): remove it, and say --port, "
                            "--hypervisor and --external once more to `nacre up`.") from None


def _file(path: Path, *, must: bool) -> dict[str, Any]:
    if must and not path.exists():
        raise SettingsError(f"NACRE_CONFIG names {path}, which is not there.")
    try:
        return tomllib.loads(_text(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None


def _text(path: Path) -> str:
    """What a file holds; nothing if it is not there."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
    except PermissionError:
        raise SettingsError(f"{path} may not be read: check its owner and mode.") from None


#: Variables that are not options.
_OTHERS = frozenset({"NACRE_CONFIG", "NACRE_DATA_DIR", "NACRE_FAKE_CRASH_FILE", "NACRE_SUPERVISED"})


def _merge_environment(tree: dict[str, Any], environ: Mapping[str, str]) -> None:
    known = options()
    for variable, text in environ.items():
        if not variable.startswith("NACRE_") or variable in _OTHERS:
            continue
        if variable not in known:
            raise SettingsError(f"{variable} is no option of Nacre: unset it. Known are {_near(variable, known)}.")
        section, name, kind = known[variable]
        into = tree.setdefault(section, {}) if section else tree
        into[name] = _parse(variable, text, kind)


def options() -> dict[str, tuple[str, str, Any]]:
    """Every option by its variable: (section or "", name, type)."""
    found = {}
    hints = typing.get_type_hints(Settings, include_extras=True)
    for name, kind in hints.items():
        if isinstance(kind, type) and issubclass(kind, Section):
            for inner, inner_kind in typing.get_type_hints(kind, include_extras=True).items():
                found[f"NACRE_{name}_{inner}".upper()] = (name, inner, inner_kind)
        elif name != "data_dir":
            found[f"NACRE_{name}".upper()] = ("", name, kind)
    return found


def _parse(variable: str, text: str, kind: Any) -> Any:
    origin = typing.get_origin(kind)
    value: Any = text
    if origin is tuple:
        value = [part.strip() for part in text.split(",") if part.strip()]
    elif origin in (dict, types.GenericAlias):
        pairs = [part.partition(":") for part in text.split(",") if part.strip()]
        value = {key.strip(): rest.strip() for key, _, rest in pairs}
        if twice := [key for key in value if sum(part[0].strip() == key for part in pairs) > 1]:
            raise SettingsError(f"{variable}={text!r}: {twice[0]!r} is there twice. Correct or unset it.")
    try:
        return msgspec.to_builtins(msgspec.convert(value, kind, strict=False))
    except msgspec.ValidationError as error:
        raise SettingsError(f"{variable}={text!r}: {error}. Correct or unset it.") from None


def _near(variable: str, known: Mapping[str, Any]) -> str:
    import difflib
    return ", ".join(difflib.get_close_matches(variable, known, n=3, cutoff=0.3)) or "those of docs/operations.md"


def _explain(error: str) -> str:
    """msgspec's words, with the option in front: `scheduler.period: Expected float > 0.0`."""
    text, _, path = error.partition(" - at `$")
    where = path.rstrip("`").lstrip(".")
    return f"{where or 'settings'}: {text}. Correct it in nacre.toml, or remove it to have the default."
