"""Key pairs: public keys that servers are given. A private key is shown once and never kept."""

import asyncio
import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nacre.base.clock import Clock
from nacre.base.db import Database
from nacre.base.errors import BadRequest, Conflict, NotFound, QuotaExceeded
from nacre.compute.catalog.tables import keypairs

#: The longest public key taken, in characters.
MAX_KEY = 16384


class KeyPair(msgspec.Struct, frozen=True, kw_only=True):
    """A user's key by name. type: ssh or x509."""

    user_id: str
    name: str
    type: str
    fingerprint: str
    public_key: str
    created_at: datetime
    id: int = 0


def fingerprint(public_key: str, kind: str) -> str:
    """MD5 of an SSH key's blob, SHA-1 of a certificate, as `aa:bb:...`: names of a key, not protection. Raises
    BadRequest for what is no key."""
    try:
        if len(public_key) > MAX_KEY:
            raise ValueError
        if kind == "x509":
            digest = x509.load_pem_x509_certificate(public_key.encode()).fingerprint(hashes.SHA1())  # noqa: S303
            text = digest.hex()
        else:
            key = serialization.load_ssh_public_key(public_key.strip().encode())
            blob = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).split()[1]
            text = hashlib.md5(base64.b64decode(blob), usedforsecurity=False).hexdigest()
    except Exception:  # the readers of keys raise many kinds of errors for what is no key
        what = "X509 fingerprint. Error message: not a PEM certificate" if kind == "x509" else "fingerprint"
        raise BadRequest(f"Keypair data is invalid: failed to generate {what}", field="public_key") from None
    return ":".join(text[i:i + 2] for i in range(0, len(text), 2))



def generate() -> tuple[str, str]:
    """A new RSA key of 2048 bits: (private key as PEM, public key as one OpenSSH line). Takes about 100 ms."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL,
                                serialization.NoEncryption()).decode()
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    return private, f"{public} Generated-by-Nacre"


def certificate(user_id: str, now: datetime) -> tuple[str, str]:
    """A new key for logging in to Windows by certificate: (PKCS#12 in base64 without a password, certificate as PEM).
    The certificate is as WinRM wants it: for client authentication, with the user's principal name (Microsoft's
    object identifier 1.3.6.1.4.1.311.20.2.3) as alternative name; it holds for ten years."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user_id)])
    principal = f"{user_id}@localhost".encode()
    upn = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), bytes([0x0c, len(principal)]) + principal)
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now)
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([upn]), critical=False).sign(key, hashes.SHA256()))
    bundle = pkcs12.serialize_key_and_certificates(b"", key, made, None, serialization.NoEncryption())
    return base64.b64encode(bundle).decode(), made.public_bytes(serialization.Encoding.PEM).decode()


class KeyPairs:
    """Key pairs in the database. `limit`, where asked for, is how many one user may have (-1: any number)."""

    def __init__(self, db: Database, clock: Clock):
        self._db, self._clock = db, clock

    async def of_user(self, user_id: str, limit: int, marker: str | None = None) -> list[KeyPair]:
        """By name. Raises BadRequest for a marker that is not there."""
        rows = await self._db.read(lambda c: c.execute(
            sa.select(keypairs).where(keypairs.c.user_id == user_id).order_by(keypairs.c.name)).all())
        found = [_from_row(row) for row in rows]
        if marker is not None:
            places = [i for i, key in enumerate(found) if key.name == marker]
            if not places:
                raise BadRequest(f"marker [{marker}] not found", field="marker")
            found = found[places[0] + 1:]
        return found[:limit]

    async def get(self, user_id: str, name: str) -> KeyPair:
        """Raises NotFound."""
        return await self._db.read(lambda c: find_keypair(c, user_id, name))

    async def create(self, user_id: str, name: str, kind: str, limit: int) -> tuple[KeyPair, str]:
        """A new pair and its private key. Raises Conflict, QuotaExceeded."""
        private, public = await asyncio.to_thread(
            lambda: generate() if kind == "ssh" else certificate(user_id, self._clock.now().astimezone(UTC)))
        return await self.add(user_id, name, kind, public, limit), private

    async def add(self, user_id: str, name: str, kind: str, public_key: str, limit: int) -> KeyPair:
        """Keeps a public key that the user made. Raises BadRequest, Conflict, QuotaExceeded."""
        pair = KeyPair(user_id=user_id, name=name, type=kind, fingerprint=fingerprint(public_key, kind),
                       public_key=public_key, created_at=self._clock.now().astimezone(UTC).replace(tzinfo=None))
        values = {k: v for k, v in msgspec.structs.asdict(pair).items() if k != "id"}

        def unit(c: sa.Connection) -> int:
            names = c.execute(sa.select(keypairs.c.name).where(keypairs.c.user_id == user_id)).scalars().all()
            if 0 <= limit <= len(names):
                raise QuotaExceeded("Quota exceeded, too many key pairs.")
            if name in names:
                raise Conflict(f"Key pair '{name}' already exists.")
            key: Any = c.execute(sa.insert(keypairs).values(values)).inserted_primary_key
            return int(key[0])

        try:
            return msgspec.structs.replace(pair, id=await self._db.run(unit))
        except sa.exc.IntegrityError:
            raise Conflict(f"Key pair '{name}' already exists.") from None

    async def delete(self, user_id: str, name: str) -> None:
        """Servers keep the key they were given. Raises NotFound."""
        gone = await self._db.run(lambda c: c.execute(
            sa.delete(keypairs).where(keypairs.c.user_id == user_id, keypairs.c.name == name)).rowcount)
        if not gone:
            raise NotFound(f"Keypair {name} not found for user {user_id}")


def find_keypair(connection: sa.Connection, user_id: str, name: str) -> KeyPair:
    """For use inside another unit of work. Raises NotFound."""
    row = connection.execute(
        sa.select(keypairs).where(keypairs.c.user_id == user_id, keypairs.c.name == name)).first()
    if row is None:
        raise NotFound(f"Keypair {name} not found for user {user_id}")
    return _from_row(row)


def _from_row(row: sa.Row[Any]) -> KeyPair:
    return KeyPair(**{name: row._mapping[name] for name in KeyPair.__struct_fields__})
