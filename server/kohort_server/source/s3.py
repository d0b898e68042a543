"""Objects of S3 and of whatever speaks like it: one object, a version of it, or all below a prefix."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import parse_qs, quote, urlsplit

import obstore
from obstore import exceptions
from obstore.store import S3Store

from kohort_server.errors import StartFailure
from kohort_server.source.credentials import Credentials
from kohort_server.source.interface import (
    CHUNK,
    MAX_FILES,
    ChangedError,
    Listing,
    RemoteFile,
    TransientError,
    denied,
    failed,
    not_found,
)
from kohort_server.source.web import CONNECT_SECONDS, SILENT_SECONDS

STATIC = "AWS_ACCESS_KEY_ID"
# What webhooks of a cloud put into a pod: any of these says who we are. The node's own identity is never
# asked for: it is not the tenant's.
IDENTITY = (
    STATIC,
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)
KEPT_SECONDS = 60  # until keys are read again
DENIED = re.compile(
    r"\b40[13] (Forbidden|Unauthorized)|AccessDenied|InvalidAccessKeyId|ExpiredToken|InvalidToken|"
    r"SignatureDoesNotMatch|metadata endpoint|AssumeRole|container_credentials"
)


@dataclass(frozen=True, slots=True)
class Address:
    """What an s3:// URI names; `key` is a prefix where it ends with a slash, or is empty."""

    bucket: str
    key: str
    version: str = ""

    @property
    def directory(self) -> bool:
        """Whether it names all that is below it."""
        return not self.key or self.key.endswith("/")

    def uri(self) -> str:
        """It, as a URI."""
        told = f"s3://{self.bucket}/{self.key}"
        return f"{told}?versionId={quote(self.version, safe='')}" if self.version else told


def parse(uri: str) -> Address:
    """The address in a URI; raises for one that is none. Keys are written as they are, without %."""
    parts = urlsplit(uri, allow_fragments=False)
    asked = parse_qs(parts.query, keep_blank_values=True)
    if not parts.netloc or set(asked) - {"versionId"}:
        raise not_found(f"{uri} is not of the form s3://BUCKET/KEY or s3://BUCKET/KEY?versionId=ID")
    (version,) = asked.get("versionId", [""])
    address = Address(parts.netloc, parts.path.removeprefix("/"), version)
    if version and address.directory:
        raise not_found(f"{uri}: a prefix has no version; name an object, or leave versionId out")
    return address


@dataclass
class S3Source:
    """What an s3:// URI names."""

    uri: str
    credentials: Credentials
    endpoint: str = ""
    region: str = ""

    def __post_init__(self) -> None:
        self._address = parse(self.uri)
        self._store: S3Store | None = None

    def resolve(self) -> Listing:
        """The object as it is now, or those below a prefix."""
        address = self._address
        self._store = None  # with credentials as they are now
        with told(self.uri):
            if address.directory:
                return Listing(self._below(address.key))
            meta = self._get(address.key, address.version, head=True).meta
            version = address.version or meta["version"] or ""
            if version == "null":  # S3's word for an object without versions
                version = ""
            file = RemoteFile(
                "", meta["size"], meta["e_tag"] or version, place=f"{version}\n{address.key}"
            )
            pinned = Address(address.bucket, address.key, version).uri() if version else ""
            return Listing((file,), pinned)

    def _below(self, prefix: str) -> tuple[RemoteFile, ...]:
        found = []
        for metas in obstore.list(self._connected(), prefix or None):
            for meta in metas:
                if not meta["path"].startswith(prefix):
                    continue  # the directory's own marker
                name = meta["path"].removeprefix(prefix)
                place = f"\n{meta['path']}"
                found.append(RemoteFile(name, meta["size"], meta["e_tag"] or "", place=place))
            if len(found) > MAX_FILES:
                break
        if not found:
            raise not_found(f"{self.uri}: there is nothing below it; check model.uri")
        return tuple(found)

    @contextmanager
    def open(self, file: RemoteFile, start: int, end: int | None) -> Iterator[Iterator[bytes]]:
        """See `Source`."""
        version, _, key = file.place.partition("\n")
        options: dict[str, Any] = {}
        if file.version and not version:
            options["if_match"] = file.version
        if end is not None:
            if start == end:
                yield iter(())
                return
            options["range"] = (start, end)
        with told(self.uri):
            result = self._get(key, version, **options)
            yield (bytes(piece) for piece in result.stream(CHUNK))

    def _get(self, key: str, version: str, **options: Any) -> obstore.GetResult:
        if version:
            options["version"] = version
        return obstore.get(self._connected(), key, options=cast("obstore.GetOptions", options))

    def _connected(self) -> S3Store:
        if self._store is None:
            self._store = self._connect()
        return self._store

    def _connect(self) -> S3Store:
        told = self.credentials
        endpoint = self.endpoint or told.get("AWS_ENDPOINT_URL")
        region = self.region or told.get("AWS_REGION") or told.get("AWS_DEFAULT_REGION")
        trusted = told.authorities()
        config: dict[str, Any] = {"region": region or "us-east-1"}
        if endpoint:
            config["endpoint"] = endpoint
        static = told.directory is not None
        if static and not told.get(STATIC):
            raise denied(f"{self.uri}: the Secret of secretRef has no key {STATIC}")
        if not static and not any(os.environ.get(name) for name in IDENTITY):
            config["skip_signature"] = True
        return S3Store(
            self._address.bucket,
            config=cast("obstore.store.S3Config", config),
            credential_provider=self._keys if static else None,
            client_options={
                **({"root_certificate": trusted} if trusted else {}),
                # The endpoint of a test or of a service mesh; never what https:// was asked for.
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "read_timeout": timedelta(seconds=SILENT_SECONDS),
                "timeout": timedelta(hours=1),  # of one part; a slow sender is noticed by its pace
                "user_agent": "kohort-server",
            },
            # A failed request is made again by whoever asks, who knows what came already.
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
        )

    def _keys(self) -> Any:
        """The Secret's keys as they are now: ones that are rotated are used within a minute."""
        told = self.credentials
        return {
            "access_key_id": told.get(STATIC),
            "secret_access_key": told.get("AWS_SECRET_ACCESS_KEY"),
            "token": told.get("AWS_SESSION_TOKEN") or None,
            "expires_at": datetime.now(UTC) + timedelta(seconds=KEPT_SECONDS),
        }


@contextmanager
def told(uri: str) -> Iterator[None]:
    """What obstore raises, as what a person may be told: without what a service answers, which names keys."""
    try:
        yield
    except StartFailure:
        raise
    except (exceptions.NotFoundError, exceptions.InvalidPathError, FileNotFoundError):
        raise not_found(f"{uri} is not there; check model.uri, and model.endpoint") from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise refused(uri, error) from None
    except ValueError:  # no path of S3 as obstore has them
        raise not_found(f"{uri} names nothing that can be there; check model.uri") from None
    except exceptions.PreconditionError:
        raise ChangedError("it was changed while it was downloaded") from None
    except exceptions.BaseError as error:
        if DENIED.search(str(error)):
            raise refused(uri, error) from None
        if "PermanentRedirect" in str(error) or "301 Moved" in str(error):
            raise failed(f"{uri}: the bucket is in another region; set model.region") from None
        raise TransientError(summary(error)) from None


def refused(uri: str, error: Exception) -> StartFailure:
    """We may not read it."""
    code = re.search(r"<Code>(\w+)</Code>", str(error))
    return denied(
        f"{uri}: access was refused{f' ({code[1]})' if code else ''}; check that the model may be read from "
        "here, and the keys in the Secret of model.secretRef"
    )


def summary(error: Exception) -> str:
    """An error in a line: a service's code, or its first words."""
    text = str(error)
    code = re.search(r"<Code>(\w+)</Code>", text)
    if code:
        return f"the service answers {code[1]}"
    # What follows repeats it as Rust writes it.
    words = " ".join(text.split("Debug source:")[0].split("<")[0].split())
    return re.sub(r"\?[^\s)'\"]*", "", words)[:300]
