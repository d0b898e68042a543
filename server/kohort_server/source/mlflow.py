"""Models of an MLflow registry: a version, an alias, or the newest, and the files that were logged for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import msgspec

from kohort_server.source.credentials import Credentials
from kohort_server.source.http import read
from kohort_server.source.interface import MAX_FILES, Listing, RemoteFile, Source, failed, not_found
from kohort_server.source.s3 import STATIC, S3Source
from kohort_server.source.web import Web, authorization, basic, checked_header, decoded, shown

MAX_DEPTH = 16  # directories within one another
REGISTRY = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


class Version(msgspec.Struct, frozen=True):
    """What the registry tells of a version."""

    version: str


class Artifact(msgspec.Struct, frozen=True):
    """What is told of a file or directory."""

    path: str
    is_dir: bool = False
    file_size: int | str | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """What an mlflow:// URI names: the newest version where it names neither alias nor version."""

    name: str
    alias: str = ""
    version: str = ""


def parse(uri: str) -> Address:
    """The address in a URI; raises for one that is none."""
    told = uri.removeprefix("mlflow://")
    name, slash, version = told.partition("/")
    name, at, alias = name.partition("@")
    wrong = (slash and at) or (slash and not version.isdecimal()) or (at and not alias)
    if not name or wrong or any(character in told for character in "?#"):
        raise not_found(
            f"{uri} is not of the form mlflow://NAME, mlflow://NAME@ALIAS or mlflow://NAME/VERSION"
        )
    return Address(unquote(name), unquote(alias), version)


def login(credentials: Credentials) -> str:
    """The header Authorization, by MLflow's own names of keys or by the usual ones."""
    if token := credentials.get("MLFLOW_TRACKING_TOKEN"):
        return checked_header(f"Bearer {token}")
    if username := credentials.get("MLFLOW_TRACKING_USERNAME"):
        return basic(username, credentials.get("MLFLOW_TRACKING_PASSWORD"))
    return authorization(credentials)


@dataclass
class MlflowSource:
    """What an mlflow:// URI names."""

    uri: str
    credentials: Credentials
    endpoint: str = ""
    region: str = ""

    def __post_init__(self) -> None:
        self._address = parse(self.uri)
        self._web = Web()
        self._inner: Source | None = None  # where the files are that the registry only names

    def resolve(self) -> Listing:
        """The files of the version that an alias names now."""
        self._web = Web(self.credentials.authorities())
        version = self._version()
        pinned = f"mlflow://{quote(self._address.name, safe='.')}/{version}"
        place = self._place(version)
        scheme = urlsplit(place).scheme
        if scheme == "mlflow-artifacts":
            self._inner = None
            # With a host it may be another server's; we were told to speak to this one.
            root = urlsplit(place).path.strip("/")
            return Listing(tuple(self._files(root)), pinned)
        if scheme == "s3":
            keys = self.credentials
            if keys.directory is not None and not keys.get(STATIC):
                keys = (
                    Credentials()
                )  # the Secret is for MLflow alone: the pod's identity reads the bucket
            uri = f"{place.rstrip('/')}/"
            self._inner = S3Source(uri, keys, keys.get("AWS_ENDPOINT_URL"), self.region)
            return replace(self._inner.resolve(), pinned=pinned)
        raise failed(
            f"{self.uri} (version {version}) has its files at {scheme or 'a path of its server'}, which "
            "cannot be read from here; start the MLflow server with --serve-artifacts, or keep them in s3://"
        )

    def _version(self) -> str:
        name = self._address.name
        if self._address.version:
            return self._address.version
        if self._address.alias:
            asked = {"name": name, "alias": self._address.alias}
            told = self._ask("registered-models/alias", asked).get("model_version")
            return str(self._convert(told, Version).version)
        told = self._ask("registered-models/get", {"name": name}).get("registered_model", {})
        known = self._convert(told.get("latest_versions", []), list[Version])
        if not known:
            raise not_found(f"{self.uri} has no version yet; register one")
        return str(max((one.version for one in known), key=int))

    def _place(self, version: str) -> str:
        """Where a version's files are."""
        asked = {"name": self._address.name, "version": version}
        place = str(self._ask("model-versions/get-download-uri", asked).get("artifact_uri", ""))
        logged = place.removeprefix("models:/")
        if logged != place:  # a logged model, which has a place of its own
            answer = self._ask(f"logged-models/{quote(logged.strip('/'), safe='')}", {})
            place = str(answer.get("model", {}).get("info", {}).get("artifact_uri", ""))
        of_run = place.removeprefix("runs:/")
        if of_run != place:  # a directory of a run's files
            run, _, path = of_run.partition("/")
            answer = self._ask("runs/get", {"run_id": run})
            root = str(answer.get("run", {}).get("info", {}).get("artifact_uri", ""))
            place = f"{root}/{path}"
        return place

    def _files(self, root: str) -> Iterator[RemoteFile]:
        """All files below a directory; those in it first."""
        seen = 0
        waiting = [PurePosixPath()]
        while waiting:
            directory = waiting.pop()
            query = urlencode({"path": str(PurePosixPath(root) / directory)})
            body = self._web.document(
                f"{self._server()}{ARTIFACTS}?{query}", {}, login(self.credentials)
            )
            answer = decoded(self._server(), body, dict[str, Any])
            for artifact in self._convert(answer.get("files", []), list[Artifact]):
                seen += 1
                path = directory / PurePosixPath(artifact.path).name
                if seen > MAX_FILES or len(path.parts) > MAX_DEPTH:
                    raise failed(f"{self.uri} has more files or directories than a model has")
                if artifact.is_dir:
                    waiting.append(path)
                    continue
                size = str(artifact.file_size) if artifact.file_size is not None else ""
                url = f"{self._server()}{ARTIFACTS}/{quote(f'{root}/{path}')}"
                # The server streams a file as a whole, whatever part is asked for.
                yield RemoteFile(
                    str(path), int(size) if size.isdecimal() else None, place=url, ranges=False
                )

    def _server(self) -> str:
        server = (self.endpoint or self.credentials.get("MLFLOW_TRACKING_URI")).rstrip("/")
        if urlsplit(server).scheme not in ("http", "https"):
            raise not_found(
                f"{self.uri}: nobody has said where MLflow is; set model.endpoint to its server's address"
            )
        return server

    def _ask(self, what: str, asked: dict[str, str]) -> dict[str, Any]:
        url = f"{self._server()}{REGISTRY}/{what}?{urlencode(asked)}"
        found: dict[str, Any] = decoded(
            url, self._web.document(url, {}, login(self.credentials)), dict[str, Any]
        )
        return found

    def _convert(self, told: Any, kind: Any) -> Any:
        try:
            return msgspec.convert(told, kind)
        except msgspec.ValidationError as error:
            raise failed(f"{shown(self._server())}: the answer is not MLflow's ({error})") from None

    @contextmanager
    def open(self, file: RemoteFile, start: int, end: int | None) -> Iterator[Iterator[bytes]]:
        """See `Source`."""
        if self._inner is not None:
            with self._inner.open(file, start, end) as body:
                yield body
            return
        with read(self._web, file, start, end, login(self.credentials)) as body:
            yield body
