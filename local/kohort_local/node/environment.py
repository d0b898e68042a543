"""The command and the variables of a container's process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from kohort_local.client import Object
from kohort_local.node.fields import PodContext
from kohort_local.node.images import Image
from kohort_local.node.rewrite import expand, relocate
from kohort_local.node.sources import CONFIG_MAPS, SECRETS, Sources
from kohort_local.node.volumes import Volumes


class ConfigError(Exception):
    """A container's configuration names something that is not there."""


@dataclass(frozen=True)
class Launch:
    """What to execute, with which variables, where; and how paths of the container are found."""

    command: list[str]
    environment: dict[str, str]
    directory: Path
    mounts: dict[str, str]  # path in the container → path on this machine

    def inside(self, command: list[str]) -> list[str]:
        """A command for a probe or hook of the same container."""
        return [relocate(part, self.mounts) for part in command]


async def variables(
    pod: PodContext, container: Object, sources: Sources, base: dict[str, str]
) -> dict[str, str]:
    """All variables of a container on top of `base`, paths as written in the pod.

    Raises:
        ConfigError: a ConfigMap, Secret or key is missing.
    """
    found = dict(base)
    for source in container.get("envFrom", []):
        kind = CONFIG_MAPS if "configMapRef" in source else SECRETS
        reference = source.get("configMapRef") or source["secretRef"]
        for key, value in (await _entries(pod, sources, kind, reference)).items():
            found[source.get("prefix", "") + key] = value.decode()
    for variable in container.get("env", []):
        name, source = variable["name"], variable.get("valueFrom")
        if source is None:
            found[name] = expand(variable.get("value", ""), found)
        elif "fieldRef" in source:
            found[name] = pod.field(source["fieldRef"]["fieldPath"])
        elif "resourceFieldRef" in source:
            found[name] = pod.resource(source["resourceFieldRef"], container)
        else:
            kind = CONFIG_MAPS if "configMapKeyRef" in source else SECRETS
            reference = source.get("configMapKeyRef") or source.get("secretKeyRef")
            if reference is None:
                raise ConfigError(f"variable {name}: the local node cannot read {source}")
            entries = await _entries(pod, sources, kind, reference)
            if reference["key"] in entries:
                found[name] = entries[reference["key"]].decode()
            elif not reference.get("optional"):
                raise ConfigError(
                    f"couldn't find key {reference['key']} in {kind} "
                    f"{pod.namespace}/{reference['name']}"
                )
    return found


async def _entries(
    pod: PodContext, sources: Sources, kind: str, reference: Object
) -> dict[str, bytes]:
    try:
        return await sources.keys(
            kind, pod.namespace, reference["name"], optional=bool(reference.get("optional"))
        )
    except Exception as error:
        raise ConfigError(f"{kind} {pod.namespace}/{reference['name']}: {error}") from error


async def launch(
    pod: PodContext,
    container: Object,
    image: Image,
    sources: Sources,
    volumes: Volumes,
    *,
    server: str,
    directory: Path,
    message_file: Path,
) -> Launch:
    """How to start a container: its mount paths are replaced by the volumes' directories.

    Args:
        pod: The container's pod.
        container: The container's spec.
        image: What its image stands for.
        sources: ConfigMaps and Secrets.
        volumes: The pod's volumes.
        server: URL of the API server, told to the pod as any pod is told.
        directory: Where it runs unless it says otherwise.
        message_file: What its `terminationMessagePath` stands for.

    Raises:
        ConfigError: something that it needs is missing.
    """
    address = urlsplit(server)
    base = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(directory),
        "HOSTNAME": pod.name,
        "KUBERNETES_SERVICE_HOST": address.hostname or "",
        "KUBERNETES_SERVICE_PORT": str(address.port),
        **image.env,
    }
    found = await variables(pod, container, sources, base)
    mounts = {container.get("terminationMessagePath", "/dev/termination-log"): str(message_file)}
    for mount in container.get("volumeMounts", []):
        below = mount.get("subPath") or expand(mount.get("subPathExpr", ""), found)
        target = volumes.directory_of(mount["name"]) / below
        mounts[mount["mountPath"]] = str(target)
    # What the image brings are paths of this machine already.
    brought = [] if container.get("command") else list(image.entrypoint)
    given = [*container.get("command", []), *container.get("args", [])]
    given = [relocate(expand(part, found), mounts) for part in given]
    own = {variable["name"] for variable in container.get("env", [])}
    environment = {
        name: value if name in image.env and name not in own else relocate(value, mounts)
        for name, value in found.items()
    }
    for name in ("PATH", "HOME"):
        if name not in own:
            environment[name] = found[name]
    working = container.get("workingDir")
    return Launch(
        command=brought + given,
        environment=environment,
        directory=Path(relocate(working, mounts)) if working else directory,
        mounts=mounts,
    )
