"""ModelDeployments and their pods in a cluster; what goes wrong becomes one clear line."""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import urllib3
from kubernetes import client, config, watch

from kohort.contract import API_VERSION, GROUP, LABEL_MODEL, PLURAL
from kohort.view.rollout import Resource

CONNECT_SECONDS, READ_SECONDS = 5, 30
WATCH_SECONDS = 240  # then listed again: a missed event shows up at the latest after this time
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

P = ParamSpec("P")
T = TypeVar("T")


class ClusterError(Exception):
    """A cluster that cannot answer; the message says what to do."""


class NotFoundError(ClusterError):
    """There is no such thing; the message names similar ones."""


class ForbiddenError(ClusterError):
    """The person may not do this."""


class UnreachableError(ClusterError):
    """There is no cluster, or it does not answer."""


class InvalidError(ClusterError):
    """The cluster refuses what an object says."""


class ConflictError(ClusterError):
    """The object has changed since it was read."""


class Cluster:
    """The cluster of one kubeconfig context, seen from one namespace."""

    def __init__(self, kubeconfig: str | None, context: str | None, namespace: str | None) -> None:
        """Reads the kubeconfig, or the service account inside a pod; connects to nothing yet."""
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        urllib3.disable_warnings(
            urllib3.exceptions.InsecureRequestWarning
        )  # the kubeconfig's choice
        settings = client.Configuration()
        default_namespace, self._user = _load(kubeconfig, context, settings)
        settings.retries = False
        self.host: str = settings.host
        self.namespace = namespace or default_namespace
        api = client.ApiClient(settings)
        self._custom = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._authentication = client.AuthenticationV1Api(api)

    def who(self) -> str:
        """The person as the cluster knows them; one who may not ask goes by the kubeconfig's name."""
        try:
            review = self._asked(
                self._authentication.create_self_subject_review,
                client.V1SelfSubjectReview(),
                _preload_content=False,
            )
            return str(json.loads(review.data)["status"]["userInfo"]["username"])
        except (ForbiddenError, NotFoundError):
            return self._user

    def get(self, name: str) -> Resource:
        """One ModelDeployment; ``NotFoundError`` names similar ones of the namespace."""
        try:
            found: Resource = self._asked(
                self._custom.get_namespaced_custom_object,
                *(GROUP, API_VERSION.split("/")[1], self.namespace, PLURAL, name),
            )
            return found
        except NotFoundError:
            names = [item["metadata"]["name"] for item in self.list_models()]
            raise NotFoundError(
                not_found("model deployment", name, names, self.namespace)
            ) from None

    def patch(self, name: str, body: Resource) -> Resource:
        """The ModelDeployment after a merge patch; ``ConflictError`` when the patch names a
        resourceVersion that is not the present one."""
        group, version = API_VERSION.split("/")
        patched: Resource = self._asked(
            self._custom.patch_namespaced_custom_object,
            group,
            version,
            self.namespace,
            PLURAL,
            name,
            body,
            _content_type=MERGE_PATCH,
        )
        return patched

    def dry_run(self, name: str, body: Resource, content_type: str) -> Resource:
        """The ModelDeployment as a patch would leave it, without leaving it so.

        Raises:
            InvalidError: the cluster would refuse it.
        """
        apply = {"field_manager": "kubectl", "force": True} if content_type == APPLY_PATCH else {}
        group, version = API_VERSION.split("/")
        answer = self._asked(
            self._custom.patch_namespaced_custom_object,
            group,
            version,
            self.namespace,
            PLURAL,
            name,
            body,
            dry_run="All",
            field_validation="Strict",
            _content_type=content_type,
            _preload_content=False,  # the client knows no answer 201 to a patch
            **apply,
        )
        patched: Resource = json.loads(answer.data)
        return patched

    def list_models(self, everywhere: bool = False) -> list[Resource]:
        """The ModelDeployments of the namespace, or of all namespaces."""
        call, arguments = self._models(everywhere)
        try:
            items: list[Resource] = self._asked(call, *arguments)["items"]
            return items
        except NotFoundError:
            raise NotFoundError(
                f"the cluster at {self.host} knows no ModelDeployments: install Kohort first "
                "(helm install), or choose another cluster with --context"
            ) from None

    def pods(self, name: str) -> list[Resource]:
        """The pods of one model's revisions."""
        answer = self._asked(
            self._core.list_namespaced_pod,
            self.namespace,
            label_selector=f"{LABEL_MODEL}={name}",
            _preload_content=False,
        )
        items: list[Resource] = json.loads(answer.data)["items"]
        return items

    def nodes(self) -> list[Resource]:
        """All nodes."""
        answer = self._asked(self._core.list_node, _preload_content=False)
        items: list[Resource] = json.loads(answer.data)["items"]
        return items

    def all_pods(self) -> list[Resource]:
        """The pods of all namespaces."""
        answer = self._asked(self._core.list_pod_for_all_namespaces, _preload_content=False)
        items: list[Resource] = json.loads(answer.data)["items"]
        return items

    def namespaces(self) -> list[str]:
        """The names of all namespaces."""
        answer = self._asked(self._core.list_namespace, _preload_content=False)
        return [item["metadata"]["name"] for item in json.loads(answer.data)["items"]]

    def watch_models(
        self, name: str | None, everywhere: bool = False, seconds: int = WATCH_SECONDS
    ) -> Iterator[list[Resource]]:
        """All of them after every change, or just the one with this name; ends after ``seconds``."""
        call, arguments = self._models(everywhere)
        only = {"field_selector": f"metadata.name={name}"} if name else {}
        yield from self._watched(call, *arguments, seconds=seconds, **only)

    def watch_pods(self, name: str | None, everywhere: bool = False) -> Iterator[list[Resource]]:
        """The pods of one model, or of all, after every change; ends after a while."""
        selector = f"{LABEL_MODEL}={name}" if name else LABEL_MODEL
        if everywhere:
            yield from self._watched(
                self._core.list_pod_for_all_namespaces, label_selector=selector
            )
        else:
            yield from self._watched(
                self._core.list_namespaced_pod, self.namespace, label_selector=selector
            )

    def _models(self, everywhere: bool) -> tuple[Callable[..., Any], tuple[str, ...]]:
        version = API_VERSION.split("/")[1]
        if everywhere:
            return self._custom.list_cluster_custom_object, (GROUP, version, PLURAL)
        arguments = (GROUP, version, self.namespace, PLURAL)
        return self._custom.list_namespaced_custom_object, arguments

    def _watched(
        self, call: Callable[..., Any], *args: str, seconds: int = WATCH_SECONDS, **only: str
    ) -> Iterator[list[Resource]]:
        """Everything listed first, then again after each event; ends when the server ends the watch."""
        listed = json.loads(self._asked(call, *args, **only, _preload_content=False).data)
        known = {item["metadata"]["uid"]: item for item in listed["items"]}
        yield list(known.values())
        events = watch.Watch(return_type="object").stream(
            call,
            *args,
            **only,
            resource_version=listed["metadata"]["resourceVersion"],
            timeout_seconds=seconds,
            _request_timeout=(CONNECT_SECONDS, seconds + READ_SECONDS),
        )
        with self._explained():
            for event in events:
                uid = event["object"]["metadata"]["uid"]
                if event["type"] == "DELETED":
                    known.pop(uid, None)
                else:
                    known[uid] = event["object"]
                yield list(known.values())

    def _asked(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._explained():
            timeouts: Any = {"_request_timeout": (CONNECT_SECONDS, READ_SECONDS)}
            return call(*args, **kwargs, **timeouts)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what the client library raises into a ``ClusterError``."""
        try:
            yield
        except client.ApiException as error:
            raise _refusal(error, self.host) from None
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(
                f"cannot reach the cluster at {self.host}: {_root(error)}. Is it running, and is "
                "this the right --context?"
            ) from None


def not_found(kind: str, name: str, names: list[str], place: str) -> str:
    """There is no such thing, and which similar ones there are (all of them when they are few)."""
    similar = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    told = similar or (sorted(names) if len(names) <= 5 else [])
    hint = f"; there is: {', '.join(told)}" if told else "" if names else "; there is none at all"
    return f'no {kind} "{name}" in {place}{hint}'


def contexts(kubeconfig: str | None) -> list[str]:
    """The names of a kubeconfig's contexts; none where there is no kubeconfig."""
    try:
        return [
            each["name"] for each in config.list_kube_config_contexts(config_file=kubeconfig)[0]
        ]
    except (config.ConfigException, OSError):
        return []


def _load(kubeconfig: str | None, context: str | None, settings: Any) -> tuple[str, str]:
    """Fills the client's settings; returns the namespace and the user that the context names."""
    try:
        contexts, current = config.list_kube_config_contexts(config_file=kubeconfig)
        if context and context not in (names := [c["name"] for c in contexts]):
            raise ClusterError(not_found("context", context, names, "the kubeconfig"))
        chosen = next((c for c in contexts if c["name"] == context), current)
        config.load_kube_config(
            config_file=kubeconfig, context=context, client_configuration=settings
        )
        details = chosen.get("context", {})
        return str(details.get("namespace") or "default"), str(details.get("user") or "")
    except (config.ConfigException, OSError) as error:
        with contextlib.suppress(config.ConfigException):
            if kubeconfig is None and context is None:
                config.load_incluster_config(client_configuration=settings)
                return "default", ""
        raise UnreachableError(
            f"no usable kubeconfig{f' at {kubeconfig}' if kubeconfig else ''} ({_one_line(error)}): "
            "set KUBECONFIG or --kubeconfig"
        ) from None


def _refusal(error: Any, host: str) -> ClusterError:
    """The server's own words where it gave some, and what to do about it."""
    try:
        said = str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        said = str(error.reason)
    if error.status == 404:
        return NotFoundError(said)
    if error.status == 401:
        return ClusterError(f"the cluster at {host} does not accept your credentials: log in again")
    if error.status == 403:
        return ForbiddenError(f"{said}; ask for a role that may {_refused_wish(said)}")
    if error.status in (400, 422):
        return InvalidError(said)
    if error.status == 409:
        return ConflictError(said)
    return ClusterError(f"the cluster at {host} answered {error.status}: {said}")


def _refused_wish(said: str) -> str:
    """What a role has to allow, out of the server's words: ``patch modeldeployments.kohort.dev``."""
    wish = re.search(r'cannot (\S+) resource "([^"]+)" in API group "([^"]*)"', said)
    return f"{wish[1]} {'.'.join(filter(None, wish.groups()[1:]))}" if wish else "do this"


def _root(error: BaseException) -> str:
    """What the operating system said, if it did, in a chain of connection errors."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror.lower()
        inner = inner.__cause__ or inner.__context__
    return _one_line(error)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
