"""What Kohort makes for a revision."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kohort.act.manifests import (
    Owner,
    Scale,
    applied_annotation,
    deployment,
    pod_template,
    record,
    template_of,
)
from kohort.api.spec import Spec
from kohort.contract import LABEL_MODEL, LABEL_REVISION
from kohort_server.building import GoldenFile, Request
from kohort_server.gates.parity import Limits
from kohort_server.main import options_of, parse

OWNER = Owner("shop", "burger", "uid-1")


def spec(**fields: Any) -> Spec:
    return msgspec.convert({"model": {"uri": "file:///m.onnx"}, **fields}, Spec)


def server(template: dict[str, Any]) -> dict[str, Any]:
    (found,) = (c for c in template["spec"]["containers"] if c["name"] == "server")
    return dict(found)


def test_the_server_understands_what_the_engine_shall_be() -> None:
    digest = "sha256:" + "0" * 64
    parity = {
        "golden": {"uri": "https://h/golden.npz", "digest": digest},
        "tolerance": "0.5%",
        "agreement": "99%",
    }
    engine = {"type": "OpenVINO", "precision": "BF16", "parity": parity}
    asked = spec(engine={**engine, "onUnsupported": "Fallback"})
    args = server(pod_template(OWNER, "burger-1", asked, "image:1"))["args"]
    told = options_of(parse([*args, "--threads=2"])).engine
    golden = GoldenFile("https://h/golden.npz", digest)
    assert told == Request("OpenVINO", "BF16", 2, golden, Limits(0.005, None, 0.99), True)


def test_a_plain_engine_is_asked_for_with_what_any_server_knows() -> None:
    args = server(pod_template(OWNER, "burger-1", spec(), "image:1"))["args"]
    assert [one for one in args if "golden" in one or "fallback" in one or "tolerance" in one] == []


def test_the_server_is_told_what_to_serve_and_where_to_listen() -> None:
    digest = "sha256:" + "0" * 64
    template = pod_template(
        OWNER, "burger-1", spec(model={"uri": "https://h/m.onnx", "digest": digest}), "image:1"
    )
    args = server(template)["args"]
    assert args[:2] == ["serve", "https://h/m.onnx"]
    assert f"--digest={digest}" in args
    assert "--revision=burger-1" in args
    assert "--host=$(POD_IP)" in args


def test_the_server_reads_the_secret_that_the_operator_only_names() -> None:
    model = {
        "uri": "s3://models/m.onnx?versionId=7",
        "secretRef": {"name": "reader"},
        "endpoint": "http://minio:9000",
        "region": "eu-west-1",
    }
    template = pod_template(OWNER, "burger-1", spec(model=model), "image:1")
    told = options_of(parse([*server(template)["args"], "--threads=2"])).model
    assert (told.uri, told.endpoint, told.region) == (
        model["uri"],
        model["endpoint"],
        model["region"],
    )
    mounts = {one["name"]: one["mountPath"] for one in server(template)["volumeMounts"]}
    assert str(told.credentials.directory) == mounts["model-credentials"]
    volumes = {one["name"]: one for one in template["spec"]["volumes"]}
    assert volumes["model-credentials"]["secret"] == {"secretName": "reader", "optional": True}


def test_a_model_without_a_digest_is_not_given_one() -> None:
    args = server(pod_template(OWNER, "burger-1", spec(), "image:1"))["args"]
    assert not any(arg.startswith("--digest") for arg in args)


def test_pods_are_allowed_in_a_restricted_namespace() -> None:
    template = pod_template(OWNER, "burger-1", spec(), "image:1")
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    assert template["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = server(template)["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_gpus_are_asked_for_with_their_product_and_their_taint_tolerated() -> None:
    gpu = {"count": 2, "products": ["NVIDIA-L4", "NVIDIA-A10"]}
    template = pod_template(OWNER, "burger-1", spec(gpu=gpu), "image:1")
    assert server(template)["resources"] == {"limits": {"nvidia.com/gpu": 2}}
    required = template["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    (term,) = required["nodeSelectorTerms"]
    (expression,) = term["matchExpressions"]
    assert expression["values"] == ["NVIDIA-L4", "NVIDIA-A10"]
    assert template["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_a_claim_template_takes_the_place_of_a_resource() -> None:
    template = pod_template(OWNER, "burger-1", spec(gpu={"claimTemplate": "half-a-gpu"}), "image:1")
    assert template["spec"]["resourceClaims"] == [
        {"name": "gpu", "resourceClaimTemplateName": "half-a-gpu"}
    ]
    assert server(template)["resources"] == {"claims": [{"name": "gpu"}]}


def test_a_mig_profile_is_a_resource_like_another() -> None:
    gpu = {"resource": "nvidia.com/mig-1g.10gb"}
    template = pod_template(OWNER, "burger-1", spec(gpu=gpu), "image:1")
    assert server(template)["resources"] == {"limits": {"nvidia.com/mig-1g.10gb": 1}}


def test_the_overlay_wins_but_never_over_the_labels_that_select_pods() -> None:
    overlay = {
        "metadata": {"labels": {LABEL_REVISION: "other", "team": "fries"}},
        "spec": {"containers": [{"name": "server", "image": "mine"}]},
    }
    template = pod_template(OWNER, "burger-1", spec(template=overlay), "image:1")
    labels = template["metadata"]["labels"]
    assert labels[LABEL_REVISION] == "burger-1"
    assert labels["team"] == "fries"
    assert server(template)["image"] == "mine"
    selector = deployment(OWNER, "burger-1", Scale(1), template, 1)["spec"]["selector"][
        "matchLabels"
    ]
    assert selector.items() <= labels.items()
    assert selector == {LABEL_MODEL: "burger", LABEL_REVISION: "burger-1"}


def test_a_deployment_comes_from_its_record_whatever_the_operator_would_make_today() -> None:
    recorded = record(OWNER, "burger-1", 1, spec(), {"model": {}}, "image:1")
    manifest = deployment(OWNER, "burger-1", Scale(2), template_of(recorded["data"]), 1)
    assert server(manifest["spec"]["template"])["image"] == "image:1"
    assert recorded["data"]["image"] == "image:1"


def test_a_rollout_of_pods_never_has_fewer_than_wanted_if_there_is_room_for_more() -> None:
    strategy = deployment(OWNER, "burger-1", Scale(4), {}, 1)["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": "25%"}
    strategy = deployment(OWNER, "burger-1", Scale(4, spare=False), {}, 1)["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": "25%", "maxSurge": 0}


def test_everything_goes_with_the_model_that_it_belongs_to() -> None:
    for manifest in (
        deployment(OWNER, "burger-1", Scale(1), {}, 1),
        record(OWNER, "burger-1", 1, spec(), {}, "image:1"),
    ):
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert owner["uid"] == "uid-1"
        assert owner["controller"] is True


SCALES = st.builds(Scale, st.integers(1, 1000), st.sampled_from(["", "2026-01-31T12:00:00.000Z"]))


@given(SCALES, st.integers(1, 1000), SCALES, st.integers(1, 1000))
def test_a_deployment_is_as_applied_while_its_scale_and_its_generation_are(
    scale: Scale, generation: int, other_scale: Scale, other_generation: int
) -> None:
    one = applied_annotation(OWNER, "burger-1", scale, generation)
    other = applied_annotation(OWNER, "burger-1", other_scale, other_generation)
    assert (one == other) == ((scale, generation) == (other_scale, other_generation))


def test_fresh_pods_are_had_by_an_annotation_of_the_template_and_nothing_else() -> None:
    template = pod_template(OWNER, "burger-1", spec(), "image:1")
    before = deployment(OWNER, "burger-1", Scale(1), template, 1)["spec"]["template"]
    assert before == template
    after = deployment(OWNER, "burger-1", Scale(1, "2026-01-31T12:00:00.000Z"), template, 1)
    annotations = after["spec"]["template"]["metadata"].pop("annotations")
    assert annotations == {"kohort.dev/restarted-at": "2026-01-31T12:00:00.000Z"}
    assert after["spec"]["template"] == template


def test_metadata_of_another_type_are_left_for_the_api_server_to_refuse() -> None:
    for wrong in ("x", [1], {"labels": "x"}, {"labels": [1]}):
        template = pod_template(OWNER, "burger-1", spec(template={"metadata": wrong}), "image:1")
        assert template["metadata"] == wrong
