"""Certificates: an authority of the cloud's own, and those that it gives to servers. Pure: bytes in, bytes out."""

import ipaddress
from collections.abc import Collection
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: How long certificates are good. An authority is given to clients by hand, a server's is renewed by itself.
AUTHORITY_LIFE, SERVER_LIFE = timedelta(days=7300), timedelta(days=90)
#: Renewed when so much is left.
RENEW_BEFORE = timedelta(days=30)
#: Clocks of clients may be behind.
SKEW = timedelta(hours=1)

_USAGES = dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
                         "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)


def new_authority(now: datetime) -> bytes:
    """A new authority's certificate and private key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    name = _name(f"Nacre authority {serial:x}"[:40])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = _builder(name, now, AUTHORITY_LIFE).issuer_name(name).public_key(key.public_key()).serial_number(
        serial).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).add_extension(
        x509.KeyUsage(**{**_USAGES, "key_cert_sign": True, "crl_sign": True}), critical=True).add_extension(
        identifier, critical=False).sign(key, hashes.SHA256())
    return _pem(certificate, key)


def issue(authority: bytes, names: Collection[str], now: datetime) -> bytes:
    """A server's certificate and private key, in PEM. names: host names and addresses that it shall be good for."""
    signer = x509.load_pem_x509_certificate(authority)
    signing_key = serialization.load_pem_private_key(authority, None)
    assert isinstance(signing_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _builder(_name("Nacre"), now, SERVER_LIFE).issuer_name(signer.subject).public_key(
        key.public_key()).serial_number(x509.random_serial_number()).add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True).add_extension(
        x509.KeyUsage(**{**_USAGES, "digital_signature": True}), critical=True).add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False).add_extension(
        x509.SubjectAlternativeName([_general(n) for n in sorted(set(names))]), critical=False).add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False).sign(
        signing_key, hashes.SHA256())
    return _pem(certificate, key)


def public_part(authority: bytes) -> bytes:
    """The certificate alone, for clients."""
    return x509.load_pem_x509_certificate(authority).public_bytes(serialization.Encoding.PEM)


def is_good(certificate: bytes, authority: bytes, names: Collection[str], now: datetime) -> bool:
    """Whether a server's certificate is of this authority, for all these names and no others, and not about to end."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
        serialization.load_pem_private_key(certificate, None)
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
        held = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # whatever is wrong with the file: a new one is made
        return False
    return set(held) == {_general(n) for n in names} and now < found.not_valid_after_utc - RENEW_BEFORE


def _builder(subject: x509.Name, now: datetime, life: timedelta) -> x509.CertificateBuilder:
    return x509.CertificateBuilder().subject_name(subject).not_valid_before(now - SKEW).not_valid_after(now + life)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
