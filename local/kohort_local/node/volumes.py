"""A pod's volumes: directories, with files that follow what they are made of."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kohort_local.client import Object
from kohort_local.node.fields import PodContext
from kohort_local.node.sources import CONFIG_MAPS, SECRETS, Files, Sources

_DEFAULT_MODE = 0o644
_CURRENT = "..data"


class VolumeUnsupported(Exception):
    """This node cannot provide a volume of this kind."""


@dataclass(frozen=True)
class File:
    """A file in a volume."""

    content: bytes
    mode: int


def publish(directory: Path, files: Mapping[str, File]) -> bool:
    """Make a directory hold just these files, all at once; whether anything changed.

    The same links as a kubelet's: NAME → ..data/NAME, ..data → the latest directory. A reader that
    has the directory open sees one generation, never a mixture.
    """
    current = directory / _CURRENT
    if current.exists() and _read(current) == {p: f.content for p, f in files.items()}:
        return False
    made = Path(tempfile.mkdtemp(prefix="..", dir=directory))
    made.chmod(0o755)
    for path, file in files.items():
        target = made / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)
    previous = directory / current.readlink() if current.is_symlink() else None
    link = directory / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(made.name)
    link.replace(current)
    top = {Path(path).parts[0] for path in files}
    for name in top:
        with contextlib.suppress(FileExistsError):
            (directory / name).symlink_to(f"{_CURRENT}/{name}")
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.name not in top:
            entry.unlink()
    if previous:
        shutil.rmtree(previous, ignore_errors=True)
    return True


def _read(directory: Path) -> Files:
    root = directory.resolve()
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


class Volumes:
    """The volumes of one pod, each a directory under the pod's."""

    def __init__(self, pod: PodContext, directory: Path, sources: Sources) -> None:
        self._pod = pod
        self._directory = directory
        self._sources = sources

    def _specs(self) -> list[Object]:
        return list(self._pod.spec.get("volumes", []))

    def directory_of(self, name: str) -> Path:
        """The directory of a volume."""
        for spec in self._specs():
            if spec["name"] == name and "hostPath" in spec:
                return Path(spec["hostPath"]["path"])
        return self._directory / name

    async def prepare(self) -> None:
        """Make every volume ready for the containers.

        Raises:
            ApiError: something that a volume is made of cannot be read.
            VolumeUnsupported: a volume's kind is not one of this node's.
            KeyError: an item asks for a key that is not there.
        """
        await asyncio.gather(*(self._fill(spec, fresh=True) for spec in self._specs()))

    async def refresh(self) -> None:
        """Take over what has changed since; raises what `prepare` raises."""
        await asyncio.gather(*(self._fill(spec, fresh=False) for spec in self._specs()))

    async def _fill(self, spec: Object, *, fresh: bool) -> None:
        directory = self.directory_of(spec["name"])
        if "hostPath" in spec:
            _check_host_path(spec["hostPath"])
            return
        directory.mkdir(parents=True, exist_ok=True)
        if "emptyDir" in spec:
            return
        if "projected" in spec:
            whole, parts = spec["projected"], spec["projected"].get("sources", [])
        else:
            whole = next((v for k, v in spec.items() if k != "name"), {})
            parts = [spec]
        mode = int(whole.get("defaultMode", _DEFAULT_MODE))
        read = await asyncio.gather(*(self._files(part, mode, fresh) for part in parts))
        publish(directory, {path: file for files in read for path, file in files.items()})

    async def _files(self, source: Object, mode: int, fresh: bool) -> dict[str, File]:
        namespace = self._pod.namespace
        for kind, resource in (("configMap", CONFIG_MAPS), ("secret", SECRETS)):
            if kind in source:
                told = source[kind]
                name = told.get("secretName") or told["name"]
                optional = bool(told.get("optional"))
                entries = await self._sources.keys(
                    resource, namespace, name, optional=optional, fresh=fresh
                )
                return _select(entries, told, mode, f"{kind} {namespace}/{name}")
        if "downwardAPI" in source:
            return {
                item["path"]: File(self._told(item).encode(), int(item.get("mode", mode)))
                for item in source["downwardAPI"].get("items", [])
            }
        if "serviceAccountToken" in source:
            told = source["serviceAccountToken"]
            return {told["path"]: File(await self._sources.token(self._pod, told), mode)}
        kinds = ", ".join(sorted(kind for kind in source if kind != "name"))
        raise VolumeUnsupported(
            f"the local node has no volumes of kind {kinds}; use emptyDir, configMap, secret, "
            "downwardAPI, projected or hostPath"
        )

    def _told(self, item: Object) -> str:
        if "fieldRef" in item:
            return self._pod.field(item["fieldRef"]["fieldPath"])
        return self._pod.resource(item["resourceFieldRef"])


def _select(entries: Files, source: Object, mode: int, where: str) -> dict[str, File]:
    items = source.get("items")
    if not items:
        return {path: File(content, mode) for path, content in entries.items()}
    chosen = {}
    for item in items:
        if item["key"] in entries:
            chosen[item["path"]] = File(entries[item["key"]], int(item.get("mode", mode)))
        elif not source.get("optional"):
            raise KeyError(f"{where} has no key {item['key']}")
    return chosen


def _check_host_path(source: Object) -> None:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch()
    elif (kind == "Directory" and not path.is_dir()) or (kind == "File" and not path.is_file()):
        raise VolumeUnsupported(f"hostPath {path} is not a {kind.lower()} on this machine")
