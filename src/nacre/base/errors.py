"""Every error a caller can see. The class says what kind it is; only `base/web.py` knows the HTTP status of a kind.

A message is for the person who asked, a member of any project: it names the field and the limit, or what to do next,
and never a host, a path, an exception or an address. What only operators may read goes into `details`; as text
(`str`) an error is both. `type` is the OpenStack name of the error where an API shows one (Neutron's `PortNotFound`);
it defaults to the class's name.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple


class Interrupted(Exception):
    """Nothing was decided, and nobody is to blame: whoever works stops where it is and takes nothing back, whoever
    takes the work up again finds what was done. Not a NacreError, so that no handler of refusals takes it for one."""

    def __init__(self, message: str, *, details: str = ""):
        self.message, self.details = message, details
        super().__init__(message)

    def __str__(self) -> str:
        return _both(self.message, self.details)


class Waiting(Interrupted):
    """As `Interrupted`, until something else has happened: it is taken up again after a rest."""


class NacreError(Exception):
    """Base of all that is decided. `field` names the offending input where there is one; details: for operators."""

    default: ClassVar[str] = "The request failed."

    def __init__(self, message: str | None = None, *, field: str | None = None, type: str | None = None,
                 details: str = ""):
        self.message = message or self.default
        self.field, self.details = field, details
        self.type = type or self.__class__.__name__
        super().__init__(self.message)

    def __str__(self) -> str:
        return _both(self.message, self.details)


class BadRequest(NacreError):
    """The input breaks a rule."""

    default = "The request is malformed."


class Unauthenticated(NacreError):
    """No token, or one that is not valid."""

    default = "The request you have made requires authentication."


class Forbidden(NacreError):
    """Known caller, not allowed."""

    default = "You are not authorized to perform the requested action."


class QuotaExceeded(NacreError):
    """A quota would be exceeded. Compute shows it as 403, network as 409, image as 413."""

    default = "Quota exceeded."


class NotFound(NacreError):
    """No such thing, or none that this caller may see."""

    default = "The resource could not be found."


class NoSuchRoute(NotFound):
    """No such URL or method in this API."""


class NotAllowed(NacreError):
    """The URL exists, the method does not."""

    default = "The method is not allowed for this resource."


class NotAcceptable(NacreError):
    """An API version that is not spoken here."""

    default = "The requested version is not supported."


class Conflict(NacreError):
    """The state of things forbids it (now)."""

    default = "The request conflicts with the resource's state."


class Gone(NacreError):
    """Was there once, is not any more."""

    default = "The resource is gone."


class PreconditionFailed(NacreError):
    """An If-Match style condition does not hold."""

    default = "The precondition does not hold."


class TooLarge(NacreError):
    """Over a size limit."""

    default = "The request is too large."


class TooMany(NacreError):
    """More requests at once than one project, or one address, may send."""

    default = "Too many requests at once. Try again."


class UnsupportedMedia(NacreError):
    """A content type or format that is not taken here."""

    default = "The content type is not supported."


class NotBuilt(NacreError):
    """Part of the API, not part of Nacre yet."""

    default = "Nacre does not do this yet."


class Unavailable(NacreError):
    """A party that is needed does not answer."""

    default = "A service that is needed for this is not available. Try again."


class BrokenAnswer(Unavailable):
    """A party answers, and what it says cannot be read: it breaks the contract, or is of a release that is too far
    away."""

    default = "An answer cannot be read."


class Barred(Unavailable):
    """A host takes no orders until it is known which state of its cloud is right: it decided nothing."""

    default = "The host takes no orders of this cloud."


class Refused(NacreError):
    """A host declines (claim, stale epoch, duplicate): nothing was changed there; means `next host`."""

    default = "The host refused."


class BuildFailed(NacreError):
    """A host tried and failed, and took back what it had done."""

    default = "The build failed on the host."


class NoValidHost(NacreError):
    """No host fits; the message counts the reasons. details: what only administrators may read, as hosts' names;
    reasons: how many hosts each kept out."""

    default = "No valid host was found."

    def __init__(self, message: str | None = None, *, details: str = "", reasons: Mapping[str, int] | None = None):
        super().__init__(message, details=details)
        self.reasons = reasons or {}


class Words(NamedTuple):
    """Why something failed: for the member who asked, and for operators."""

    message: str
    details: str = ""


#: What a host's error may say to members, by its type: else it says what its class says. A host's own words are for
#: operators, as they name paths and its software, and its root may be an enemy.
REASONS: Mapping[str, str] = {
    "ImageTooLarge": "The image's virtual size is larger than the flavor's disk.",
    "ImageRefused": "The image's data is not what it was declared to be, or not safe to use.",
    "ImageAway": "The image could not be fetched.",
    "BadExtraSpecs": "The flavor's extra specs ask for what the hosts cannot give.",
    "HostJournal": "The host cannot write to its disk.",
    "NoRoom": "The host has no room for it any more.",
}


#: Characters of a host's words that are kept.
MOST_TOLD = 2000


def words_of(error: BaseException) -> Words:
    """What an error says to whom. One that nobody decided says nothing to members."""
    if isinstance(error, NacreError | Interrupted):
        return Words(error.message, error.details)
    return Words("Something failed unexpectedly.", f"{type(error).__name__}: {error}")


def told_by(host: str, error: NacreError) -> NacreError:
    """The error that a host answered with, as it may be passed on: the host's words become details. One that no host
    has to raise is a failure of the host, and not of what was asked."""
    kind = type(error) if isinstance(error, Refused | BuildFailed | Unavailable | NotFound) else BuildFailed
    kept = error.type if error.type in REASONS else kind.__name__
    found = kind.__new__(kind)
    NacreError.__init__(found, REASONS.get(kept), type=kept, details=f"{host}: {str(error)[:MOST_TOLD]}")
    return found


def _both(message: str, details: str) -> str:
    return f"{message} ({details})" if details else message
