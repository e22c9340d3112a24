"""A contract on the wire: each verb's arguments become one struct, everything is msgpack with types, never pickle.

Arguments travel by name: a field that one side does not know is ignored, one that is missing takes its default. That
is what lets a host be one release behind.
"""

import inspect
import typing
from functools import cache, lru_cache
from typing import Annotated, Any, TypeVar

import msgspec

from nacre.base import bounds
from nacre.base.errors import BadRequest, BrokenAnswer, NacreError
from nacre.base.rpc.salvage import salvage

M = TypeVar("M")
#: A failure says no more than this (characters): it is shown to people.
MOST_SAID = 4096
Id = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class Request(msgspec.Struct, frozen=True, array_like=True):
    """What a caller sends. id: 16 random bytes, unique to the message."""

    id: Id
    namespace: bounds.Short
    version: bounds.Version
    verb: bounds.Short
    args: msgspec.Raw


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """An error: the names of its class and its bases, nearest first, and what it says."""

    kinds: Annotated[tuple[bounds.Name, ...], msgspec.Meta(max_length=50)]
    message: str
    type: bounds.Name
    field: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    details: str = ""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What comes back."""

    id: Id
    error: Failure | None = None
    result: msgspec.Raw = msgspec.Raw(b"\xc0")


_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)
_answers = msgspec.msgpack.Decoder(Answer)


def encode(value: Any) -> bytes:
    """Any value made of structs and plain types."""
    return _encoder.encode(value)


def decode_request(data: bytes) -> Request:
    """Raises BadRequest for anything that is not a request."""
    try:
        return _requests.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"Not an RPC request: {error}") from None


def decode_answer(data: bytes) -> Answer:
    """Raises BadRequest for anything that is not an answer."""
    try:
        return _answers.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"Not an RPC answer: {error}") from None


def latest(method: M) -> M:
    """A verb by which a host says how things are: of those that came while one is at work only the last counts."""
    method.latest = True  # type: ignore[attr-defined]
    return method


class Verb:
    """One method of a contract: its arguments as a struct, and how to read its result. latest: as `latest` says."""

    def __init__(self, name: str, method: Any):
        hints = typing.get_type_hints(method, include_extras=True)
        parameters = list(inspect.signature(method).parameters.values())[1:]
        fields: list[Any] = [(p.name, hints[p.name]) if p.default is p.empty else (p.name, hints[p.name], p.default)
                             for p in parameters]
        self.name, self.latest = name, bool(getattr(method, "latest", False))
        self.fields = tuple(p.name for p in parameters)
        self.args = msgspec.defstruct(f"{name}_args", fields, frozen=True)
        self._read_args = msgspec.msgpack.Decoder(self.args)
        self._read_result = msgspec.msgpack.Decoder(hints.get("return", Any))

    def pack(self, *args: Any, **named: Any) -> bytes:
        """The arguments of one call. Raises TypeError as a method would."""
        return _encoder.encode(self.args(*args, **named))

    def unpack(self, data: msgspec.Raw) -> dict[str, Any]:
        """The arguments by name; where only the last counts, as far as they can be read. Raises BadRequest naming what
        does not fit."""
        try:
            got = self._read_args.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            got = self._salvage(data, error)
        return {name: getattr(got, name) for name in self.fields}

    def _salvage(self, data: msgspec.Raw, error: Exception) -> Any:
        try:
            if self.latest:
                return salvage(self.args, data)
        except ValueError as worse:
            error = worse
        raise BadRequest(f"{self.name}: {error}") from None

    def result(self, data: msgspec.Raw) -> Any:
        """The verb's result. Raises BrokenAnswer if the other side broke the contract."""
        try:
            return self._read_result.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BrokenAnswer(details=f"The answer to {self.name} breaks the contract: {error}") from None


@cache
def verbs(contract: type) -> dict[str, Verb]:
    """Every verb of a contract by its name."""
    return {name: Verb(name, method) for name, method in vars(contract).items()
            if not name.startswith("_") and inspect.iscoroutinefunction(method)}


def failure(error: NacreError) -> Failure:
    """The error as it travels."""
    kinds = tuple(c.__name__ for c in type(error).__mro__ if issubclass(c, NacreError))
    return Failure(kinds, error.message, error.type, error.field, error.details)


def error_from(got: Failure) -> NacreError:
    """The error as its caller sees it: of its own class if this process knows it, else of its nearest known base."""
    known = _kinds(NacreError)
    kind = next((known[name] for name in got.kinds if name in known), NacreError)
    error = kind.__new__(kind)
    NacreError.__init__(error, got.message[:MOST_SAID], field=got.field, type=got.type,
                        details=got.details[:MOST_SAID])
    return error


def _kinds(kind: type[NacreError]) -> dict[str, type[NacreError]]:
    found = {kind.__name__: kind}
    for child in kind.__subclasses__():
        found |= _kinds(child)
    return found


@lru_cache(64)
def compatible(asked: str, served: str) -> bool:
    """The version rule: the same major, and a minor that the server already has."""
    try:
        (major, minor), (own_major, own_minor) = (map(int, v.split(".")) for v in (asked, served))
    except ValueError:
        return False
    return major == own_major and minor <= own_minor
