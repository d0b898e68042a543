"""Why pods do not become ready, told so that somebody can act on it."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import structs

from kohort.contract import Failure, FailureReason
from kohort.observe.capacity import capacity, endpoints, serving
from kohort.observe.objects import Deployment, Pod, parse_pod
from kohort.plan.world import Problem
from kohort.route.table import Endpoint


def pod(
    *,
    conditions: list[dict[str, str]] | None = None,
    state: dict[str, object] | None = None,
    last_state: dict[str, object] | None = None,
    init: bool = False,
    started: bool = False,
    metadata: dict[str, object] | None = None,
    spec: dict[str, object] | None = None,
) -> Pod:
    """A pod as the API server would tell of it."""
    container = {
        "name": "server",
        "image": "kohort/server:1",
        "restartCount": 1 if last_state else 0,
        "started": started,
        "state": state or {},
        "lastState": last_state or {},
    }
    return parse_pod(
        msgspec.json.encode(
            {
                "metadata": {
                    "name": "burger-1-abc",
                    "namespace": "shop",
                    "uid": "u",
                    "resourceVersion": "7",
                    "labels": {"kohort.dev/model": "burger", "kohort.dev/revision": "burger-1"},
                    **(metadata or {}),
                },
                "spec": spec or {},
                "status": {
                    "podIP": "127.64.0.9",
                    "conditions": conditions or [],
                    "initContainerStatuses" if init else "containerStatuses": [container],
                },
            }
        )
    )


def ended(code: int = 1, message: str = "", reason: str = "Error") -> dict[str, object]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


def reason(found: Pod) -> str:
    return found.problem.reason if found.problem else ""


READY = [{"type": "Ready", "status": "True"}]
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}


def test_a_pod_that_simply_starts_has_no_problem() -> None:
    assert pod(state={"running": {}}).problem is None


def test_what_the_server_said_before_it_exited_is_the_reason() -> None:
    failure = Failure(FailureReason.DIGEST_MISMATCH, "wanted sha256:a, got sha256:b; check digest")
    output = f"loading\n{failure.line()}"
    for found in (pod(state=ended(message=output)), pod(last_state=ended(message=output))):
        assert found.problem == Problem("DigestMismatch", failure.message)


@pytest.mark.parametrize("waiting", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_one_reason_and_names_the_image(waiting: str) -> None:
    found = pod(state={"waiting": {"reason": waiting, "message": "no"}})
    assert reason(found) == "ErrImagePull"
    assert found.problem is not None
    assert "kohort/server:1" in found.problem.message


def test_a_crash_tells_its_exit_code_and_how_to_read_more() -> None:
    found = pod(
        state={"waiting": {"reason": "CrashLoopBackOff"}},
        last_state=ended(code=3, message="Traceback: boom"),
    )
    assert found.problem is not None
    assert found.problem.reason == "CrashLoopBackOff"
    assert "code 3" in found.problem.message
    assert "boom" in found.problem.message
    assert "kubectl logs burger-1-abc -c server --previous" in found.problem.message


def test_a_container_that_was_killed_is_told_by_the_signal() -> None:
    found = pod(last_state=ended(code=137))
    assert found.problem is not None
    assert "container server was killed by SIGKILL" in found.problem.message


def test_last_words_begin_with_a_whole_word() -> None:
    found = pod(last_state=ended(code=2, message="unfortunately " * 40 + "no"))
    assert found.problem is not None
    assert "its last words: … unfortunately" in found.problem.message
    assert "unfortunately no; see kubectl logs" in found.problem.message


def test_an_init_container_that_crashes_is_told_as_well() -> None:
    assert reason(pod(state=ended(code=3), init=True)) == "CrashLoopBackOff"


def test_memory_that_ran_out_says_which_limit_to_raise() -> None:
    assert reason(pod(last_state=ended(code=137, reason="OOMKilled"))) == "OOMKilled"


def test_a_missing_gpu_is_told_apart_from_a_full_cluster() -> None:
    gpu = {**UNSCHEDULABLE, "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}
    full = {**UNSCHEDULABLE, "message": "0/3 nodes are available: 3 Insufficient cpu."}
    assert reason(pod(conditions=[gpu])) == "WaitingForGPU"
    assert reason(pod(conditions=[full])) == "Unschedulable"


def gpu_pod(
    message: str, *products: str, resource: str = "nvidia.com/gpu", claims: bool = False
) -> Pod:
    """A pod that no node takes, with the scheduler's words."""
    wanted = {"key": "nvidia.com/gpu.product", "operator": "In", "values": list(products)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [wanted]}]}
    node = {"requiredDuringSchedulingIgnoredDuringExecution": terms} if products else {}
    claim = {"name": "gpu", "resourceClaimTemplateName": "half-a-gpu"}
    return pod(
        conditions=[{**UNSCHEDULABLE, "message": message}],
        spec={
            "affinity": {"nodeAffinity": node},
            "containers": [
                {"name": "server", "resources": {"limits": {resource: "2", "memory": "1Gi"}}},
                {"name": "sidecar", "resources": {}},
            ],
            "resourceClaims": [claim] if claims else [],
        },
    )


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (
            gpu_pod(
                "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match Pod's"
                " node affinity/selector. preemption: 0/3 nodes are available: 3 No preemption.",
                "NVIDIA-L4",
            ),
            "no node has 2 nvidia.com/gpu free of product NVIDIA-L4: 0/3 nodes are available:"
            " 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match Pod's node affinity/selector.",
        ),
        (
            gpu_pod(
                "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
                "NVIDIA-L4",
                "NVIDIA-A10",
            ),
            "no node has a GPU of product NVIDIA-L4 or NVIDIA-A10:"
            " 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ),
        (
            gpu_pod(
                "0/1 nodes are available: 1 Insufficient nvidia.com/mig-1g.10gb.",
                resource="nvidia.com/mig-1g.10gb",
            ),
            "no node has 2 nvidia.com/mig-1g.10gb free:"
            " 0/1 nodes are available: 1 Insufficient nvidia.com/mig-1g.10gb.",
        ),
        (
            gpu_pod("0/1 nodes are available: 1 cannot allocate all claims.", claims=True),
            "no node has the devices of claim template half-a-gpu:"
            " 0/1 nodes are available: 1 cannot allocate all claims.",
        ),
    ],
)
def test_the_wait_for_a_gpu_says_how_many_of_what_and_why_each_node_has_none(
    found: Pod, told: str
) -> None:
    assert found.problem == Problem("WaitingForGPU", told)


def test_a_node_with_the_right_gpu_that_lacks_memory_is_no_wait_for_a_gpu() -> None:
    message = (
        "0/2 nodes are available: 1 Insufficient memory, 1 node(s) didn't match Pod's node"
        " affinity/selector."
    )
    assert reason(gpu_pod(message, "NVIDIA-L4")) == "Unschedulable"


def test_a_ready_pod_has_no_problem_whatever_happened_before() -> None:
    found = pod(conditions=READY, last_state=ended(code=3))
    assert found.ready
    assert found.problem is None


def test_a_pod_that_is_being_deleted_is_neither_ready_capacity_nor_an_endpoint() -> None:
    ready = pod(conditions=READY)
    leaving = pod(
        conditions=READY, metadata={"name": "b", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    )
    deployment = Deployment(
        "shop", "burger-1", "u", "burger", 2, "", 1, "burger-1", "", False, None, 1
    )
    (found,) = capacity({"burger-1": deployment}, [ready, leaving]).values()
    assert (found.wanted, found.ready, found.pods) == (2, 1, 2)
    assert endpoints([ready, leaving], ["burger-1", "burger-2"]) == {
        "burger-1": (Endpoint("127.64.0.9", 8080),),
        "burger-2": (),
    }


def test_pods_on_their_way_out_are_endpoints_while_there_is_no_other() -> None:
    leaving = pod(conditions=READY, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    gone = pod(conditions=[], metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert endpoints([leaving, gone], ["burger-1"]) == {"burger-1": (Endpoint("127.64.0.9", 8080),)}
    assert serving([leaving, gone]) == frozenset()


CUT_OFF = [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "False"}]


def test_pods_of_a_node_that_is_out_of_touch_are_endpoints_while_there_is_no_other() -> None:
    """So Kubernetes leaves them when nodes could not reach the API server; clients can all the same."""
    cut_off = pod(conditions=CUT_OFF)
    assert endpoints([cut_off], ["burger-1"]) == {"burger-1": (Endpoint("127.64.0.9", 8080),)}
    assert serving([cut_off]) == frozenset()
    other = structs.replace(pod(conditions=READY), address="127.64.0.8")
    assert endpoints([cut_off, other], ["burger-1"]) == {
        "burger-1": (Endpoint("127.64.0.8", 8080),)
    }


def test_pods_that_came_up_and_are_too_slow_to_say_so_are_endpoints_while_there_is_no_other() -> (
    None
):
    slow = pod(conditions=[], started=True)
    assert endpoints([slow], ["burger-1"]) == {"burger-1": (Endpoint("127.64.0.9", 8080),)}
    assert serving([slow]) == frozenset()
    for conditions in (READY, CUT_OFF):
        other = structs.replace(pod(conditions=conditions), address="127.64.0.8")
        assert endpoints([slow, other], ["burger-1"]) == {
            "burger-1": (Endpoint("127.64.0.8", 8080),)
        }


@pytest.mark.parametrize(
    ("conditions", "spec"),
    [
        ([], {}),
        (CUT_OFF[1:], {}),
        (CUT_OFF, {"readinessGates": [{"conditionType": "example.com/in-the-balancer"}]}),
    ],
)
def test_pods_that_are_not_ready_for_reasons_of_their_own_get_no_client(
    conditions: list[dict[str, str]], spec: dict[str, object]
) -> None:
    started = "readinessGates" in spec
    found = pod(conditions=conditions, spec=spec, started=started)
    assert endpoints([found], ["burger-1"]) == {"burger-1": ()}


def test_a_deployment_on_its_way_out_is_no_capacity() -> None:
    deployment = Deployment(
        "shop", "burger-1", "u", "burger", 2, "", 1, "burger-1", "", True, None, 1
    )
    assert capacity({"burger-1": deployment}, []) == {}
