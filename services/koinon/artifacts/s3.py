"""Sealed artifacts in a bucket of an S3 server (MinIO or another)."""

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO, cast
from urllib.parse import SplitResult

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.response import BaseHTTPResponse

from koinon.artifacts import sealing, stores
from koinon.artifacts.sealing import Sealed
from koinon.domain.errors import Forbidden, Invalid, NotFound, Unavailable, Untrusted

_PART = 16 * 2**20
_PREFIX = "artifacts/"
_ABSENT = {"NoSuchKey", "NoSuchObject"}
_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}


class S3Store:
    """Objects named `artifacts/<name>` in one bucket, made if it is absent. Raises Forbidden for wrong credentials."""

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client, self._bucket = client, bucket
        with self._reachable():
            if not client.bucket_exists(bucket_name=bucket):
                client.make_bucket(bucket_name=bucket)

    def put(self, sealed: Sealed) -> str:
        sealing.verify(sealed)
        with sealed.path.open("rb") as file, self._reachable(sealed.name):
            self._client.put_object(
                bucket_name=self._bucket,
                object_name=_key(sealed.name),
                data=cast(BinaryIO, _Checked(file, sealed.name, sealed.size)),
                length=sealed.size,
                part_size=_PART,
                num_parallel_uploads=1,
            )
        return sealed.name

    def open(self, name: str, *, offset: int = 0, length: int | None = None) -> io.BufferedIOBase:
        stores.check_range(offset, length)
        size = self.size(name)
        count = max(0, size - offset) if length is None else max(0, min(length, size - offset))
        if count == 0:
            return io.BytesIO()
        with self._reachable(name):
            response = self._client.get_object(
                bucket_name=self._bucket, object_name=_key(name), offset=offset, length=count
            )
        return io.BufferedReader(_Body(response), 2**20)

    def size(self, name: str) -> int:
        with self._reachable(name):
            return self._client.stat_object(bucket_name=self._bucket, object_name=_key(name)).size or 0

    def exists(self, name: str) -> bool:
        try:
            self.size(name)
        except NotFound:
            return False
        return True

    def delete(self, name: str) -> None:
        with self._reachable(name):
            self._client.remove_object(bucket_name=self._bucket, object_name=_key(name))

    def names(self) -> Iterator[str]:
        with self._reachable():
            for found in self._client.list_objects(bucket_name=self._bucket, prefix=_PREFIX):
                yield (found.object_name or "").removeprefix(_PREFIX)

    def check(self) -> None:
        with self._reachable():
            if not self._client.bucket_exists(bucket_name=self._bucket):
                raise Unavailable("The bucket of the artifacts is gone.", where=self._bucket)

    @contextmanager
    def _reachable(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            if error.code in _ABSENT:
                raise NotFound("There is no such artifact.", where=name) from None
            if error.code in _DENIED:
                raise Forbidden(
                    f"The object store refuses the hub: {error.code}.",
                    where=self._bucket,
                    todo="Check KOINON_S3_ACCESS_KEY and KOINON_S3_SECRET_KEY.",
                ) from None
            raise Unavailable(f"The object store answers {error.code}.", where=self._bucket) from None
        except (urllib3.exceptions.HTTPError, ServerError, InvalidResponseError, OSError):
            raise _away(self._bucket) from None


class _Checked(io.RawIOBase):
    """Reads a sealed file for an upload, and fails before its last bytes leave if it does not hash to its name."""

    def __init__(self, file: io.BufferedReader, name: str, size: int) -> None:
        self._file, self._name, self._left, self._hasher = file, name, size, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview | bytearray) -> int:  # type: ignore[override]
        count = self._file.readinto(target)
        self._hasher.update(target[:count])
        self._left -= count
        if self._left <= 0 and self._hasher.hexdigest() != self._name:
            raise Untrusted("The sealed file is not the one that was made.", where=self._name)
        return count


class _Body(io.RawIOBase):
    """The body of a response; a lost connection is Unavailable, never a short read."""

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview | bytearray) -> int:  # type: ignore[override]
        try:
            block = self._response.read(len(target))
        except (urllib3.exceptions.HTTPError, OSError):
            raise _away("") from None
        target[: len(block)] = block
        return len(block)

    def close(self) -> None:
        if not self.closed:
            self._response.close()
            self._response.release_conn()
        super().close()


def _away(where: str) -> Unavailable:
    return Unavailable("The object store does not answer.", where=where, todo="The same call works once it is back.")


def _key(name: str) -> str:
    return _PREFIX + stores.check_name(name)


def from_url(url: SplitResult, environment: Mapping[str, str]) -> S3Store:
    """See `stores.from_url`."""
    bucket = url.path.strip("/")
    if not url.hostname or not bucket or "/" in bucket or url.query not in ("", "tls=no"):
        raise Invalid("This is no S3 place.", where="artifacts", todo="Use s3://host:port/bucket or …/bucket?tls=no.")
    if url.username is not None or url.password is not None:
        raise Invalid("Credentials do not belong into a URL.", where="artifacts", todo=_CREDENTIALS)
    access, secret = environment.get("KOINON_S3_ACCESS_KEY"), environment.get("KOINON_S3_SECRET_KEY")
    if not access or not secret:
        raise Invalid("The object store's credentials are missing.", where="artifacts", todo=_CREDENTIALS)
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=5, read=60), retries=urllib3.Retry(total=2, backoff_factor=0.2)
    )
    client = Minio(url.netloc, access_key=access, secret_key=secret, secure=url.query != "tls=no", http_client=pool)
    return S3Store(client, bucket)


_CREDENTIALS = "Set KOINON_S3_ACCESS_KEY and KOINON_S3_SECRET_KEY in the hub's environment."
