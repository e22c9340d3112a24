"""What can be read of a message that breaks its contract somewhere, where losing it whole is worse: a host that says
one thing that cannot be shall be heard all the same.

Only structs with a field `wrong` are read so: it names what was left out, by its place, and why. What is left out has
the value that counts when nothing is said, or none (0, ""); of rows those that can be read stay.
"""

from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

#: Characters of a reason.
WORDS = 200


def salvage(kind: type, data: msgspec.Raw) -> Any:
    """The struct, as far as it can be read. Raises ValueError for what cannot be read at all."""
    try:
        return _strict(kind, msgspec.msgpack.decode(data))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _strict(kind: Any, said: Any) -> Any:
    """But for structs in it that say what is wrong with them."""
    if not (isinstance(said, dict) and _is_struct(kind)):
        return msgspec.convert(said, kind)
    if "wrong" in kind.__struct_fields__:
        wrong = dict[str, str]()
        found = _lenient(kind, {name: value for name, value in said.items() if name != "wrong"}, "", wrong)
        return msgspec.structs.replace(found, wrong=wrong)
    hints = get_type_hints(kind, include_extras=True)
    return msgspec.convert(said | {
        name: _strict(hint, said[name]) for name, hint in hints.items() if name in said and _is_struct(hint)}, kind)


def _lenient(kind: Any, said: Any, place: str, wrong: dict[str, str]) -> Any:
    hints, values = get_type_hints(kind, include_extras=True), dict[str, Any]()
    for field in msgspec.structs.fields(kind):
        name, hint, given = field.name, hints[field.name], said.get(field.name) if isinstance(said, dict) else None
        if given is None and not field.required:
            continue
        try:
            values[name] = msgspec.convert(given, hint)
        except ValueError as error:  # msgspec's too
            if _is_struct(hint):
                values[name] = _lenient(hint, given, f"{place}{name}.", wrong)
                continue
            wrong[place + name] = str(error)[:WORDS]
            if (row := _row(hint)) is not None:
                values[name] = tuple(_rows(hint, row, given))
            elif field.required:
                kind_of = _plain(hint)
                values[name] = None if type(None) in get_args(kind_of) else kind_of()
    return _made(kind, values, place, wrong)


def _made(kind: Any, values: dict[str, Any], place: str, wrong: dict[str, str]) -> Any:
    """A struct may itself refuse what its fields say: without the first field that it can be made without."""
    try:
        return kind(**values)
    except ValueError as error:
        for name in [field.name for field in msgspec.structs.fields(kind) if not field.required]:
            try:
                found = kind(**{other: value for other, value in values.items() if other != name})
            except ValueError:
                continue
            wrong[place + name] = str(error)[:WORDS]
            return found
        raise


def _rows(hint: Any, row: Any, given: Any) -> list[Any]:
    """Those that can be read, of as many as there may be."""
    most, found = next((m.max_length for m in get_args(hint)[1:] if isinstance(m, msgspec.Meta)), None), []
    for each in given[:most] if isinstance(given, list) else ():
        try:
            found.append(msgspec.convert(each, row))
        except ValueError:
            continue
    return found


def _row(hint: Any) -> Any:
    """What a tuple of any length is made of. None: it is no such tuple."""
    kind = _plain(hint)
    args = get_args(kind)
    return args[0] if get_origin(kind) is tuple and args[1:] == (Ellipsis,) else None


def _plain(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)
