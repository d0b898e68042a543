"""What operator, gateway and model server must agree on: names only, no third-party imports."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

GROUP = "kohort.dev"
API_VERSION = "kohort.dev/v1alpha1"
KIND = "ModelDeployment"
PLURAL = "modeldeployments"

# Labels on everything Kohort owns.
LABEL_MODEL = "kohort.dev/model"
LABEL_REVISION = "kohort.dev/revision"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_COMPONENT = "app.kubernetes.io/component"
# The node label that NVIDIA's GPU feature discovery writes.
LABEL_GPU_PRODUCT = "nvidia.com/gpu.product"
# What was last applied, so that a pass that would change nothing writes nothing.
ANNOTATION_APPLIED = "kohort.dev/applied-hash"
# On pods: when a person last wanted fresh ones.
ANNOTATION_RESTARTED = "kohort.dev/restarted-at"
MANAGED_BY = "kohort"
FIELD_MANAGER = "kohort"

# Headers that the gateway writes on the way up and back, and counters are labelled from; a client's
# own are removed.
HEADER_COHORT = "x-kohort-cohort"
HEADER_REVISION = "x-kohort-revision"
# Only on the way up, and only in a rollout.
HEADER_SLOT = "x-kohort-slot"

# The first path segment of the protocol's own calls, which models that are addressed by host are
# called with: a namespace of this name has no paths at a gateway.
PROTOCOL_SEGMENT = "v2"

# A path inside every model's routes that answers with the version of its route table: the
# operator reads from it what a gateway really serves.
TABLE_VERSION_PATH = f"/{PROTOCOL_SEGMENT}/.well-known/kohort/table"

# Ports of the pods, by name.
PORT_SERVER = 8080  # model server: Open Inference Protocol and /metrics
PORT_GATEWAY = 8080  # gateway: clients
PORT_GATEWAY_STATUS = 8081  # gateway: /ready and /stats/prometheus, read-only
PORT_OPERATOR_ROUTES = 18000  # operator: delta ADS over mutual TLS
PORT_OPERATOR_VIEW = 8443  # operator: the web view, over TLS, where it is switched on
PORT_OPERATOR_STATUS = 8081  # operator: /healthz, /readyz, /metrics

# Weights are counted in units of which every slot has the same number, so that any whole percentage
# is exact and a raised weight only ever adds clients.
SLOTS = 256
UNITS_PER_SLOT = 100
WEIGHT_UNITS = SLOTS * UNITS_PER_SLOT

# The gateway's counters as Prometheus shows them: one per (arm, cohort, code), where an arm is
# NAMESPACE/NAME/REVISION, with /FALLBACK where another revision answers what this one's pods do not, and
# a code is HTTP/GRPC/FLAGS/TOOK/SLOT/BY: 503/-/UF/0/-/- is an answer of HTTP that has no status of gRPC and
# that Envoy gave itself, as its flags say; 200/13/-/25/7/REVISION is a failed call of gRPC. TOOK is the
# greatest of the milliseconds of ``TOOK_MS`` that the request took at least: each class costs every
# request a look at the time. SLOT is that of the client, or ``-`` outside a rollout. BY is the revision that
# was last asked.
METRIC_REQUESTS = "envoy_kohort_requests"
LABEL_ARM, LABEL_COHORT, LABEL_CODE = "arm", "cohort", "code"
# Of every gateway, whoever calls it: that it was scraped, and when.
METRIC_UPTIME = "envoy_server_uptime"
TOOK_MS = (0, 1, 2, 4, 8, 15, 25, 45, 80, 150, 270, 500, 1000, 2000, 4000, 10_000)

# What route tables and the gateway's listener call the same thing by: the filters that find a model by
# host, and the header that a model's scope is looked up by, which never leaves the gateway.
FILTERS_HOST = ("kohort.host", "kohort.host.route")
HEADER_SCOPE = "x-kohort-scope"
# Tells one start of a gateway from another, in answers of its status port.
HEADER_PROCESS = "x-kohort-process"

# Mirrored requests, that a gateway lets both revisions answer while a client waits for neither: which
# two clusters a copy is for, which of them a replay is for, what ends their cohort's name.
HEADER_MIRROR = "x-kohort-mirror"
HEADER_CLUSTER = "x-kohort-cluster"
CLUSTER_MIRROR = "kohort.mirror"
MIRROR = "/mirror"
MIRROR_COUNTERS_PATH = "/stats/mirror"
METRIC_MIRRORED = "kohort_gateway_mirrored_requests_total"


# Where a model server tells those inside the cluster, before it is ready too, how far its start is.
START_PATH = f"/{PROTOCOL_SEGMENT}/.well-known/kohort/start"


class Stage(StrEnum):
    """What a model server is doing that may take long, before it is ready."""

    DOWNLOADING = "Downloading"  # the model
    COMPILING = "Compiling"  # engines: it builds, measures and compares them


@dataclass(frozen=True)
class TriedEngine:
    """An engine that a server has tried: what it is, whether its answers are right, how fast they come.

    ``parity``: Same or Differs, as its answers are the model's own or not; empty where it never ran.
    ``max_error``: of the outputs' values, as the comparison bounds it. ``micros``: a run of the smallest
    batch. ``best_rows``: the largest useful batch; ``rows_per_second`` with it. ``size``: bytes of what is
    built. ``build_millis``: 0 where it was found built. ``problem``: why it cannot be taken.
    """

    engine: str
    version: str
    precision: str
    parity: str = ""
    max_error: float = 0.0
    micros: int = 0
    best_rows: int = 0
    rows_per_second: int = 0
    size: int = 0
    build_millis: int = 0
    problem: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class Start:
    """How far a server's start is, and what it has found out about engines.

    ``stage``: of ``Stage``; empty while nothing takes long, and once it is ready. ``detail``: what of it.
    ``seconds_left``: as the pace so far lets expect, if that says anything. ``engines``, ``choice`` (why
    that one) and ``machine``: once an engine is taken that was built.
    """

    stage: str = ""
    detail: str = ""
    percent: int = 0
    seconds_left: float | None = None
    engines: tuple[TriedEngine, ...] = ()
    choice: str = ""
    machine: str = ""


class Outcome(StrEnum):
    """How two answers to one mirrored request compare. Close: other values of no account."""

    SAME = "same"
    CLOSE = "close"
    DIFFERENT = "different"
    CANARY_FAILED = "canary_failed"
    STABLE_FAILED = "stable_failed"
    BOTH_FAILED = "both_failed"
    DROPPED = "dropped"


class FailureReason(StrEnum):
    """Why a model server could not start; told to the operator in its last line of output."""

    MODEL_NOT_FOUND = "ModelNotFound"
    ACCESS_DENIED = "AccessDenied"
    DOWNLOAD_FAILED = "DownloadFailed"
    DIGEST_MISMATCH = "DigestMismatch"
    MODEL_INVALID = "ModelInvalid"
    ENGINE_UNAVAILABLE = "EngineUnavailable"
    WARMUP_FAILED = "WarmupFailed"
    BUILD_FAILED = "BuildFailed"
    PARITY_FAILED = "ParityFailed"
    CACHE_UNUSABLE = "CacheUnusable"


@dataclass(frozen=True)
class Failure:
    """A start that failed: the reason, and a message that says what to do."""

    reason: FailureReason
    message: str

    def line(self) -> str:
        """The one line that a model server prints before it exits with a failure."""
        return json.dumps({"kohortFailure": {"reason": self.reason, "message": self.message}})


def parse_failure(output: str) -> Failure | None:
    """The failure told by the last such line in a container's output, if there is one."""
    for line in reversed(output.splitlines()):
        if '"kohortFailure"' not in line:
            continue
        try:
            told = json.loads(line)["kohortFailure"]
            return Failure(FailureReason(told["reason"]), str(told["message"]))
        except (ValueError, KeyError, TypeError):
            continue
    return None


# OK, NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAUTHENTICATED: a model that works may answer so.
_GRPC_WELL = frozenset({0, 5, 7, 8, 16})


def failed_grpc(status: int) -> bool:
    """Whether a gRPC status counts as failed: by the same measure as the HTTP codes that it stands for.

    CANCELLED and DEADLINE_EXCEEDED are clients that got no answer.
    """
    return status not in _GRPC_WELL


def failed(code: int) -> bool:
    """Whether an answer counts as failed: 5xx and no answer (0), and 4xx unless it is about access or load.

    A concurrent control makes the 4xx of clients that always send nonsense cancel out.
    """
    return code == 0 or code >= 500 or (code >= 400 and code not in (401, 403, 404, 408, 429))
