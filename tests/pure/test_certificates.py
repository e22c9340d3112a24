"""The cloud's own certificates, shaken hands with in memory: who is trusted for what, until when; live renewal."""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nacre.base.durable.files import write_whole
from nacre.base.serving import certificates
from nacre.base.serving.tls import ServerTls, TlsError, operators, own

NOW = datetime.now(UTC)
NAMES = {"cloud.example.org", "127.0.0.1", "2001:db8::1", "localhost"}


@pytest.fixture(scope="module")
def authority() -> bytes:
    return certificates.new_authority(NOW)


def handshake(server: ssl.SSLContext, trusted: bytes, name: str,
              change: Callable[[ssl.SSLContext], None] = lambda _: None) -> x509.Certificate:
    """A client that is strict: the certificate that it was shown. Raises ssl.SSLError."""
    client = ssl.create_default_context(cadata=trusted.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    change(client)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(down, up, server_hostname=name)
    there = server.wrap_bio(up, down, server_side=True)
    for _ in range(10):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        if here.version() and here.getpeercert(True):
            return x509.load_der_x509_certificate(here.getpeercert(True) or b"")
    raise AssertionError("no end of it")


def test_every_name_is_good_and_no_other(authority: bytes, tmp_path: Path) -> None:
    tls = ServerTls(own(authority, tmp_path / "server.pem", lambda: NAMES))
    trusted = certificates.public_part(authority)
    for name in NAMES:
        handshake(tls.context, trusted, name)
    for name in ("other.example.org", "127.0.0.2", "2001:db8::2"):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(tls.context, trusted, name)
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        handshake(tls.context, certificates.public_part(certificates.new_authority(NOW)), "localhost")


def test_what_is_secret_stays_so(authority: bytes, tmp_path: Path) -> None:
    ServerTls(own(authority, tmp_path / "server.pem", lambda: NAMES))
    assert (tmp_path / "server.pem").stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" in authority and b"PRIVATE" not in certificates.public_part(authority)
    assert authority not in (tmp_path / "server.pem").read_bytes()


def test_old_versions_are_refused(authority: bytes, tmp_path: Path) -> None:
    tls = ServerTls(own(authority, tmp_path / "server.pem", lambda: NAMES))

    def old(client: ssl.SSLContext) -> None:
        client.set_ciphers("ALL:@SECLEVEL=0")
        client.minimum_version, client.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError), pytest.warns(DeprecationWarning):
        handshake(tls.context, certificates.public_part(authority), "localhost", old)


@pytest.mark.parametrize(("days", "names", "good"), [
    (0, NAMES, True), (59, NAMES, True), (61, NAMES, False), (0, NAMES | {"more"}, False),
    (0, NAMES - {"localhost"}, False)])
def test_when_a_new_certificate_is_due(authority: bytes, days: int, names: set[str], good: bool) -> None:
    made = certificates.issue(authority, NAMES, NOW)
    assert certificates.is_good(made, authority, names, NOW + timedelta(days=days)) is good


def test_a_certificate_of_another_authority_or_a_torn_file_is_replaced(authority: bytes) -> None:
    foreign = certificates.issue(certificates.new_authority(NOW), NAMES, NOW)
    for held in (foreign, b"", b"junk", foreign[:300], certificates.public_part(authority)):
        assert not certificates.is_good(held, authority, NAMES, NOW)


def test_it_is_renewed_while_connections_are_taken(authority: bytes, tmp_path: Path) -> None:
    names, now = set(NAMES), [NOW - timedelta(days=61)]
    tls = ServerTls(own(authority, tmp_path / "server.pem", lambda: names, lambda: now[0]))
    trusted = certificates.public_part(authority)
    first = handshake(tls.context, trusted, "localhost")
    assert not tls.look() and handshake(tls.context, trusted, "localhost") == first
    now[0] += timedelta(days=61)
    assert tls.look()
    second = handshake(tls.context, trusted, "localhost")
    assert second.not_valid_after_utc - first.not_valid_after_utc == timedelta(days=61)
    names.add("late.example.org")  # an address that the machine was given
    assert tls.look() and handshake(tls.context, trusted, "late.example.org")


def test_an_operators_files(authority: bytes, tmp_path: Path) -> None:
    pem = certificates.issue(authority, {"a.example.org"}, NOW).decode()
    at = pem.index("-----BEGIN PRIVATE KEY")
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    write_whole(certificate, pem[:at])
    write_whole(key, pem[at:])
    tls = ServerTls(operators(certificate, key))
    trusted = certificates.public_part(authority)
    assert handshake(tls.context, trusted, "a.example.org")
    write_whole(certificate, certificates.issue(authority, {"b.example.org"}, NOW).decode())
    with pytest.raises(TlsError, match=r"c\.pem with the key .*k\.pem cannot be used: the key is not the cert"):
        tls.look()  # half of a renewal
    assert handshake(tls.context, trusted, "a.example.org"), "what was loaded stays"
    write_whole(key, certificate.read_text())
    assert tls.look() and handshake(tls.context, trusted, "b.example.org")


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    file = tmp_path / "c.pem"
    with pytest.raises(TlsError, match=r"c\.pem cannot be used: No such file"):
        ServerTls(operators(file, None))
    file.write_text("junk")
    with pytest.raises(TlsError, match=r"c\.pem cannot be used: there is no certificate or no key in it"):
        ServerTls(operators(file, None))
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x"))
    file.write_text(certificates.public_part(certificates.new_authority(NOW)).decode())
    (tmp_path / "k.pem").write_bytes(locked)
    with pytest.raises(TlsError, match="the key has a password"):
        ServerTls(operators(file, tmp_path / "k.pem"))


def test_names_that_no_certificate_can_have(authority: bytes, tmp_path: Path) -> None:
    with pytest.raises(TlsError, match=r"tls\.names"):
        ServerTls(own(authority, tmp_path / "server.pem", lambda: {"häuser"}))
