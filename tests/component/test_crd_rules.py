"""What a real API server accepts, fills in and refuses, and with which advice."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.component import analysis_specs

CRD = Path(__file__).parents[2] / "crds" / "kohort.dev_modeldeployments.yaml"
Kubectl = Callable[..., str]
Spec = dict[str, Any]

MATCH = [{"headers": [{"name": "x-org", "value": "acme"}]}]
EVERYONE = analysis_specs.EVERYONE


@pytest.fixture(scope="module")
def api(kubectl: Kubectl) -> Kubectl:
    """kubectl on a cluster that knows ModelDeployments."""
    kubectl("apply", "--server-side", "-f", str(CRD))
    kubectl("wait", "--for=condition=Established", "crd/modeldeployments.kohort.dev")
    return kubectl


def manifest(name: str = "burger", **spec: Any) -> str:
    """A ModelDeployment; ``spec`` is laid over the shortest one."""
    return msgspec.json.encode(
        {
            "apiVersion": "kohort.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"model": {"uri": "file:///m.onnx"}, **spec},
        }
    ).decode()


def create(api: Kubectl, text: str) -> dict[str, Any]:
    """The object as the server would store it."""
    arguments = ("create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-")
    created: dict[str, Any] = msgspec.json.decode(api(*arguments, stdin=text))
    return created


def refusal(api: Kubectl, text: str) -> str:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        create(api, text)
    return str(refused.value.stderr)


def cohort(name: str, **fields: Any) -> Spec:
    return {"name": name, "match": MATCH, **fields}


def through(**fields: Any) -> Spec:
    """A spec whose clients come through a gateway of the Gateway API."""
    gateway = {"parentRefs": [{"name": "public"}], **fields}
    return {"route": {"type": "GatewayAPI", "gatewayAPI": gateway}}


def test_five_lines_are_a_complete_model_deployment(api: Kubectl) -> None:
    created = create(api, manifest())
    (everyone,) = created["spec"]["cohorts"]
    assert everyone["name"] == "everyone"
    assert [step["weight"] for step in everyone["steps"]] == [5, 25, 50]
    assert created["spec"]["engine"] == {
        "type": "ONNXRuntime",
        "precision": "FP32",
        "onUnsupported": "Fail",
    }
    assert created["spec"]["analysis"]["metrics"] == [
        {"name": name, "role": "Guardrail", "minClients": 0} for name in ("errors", "latency")
    ]
    assert created["status"] == {"observedGeneration": -1, "phase": "Pending"}


ACCEPTED: dict[str, Spec] = {
    **analysis_specs.ACCEPTED,
    "a step that passes by what would have been seen": {
        "cohorts": [{**EVERYONE, "steps": [{"weight": 1, "until": "Pass", "hold": "5m"}]}]
    },
    "metrics with margins, roles and clients of their own": {
        "analysis": {
            "metrics": [
                {"name": "errors", "role": "Goal", "margin": "0.5%", "minClients": 20},
                {"name": "latency", "margin": "25%"},
            ]
        }
    },
    "cohorts that wait for earlier ones": {
        "cohorts": [cohort("staff"), {**EVERYONE, "after": ["staff"]}]
    },
    "a header with several values": {
        "cohorts": [
            cohort("shops", match=[{"headers": [{"name": "x-region", "values": ["es", "fr"]}]}]),
            EVERYONE,
        ]
    },
    "a model over https with its digest": {
        "model": {"uri": "https://h/m.onnx", "digest": "sha256:" + "0" * 64}
    },
    "an artefact by the digest of its manifest": {
        "model": {
            "uri": "oci://registry:5000/models/burger:7@sha256:" + "0" * 64,
            "secretRef": {"name": "reader"},
            "endpoint": "http://registry:5000",
        }
    },
    "a version of a registered model": {
        "model": {"uri": "mlflow://burger/7", "endpoint": "https://mlflow.tools:5000"}
    },
    "an alias with what it stands for": {
        "model": {"uri": "mlflow://burger@champion", "digest": "sha256:" + "0" * 64}
    },
    "a model from S3 as it was once": {"model": {"uri": "s3://models/m.onnx?versionId=7"}},
    "all below a prefix, with keys, from a service of one's own": {
        "model": {
            "uri": "s3://models/burger/7/",
            "digest": "sha256:" + "0" * 64,
            "secretRef": {"name": "reader"},
            "endpoint": "https://minio.storage:9000",
            "region": "eu-west-1",
        }
    },
    "an overlay with whatever Kubernetes knows": {
        "template": {"spec": {"nodeSelector": {"a": "b"}, "containers": [{"name": "server"}]}}
    },
    "steps that stay at a weight": {
        "cohorts": [{**EVERYONE, "steps": [{"weight": 5, "hold": "1m"}, {"weight": 5}]}]
    },
    "a step that waits for a person before any client has the revision": {
        "cohorts": [
            {
                **EVERYONE,
                "steps": [{"weight": 0, "pause": {}}, {"weight": 5, "until": "NonInferior"}],
            }
        ]
    },
    "a hold without clients": {"cohorts": [{**EVERYONE, "steps": [{"weight": 0, "hold": "1m"}]}]},
    "answers that are compared before any client has the revision": {
        "cohorts": [{**EVERYONE, "steps": [{"weight": 0, "mirror": {"percent": 10}, "hold": "5m"}]}]
    },
    "a metric that is only watched": {
        "analysis": {"metrics": [{"name": "errors"}, {"name": "latency", "role": "Watched"}]}
    },
    "a few clients that are held back": {
        "cohorts": [
            {
                **EVERYONE,
                "steps": [{"weight": 90, "hold": "1m"}],
                "holdback": {"weight": 10, "for": "24h"},
            }
        ]
    },
    "a holdback after the default steps": {
        "cohorts": [{**EVERYONE, "holdback": {"weight": 50, "for": "1h"}}]
    },
    "all go back together, and a longer way back": {
        "onFailure": "RollBackAll",
        "keepWarm": "1h",
        "historyLimit": 20,
    },
    "a preview for whoever sends a header": {"preview": {"header": "x-preview"}},
    "a preview through a gateway of one's own": {
        **through(),
        "preview": {"header": "x-preview", "value": "yes"},
    },
    "an engine with samples and thresholds of one's own": {
        "engine": {
            "type": "Auto",
            "precision": "FP16",
            "parity": {
                "golden": {"uri": "https://h/golden.npz", "digest": "sha256:" + "0" * 64},
                "tolerance": "0.5%",
                "cosine": "99.995%",
                "agreement": "100%",
            },
        }
    },
    "an engine with samples in the pod": {
        "engine": {"type": "OpenVINO", "parity": {"golden": {"uri": "file:///golden.npz"}}}
    },
    "an engine that may be replaced": {"engine": {"type": "OpenVINO", "onUnsupported": "Fallback"}},
    "gpus": {"gpu": {"count": 2, "products": ["NVIDIA-L4"]}},
    "a gateway of one's own": through(hostnames=["a.example.com"], grpcHostnames=["b.example.com"]),
    "two listeners of a gateway": through(
        parentRefs=[
            {"name": "public", "sectionName": "http"},
            {"name": "public", "sectionName": "https"},
            {"name": "public", "namespace": "infra"},
        ]
    ),
    "gpus that are swapped": {"replicas": 4, "gpu": {"capacity": "Swap"}},
    "a claim template": {"gpu": {"claimTemplate": "half-a-gpu"}},
}


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_this_is_accepted(api: Kubectl, spec: Spec) -> None:
    create(api, manifest(**spec))


REFUSED: dict[str, tuple[Spec, str]] = {
    "a claim template beside a number of GPUs": (
        {"gpu": {"claimTemplate": "half-a-gpu", "count": 2}},
        "with claimTemplate, the ResourceClaimTemplate says which devices and how many",
    ),
    "a claim template beside products": (
        {"gpu": {"claimTemplate": "half-a-gpu", "products": ["NVIDIA-L4"]}},
        "with claimTemplate, the ResourceClaimTemplate says which devices and how many",
    ),
    "a gateway that is not named": (
        {"route": {"type": "GatewayAPI"}},
        "set gatewayAPI with type GatewayAPI",
    ),
    "a gateway that is named and not used": (
        {"route": {"gatewayAPI": {"parentRefs": [{"name": "public"}]}}},
        "set gatewayAPI with type GatewayAPI",
    ),
    "a listener that is named twice": (
        through(parentRefs=[{"name": "a", "sectionName": "x"}, {"name": "a", "sectionName": "x"}]),
        "names a listener twice",
    ),
    "a gateway and one of its listeners": (
        through(parentRefs=[{"name": "a"}, {"name": "a", "sectionName": "x"}]),
        "set sectionName in each",
    ),
    "a host for HTTP and gRPC": (
        through(hostnames=["a.example.com"], grpcHostnames=["a.example.com"]),
        "give gRPC hosts of its own",
    ),
    "a host that is none": (through(hostnames=["A:80"]), "spec.route.gatewayAPI.hostnames[0]"),
    "a proof without counters": (
        {
            **through(),
            "cohorts": [{**EVERYONE, "steps": [{"weight": 5, "until": "NonInferior"}]}],
        },
        "until needs counters",
    ),
    "an object that may be another tomorrow": (
        {"model": {"uri": "s3://models/m.onnx"}},
        "a model from there can change under you: set digest to sha256:… of it",
    ),
    "a version of all below a prefix": (
        {"model": {"uri": "s3://models/burger/?versionId=7"}},
        "an s3 uri must be s3://BUCKET/KEY",
    ),
    "a bucket alone": (
        {"model": {"uri": "s3://models", "digest": "sha256:" + "0" * 64}},
        "an s3 uri must be s3://BUCKET/KEY",
    ),
    "keys in an s3 uri": (
        {"model": {"uri": "s3://key:secret@models/m.onnx?versionId=7"}},
        "uri must not hold a user or password",
    ),
    "a Secret for a file in the pod": (
        {"model": {"uri": "file:///m.onnx", "secretRef": {"name": "reader"}}},
        "secretRef is for models that are fetched",
    ),
    "a tag, which may be moved": (
        {"model": {"uri": "oci://registry:5000/models/burger:7"}},
        "a model from there can change under you",
    ),
    "a registry without a repository": (
        {"model": {"uri": "oci://registry:5000", "digest": "sha256:" + "0" * 64}},
        "an oci uri must be oci://HOST/REPOSITORY@sha256:DIGEST",
    ),
    "an endpoint of a web server": (
        {"model": {"uri": "https://h/m", "digest": "sha256:" + "0" * 64, "endpoint": "http://x"}},
        "endpoint is for s3://, oci:// and mlflow://",
    ),
    "an alias, which may be moved": (
        {"model": {"uri": "mlflow://burger@champion", "endpoint": "https://mlflow"}},
        "a model from there can change under you",
    ),
    "the newest version": (
        {"model": {"uri": "mlflow://burger", "endpoint": "https://mlflow"}},
        "a model from there can change under you",
    ),
    "a version that is no number": (
        {"model": {"uri": "mlflow://burger/latest"}},
        "an mlflow uri must be mlflow://NAME/VERSION",
    ),
    "a region of a web server": (
        {"model": {"uri": "https://h/m", "digest": "sha256:" + "0" * 64, "region": "eu"}},
        "region is for s3://, and for",
    ),
    "an endpoint with a password": (
        {"model": {"uri": "s3://b-1/m?versionId=7", "endpoint": "https://a:b@h"}},
        "spec.model.endpoint",
    ),
    "a scheme that nothing can fetch": (
        {"model": {"uri": "ftp://h/m.onnx"}},
        "uri must start with file:///, http://, https://, s3://, oci:// or mlflow://",
    ),
    "a password where everybody can read it": (
        {"model": {"uri": "https://me:secret@h/m.onnx", "digest": "sha256:" + "0" * 64}},
        "uri must not hold a user or password",
    ),
    "a network address without a host": (
        {"model": {"uri": "https:///m.onnx", "digest": "sha256:" + "0" * 64}},
        "uri must name a host after http:// or https://",
    ),
    "a model from the network without its digest": (
        {"model": {"uri": "https://h/m.onnx"}},
        "a model from there can change under you: set digest",
    ),
    "a digest that is none": (
        {"model": {"uri": "file:///m.onnx", "digest": "sha256:12"}},
        "spec.model.digest",
    ),
    "an engine that is unknown": (
        {"engine": {"type": "Magic"}},
        'supported values: "Auto", "ONNXRuntime", "OpenVINO"',
    ),
    "a precision that the engine does not have": (
        {"engine": {"precision": "BF16"}},
        "set type to OpenVINO or Auto with another one",
    ),
    "a comparison of a model with itself": (
        {"engine": {"parity": {"tolerance": "1%"}}},
        "there is nothing to compare: leave out parity",
    ),
    "samples from the network without their digest": (
        {"engine": {"type": "Auto", "parity": {"golden": {"uri": "https://h/golden.npz"}}}},
        "a file of samples from there can change under you: set digest",
    ),
    "samples of a scheme that nothing can fetch": (
        {"engine": {"type": "Auto", "parity": {"golden": {"uri": "s3://h/golden.npz"}}}},
        "uri must start with file:///, http:// or https://",
    ),
    **{
        f"a {name} that is none": (
            {"engine": {"type": "Auto", "parity": {name: "0.5"}}},
            f"spec.engine.parity.{name}",
        )
        for name in ("tolerance", "cosine", "agreement")
    },
    **{
        f"a {name} of more than all": (
            {"engine": {"type": "Auto", "parity": {name: "101%"}}},
            f"{name} must be at most 100%",
        )
        for name in ("tolerance", "cosine", "agreement")
    },
    "a fallback to what is asked for already": (
        {"engine": {"onUnsupported": "Fallback"}},
        "onUnsupported: Fallback is for type OpenVINO",
    ),
    "a fallback that Auto does by itself": (
        {"engine": {"type": "Auto", "onUnsupported": "Fallback"}},
        "onUnsupported: Fallback is for type OpenVINO",
    ),
    "no replicas": ({"replicas": 0}, "spec.replicas"),
    "a duration that is none": ({"progressDeadline": "ten minutes"}, "spec.progressDeadline"),
    "two cohorts of one name": (
        {"cohorts": [cohort("a"), cohort("a"), EVERYONE]},
        "Duplicate value",
    ),
    "a last cohort that does not take everybody": (
        {"cohorts": [cohort("a")]},
        "the catch-all cohort must be last",
    ),
    "a catch-all cohort before others": (
        {"cohorts": [EVERYONE, {"name": "rest"}]},
        "only the last cohort may be without match",
    ),
    "after a cohort that does not exist": (
        {"cohorts": [cohort("a", after=["b"]), EVERYONE]},
        "after may only name cohorts that stand earlier in the list",
    ),
    "after itself": (
        {"cohorts": [cohort("a", after=["a"]), EVERYONE]},
        "after may only name cohorts that stand earlier in the list",
    ),
    "a cycle": (
        {"cohorts": [cohort("a", after=["everyone"]), {**EVERYONE, "after": ["a"]}]},
        "after may only name cohorts that stand earlier in the list",
    ),
    "weights that fall": (
        {"cohorts": [{**EVERYONE, "steps": [{"weight": 25}, {"weight": 5}]}]},
        "step weights must not fall",
    ),
    "a weight above everything": (
        {"cohorts": [{**EVERYONE, "steps": [{"weight": 101}]}]},
        "should be less than or equal to 100",
    ),
    "hold and until in one step": (
        {"cohorts": [{**EVERYONE, "steps": [{"weight": 5, "hold": "1m", "until": "NonInferior"}]}]},
        "set one of hold, until and pause",
    ),
    "hold and pause in one step": (
        {"cohorts": [{**EVERYONE, "steps": [{"weight": 5, "hold": "1m", "pause": {}}]}]},
        "set one of hold, until and pause",
    ),
    "a mirror for a revision that has clients": (
        {
            "cohorts": [
                {**EVERYONE, "steps": [{"weight": 5, "mirror": {"percent": 10}, "hold": "5m"}]}
            ]
        },
        "mirror belongs to a step of weight 0",
    ),
    "metrics of which none decides": (
        {"analysis": {"metrics": [{"name": "errors", "role": "Watched"}]}},
        "every metric is Watched, and none decides",
    ),
    "a proof of what is only watched": (
        {
            "analysis": {"metrics": [{"name": "errors", "role": "Watched"}, {"name": "latency"}]},
            "cohorts": [{**EVERYONE, "steps": [{"weight": 5, "until": "NonInferior"}]}],
        },
        "add it to analysis.metrics, but not as Watched",
    ),
    "a holdback of clients that have the revision already": (
        {
            "cohorts": [
                {
                    **EVERYONE,
                    "steps": [{"weight": 91, "hold": "1m"}],
                    "holdback": {"weight": 10, "for": "24h"},
                }
            ]
        },
        "holdback keeps more clients on the former revision than the last step does",
    ),
    "a holdback of most clients": (
        {"cohorts": [{**EVERYONE, "holdback": {"weight": 51, "for": "24h"}}]},
        "should be less than or equal to 50",
    ),
    "a holdback for no time": (
        {"cohorts": [{**EVERYONE, "holdback": {"weight": 5}}]},
        "holdback.for: Required value",
    ),
    "a holdback that nobody compares": (
        {**through(), "cohorts": [{**EVERYONE, "holdback": {"weight": 5, "for": "24h"}}]},
        "leave out holdback",
    ),
    "a mirror that nobody reads": (
        {
            **through(),
            "cohorts": [
                {**EVERYONE, "steps": [{"weight": 0, "mirror": {"percent": 1}, "hold": "5m"}]}
            ],
        },
        "Kohort can compare mirrored answers only in its own gateways",
    ),
    "a step in which nothing happens": (
        {"cohorts": [{**EVERYONE, "steps": [{"weight": 0}]}]},
        "a step of weight 0 needs hold or pause",
    ),
    "a proof without clients": (
        {"cohorts": [{**EVERYONE, "steps": [{"weight": 0, "until": "NonInferior"}]}]},
        "use until: NonInferior at weights from 4 to 96",
    ),
    "a history that nobody can go back in": ({"historyLimit": 0}, "spec.historyLimit"),
    "evidence that nothing can be compared for": (
        {"cohorts": [{**EVERYONE, "steps": [{"weight": 100, "until": "NonInferior"}]}]},
        "use until: NonInferior at weights from 4 to 96",
    ),
    "evidence of too few slots": (
        {"cohorts": [{**EVERYONE, "steps": [{"weight": 3, "until": "NonInferior"}]}]},
        "use until: NonInferior at weights from 4 to 96",
    ),
    "a match without a value": (
        {"cohorts": [cohort("a", match=[{"headers": [{"name": "x-org"}]}]), EVERYONE]},
        "set either value or values",
    ),
    "a match on what the gateway writes": (
        {
            "cohorts": [
                cohort("a", match=[{"headers": [{"name": "x-kohort-cohort", "value": "a"}]}]),
                EVERYONE,
            ]
        },
        "headers that start with x-kohort- are written by the gateway",
    ),
    "a client key that the gateway writes": (
        {"clientKey": {"header": "x-kohort-revision"}},
        "headers that start with x-kohort- are written by the gateway",
    ),
    "a preview by what the gateway writes": (
        {"preview": {"header": "x-kohort-preview"}},
        "headers that start with x-kohort- are written by the gateway",
    ),
    "a preview for every client": (
        {"preview": {"header": "x-client-id"}},
        "preview.header is clientKey.header",
    ),
    "a preview for a whole cohort": (
        {"cohorts": [cohort("a"), EVERYONE], "preview": {"header": "x-org", "value": "me"}},
        "preview.header is a header that a cohort matches on",
    ),
    "a preview that the Gateway API has no words for": (
        {**through(), "preview": {"header": "x-preview"}},
        "set preview.value",
    ),
    "a cohort's name that is no label": (
        {"cohorts": [{"name": "Everyone"}]},
        "spec.cohorts[0].name",
    ),
    **analysis_specs.REFUSED,
    "an unknown field": ({"replcas": 2}, 'unknown field "spec.replcas"'),
    "an unknown field deep inside": (
        {"cohorts": [{**EVERYONE, "steps": [{"wait": 5, "weight": 5}]}]},
        'unknown field "spec.cohorts[0].steps[0].wait"',
    ),
}


@pytest.mark.parametrize(("spec", "advice"), REFUSED.values(), ids=REFUSED.keys())
def test_this_is_refused_with_advice(api: Kubectl, spec: Spec, advice: str) -> None:
    assert advice in refusal(api, manifest(**spec))


@pytest.mark.parametrize("name", ["a" * 41, "a" * 64, "1burger", "burger.v2"])
def test_a_name_that_leaves_no_room_for_suffixes_is_refused(api: Kubectl, name: str) -> None:
    assert "metadata.name must have at most 40 characters" in refusal(api, manifest(name))


def test_a_name_of_forty_characters_is_accepted(api: Kubectl) -> None:
    create(api, manifest("a" * 40))


def test_an_unknown_field_is_dropped_where_nobody_asks_for_strictness(api: Kubectl) -> None:
    text = manifest(replcas=2)
    arguments = ("create", "--dry-run=server", "--validate=ignore", "-o", "json", "-f", "-")
    assert "replcas" not in msgspec.json.decode(api(*arguments, stdin=text))["spec"]


def test_people_find_it_by_short_name_category_and_explanation(api: Kubectl) -> None:
    api("apply", "-f", "-", stdin=manifest("columns"))
    head = api("get", "mdep", "columns").splitlines()[0].split()
    assert head == ["NAME", "READY", "PHASE", "STABLE", "CANARY", "WEIGHT", "STEP", "AGE"]
    assert "columns" in api("get", "kohort")
    assert "Weights in rising order" in api("explain", "mdep.spec.cohorts.steps")
    api("scale", "mdep/columns", "--replicas=3")
    assert api("get", "mdep", "columns", "-o", "jsonpath={.spec.replicas}") == "3"
    api("delete", "mdep", "columns")


def test_the_way_to_a_model_is_not_changed_under_its_clients(api: Kubectl) -> None:
    api("apply", "-f", "-", stdin=manifest("lasting"))
    try:
        api("apply", "-f", "-", stdin=manifest("lasting", replicas=2))
        with pytest.raises(subprocess.CalledProcessError) as refused:
            api("apply", "-f", "-", stdin=manifest("lasting", **through()))
        assert "route.type cannot be changed while clients are served" in refused.value.stderr
    finally:
        api("delete", "mdep", "lasting")
