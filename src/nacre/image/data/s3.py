"""Images in a bucket of S3, or of anything that speaks like it. botocore is loaded with the first use of the store.

An upload goes up in parts as it arrives. Parts grow as there come more of them: 10,000 are the most that S3 takes, and
what an upload holds in memory is one part.
"""

import base64
import contextlib
import hashlib
import importlib.util
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import structlog

from nacre.base.errors import NacreError, Unavailable
from nacre.image.data.store import absent, checked, full

log = structlog.get_logger()

MB = 1 << 20
#: (from which part on, bytes of a part): 1.25 TiB in 10,000 parts, and 8 MiB in memory for images below 8 GB.
PARTS = ((0, 8 * MB), (1000, 32 * MB), (2000, 160 * MB))
#: Errors that mean that the object is not there.
ABSENT = {"NoSuchKey", "NotFound", "404"}


class S3Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """endpoint: a URL, empty for Amazon's own; prefix: put before every name in the bucket. Without keys: what the
    library finds (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, the machine's role)."""

    bucket: str
    endpoint: str = ""
    prefix: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = ""


class S3Store:
    """One bucket."""

    name = "s3"

    def __init__(self, options: Mapping[str, str]):
        self.options = msgspec.convert(options, S3Options)
        if importlib.util.find_spec("botocore") is None:
            raise NacreError("images.s3 needs more Python libraries: install locks/s3.txt into Nacre's environment "
                             "(python -m pip install --require-hashes -r locks/s3.txt).")
        self._made: Any = None
        self._making = threading.Lock()

    def open(self, *, known: bool) -> None:
        """Whether the bucket answers."""
        with self.asking():
            self.client.head_bucket(Bucket=self.options.bucket)

    def create(self, key: str) -> "S3Sink":
        return S3Sink(self, self.place(key))

    def read(self, key: str, offset: int, length: int) -> bytes:
        place = self.place(key)
        if not length:
            self.size(key)
            return b""
        with self.asking(key, past="InvalidRange"):
            reply = self.client.get_object(**place, Range=f"bytes={offset}-{offset + length - 1}")
            with contextlib.closing(reply["Body"]) as body:
                if offset and "ContentRange" not in reply:
                    raise Unavailable("The image storage gives whole objects only. Ask the operator.")
                data: bytes = body.read(length)
                return data
        return b""

    def size(self, key: str) -> int:
        place = self.place(key)
        with self.asking(key):
            return int(self.client.head_object(**place)["ContentLength"])
        raise absent(key)

    def delete(self, key: str) -> None:
        place = self.place(key)
        with self.asking():
            self.client.delete_object(**place)
            found = self.client.list_multipart_uploads(Bucket=place["Bucket"], Prefix=place["Key"])
            for upload in found.get("Uploads", ()):
                self.client.abort_multipart_upload(**place, UploadId=upload["UploadId"])

    def place(self, key: str) -> dict[str, str]:
        """Bucket and name of an object, as the client's verbs take them. Raises NotFound."""
        return {"Bucket": self.options.bucket, "Key": self.options.prefix + checked(key)}

    @property
    def client(self) -> Any:
        """botocore's; its verbs may be used by several threads."""
        with self._making:
            if self._made is None:
                self._made = _client(self.options)
            return self._made

    @contextlib.contextmanager
    def asking(self, key: str = "", past: str = "") -> Iterator[None]:
        """Errors of the library become ours; one of code `past` ends the block in peace. A user hears that the storage
        is full or away; which bucket and why is the log's."""
        from botocore.exceptions import BotoCoreError, ClientError
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if past and code == past:
                return
            if key and code in ABSENT:
                raise absent(key) from None
            self._say(str(error))
            if code in ("QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity"):
                raise full() from None
            raise Unavailable("The image storage refuses. Ask the operator.", details=code) from error
        except BotoCoreError as error:
            self._say(str(error))
            raise Unavailable("The image storage does not answer. Try again, or ask the operator.",
                              details=type(error).__name__) from error

    def _say(self, why: str) -> None:
        log.error("the images' bucket cannot be used", bucket=self.options.bucket,
                  endpoint=self.options.endpoint or "amazonaws.com", why=why)


class S3Sink:
    """An upload: in one request if it is small, else in parts. Each carries its MD5, which the server shall check, and
    its answer the MD5 of what arrived."""

    def __init__(self, store: S3Store, place: dict[str, str]):
        self._store, self._place = store, place
        self._buffer, self._sent = bytearray(), 0
        self._upload, self._parts = "", list[dict[str, Any]]()
        self._over = False

    def write(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= (size := part_size(len(self._parts))):
            self._part(self._buffer[:size])
            del self._buffer[:size]

    def commit(self) -> None:
        if not self._upload:
            with self._store.asking():
                reply = self._store.client.put_object(**self._place, Body=self._buffer, ContentMD5=_md5(self._buffer))
            self._over = True
            _compare(reply, self._buffer)
            return
        if self._buffer:
            self._part(self._buffer)
        with self._store.asking():
            self._store.client.complete_multipart_upload(
                **self._place, UploadId=self._upload, MultipartUpload={"Parts": self._parts})
            self._over = True
            size = int(self._store.client.head_object(**self._place)["ContentLength"])
        if size != self._sent:
            raise Unavailable(f"The image storage has {size} bytes of the {self._sent} that it was sent. Try again.")

    def discard(self) -> None:
        self._buffer.clear()
        if self._upload and not self._over:
            self._over = True
            with self._store.asking():
                self._store.client.abort_multipart_upload(**self._place, UploadId=self._upload)

    def _part(self, data: bytearray) -> None:
        with self._store.asking():
            if not self._upload:
                self._upload = self._store.client.create_multipart_upload(**self._place)["UploadId"]
            number = len(self._parts) + 1
            reply = self._store.client.upload_part(
                **self._place, UploadId=self._upload, PartNumber=number, Body=data, ContentMD5=_md5(data))
        _compare(reply, data)
        self._parts.append({"PartNumber": number, "ETag": reply["ETag"]})
        self._sent += len(data)


def part_size(done: int) -> int:
    """Bytes of the next part after so many."""
    return next(size for first, size in reversed(PARTS) if done >= first)


def _compare(reply: Mapping[str, Any], data: bytearray) -> None:
    """Raises Unavailable: something else arrived. With keys of the server's own an ETag is no MD5."""
    found = str(reply["ETag"]).strip('"')
    if reply.get("ServerSideEncryption") in (None, "AES256") and found != hashlib.md5(
            data, usedforsecurity=False).hexdigest():
        raise Unavailable("The image storage does not have what it was sent. Try again.")


def _md5(data: bytearray) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _client(options: S3Options) -> Any:
    import botocore.session
    from botocore.config import Config

    # Checksums of the library's own, and buckets in the host's name, are what other servers than Amazon's stumble over.
    config = Config(
        connect_timeout=5, read_timeout=60, max_pool_connections=16,
        retries={"mode": "standard", "total_max_attempts": 3},
        request_checksum_calculation="when_required", response_checksum_validation="when_required",
        s3={"addressing_style": "path" if options.endpoint else "auto"})
    return botocore.session.Session().create_client(
        "s3", endpoint_url=options.endpoint or None, region_name=options.region or None, config=config,
        aws_access_key_id=options.access_key or None, aws_secret_access_key=options.secret_key or None)
