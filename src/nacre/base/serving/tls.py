"""The live TLS context of a server: which files it shows, made and renewed here or kept by an operator.

New files count for new connections, without a restart.
"""

import asyncio
import ssl
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

import structlog

from nacre.base.clock import Clock
from nacre.base.durable.files import write_whole
from nacre.base.errors import NacreError

log = structlog.get_logger()

#: How often the files are looked at, in seconds.
LOOK_SECONDS = 60.0
#: What OpenSSL says, and what it means.
_WORDS = {"KEY_VALUES_MISMATCH": "the key is not the certificate's",
          "PEM lib": "there is no certificate or no key in it"}


class TlsError(NacreError):
    """A certificate that cannot be used; the message says why."""


#: The files to show now: the certificate with what leads to its authority, and its key (None: in the same file). Called
#: off the loop; makes or renews what it must.
Source = Callable[[], tuple[Path, Path | None]]


class ServerTls:
    """context: TLS 1.2 and later. Raises TlsError for files that cannot be used."""

    def __init__(self, source: Source):
        self._source, self._loaded = source, tuple[object, ...]()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self.look()

    def look(self) -> bool:
        """Load the files if they are not those that were loaded. Raises TlsError; then what was loaded stays."""
        certificate, key = self._source()
        try:
            stamp = tuple((p, s.st_mtime_ns, s.st_ino, s.st_size) for p in (certificate, key) if p for s in (p.stat(),))
            if stamp == self._loaded:
                return False
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, _no_password)  # a trial
            self.context.load_cert_chain(certificate, key, _no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            for sign, words in _WORDS.items():
                why = words if sign in str(why) else why
            with_key = f" with the key {key}" if key else ""
            raise TlsError(f"The certificate {certificate}{with_key} cannot be used: {why}.") from None
        self._loaded = stamp
        return True

    async def keep(self, clock: Clock) -> None:
        """For ever: take up new files, and renew those that are ours."""
        while True:
            await clock.sleep(LOOK_SECONDS)
            try:
                if await asyncio.to_thread(self.look):
                    log.info("a new certificate is used")
            except NacreError as error:
                log.error("the certificate stays as it was", why=str(error))


def operators(certificate: Path, key: Path | None) -> Source:
    """Files that somebody else renews."""
    return lambda: (certificate, key)


def own(authority: bytes, file: Path, names: Callable[[], Collection[str]], now: Callable[[], datetime] = lambda: (
        datetime.now(UTC))) -> Source:
    """A certificate of our own authority, kept in `file` with its key. names: what it is for now."""
    from nacre.base.serving import certificates  # 20 ms, which a cloud on the loopback does not spend

    def source() -> tuple[Path, Path | None]:
        wanted, moment = names(), now()
        there = file.read_bytes() if file.exists() else b""
        if not certificates.is_good(there, authority, wanted, moment):
            try:
                made = certificates.issue(authority, wanted, moment)
            except ValueError as error:
                raise TlsError(f"No certificate can be made for {', '.join(sorted(wanted))}: {error}. Correct "
                               "tls.names, host or public_url.") from None
            write_whole(file, made)
        return file, None
    return source


def _no_password() -> str:
    raise ValueError("the key has a password: give one without")
