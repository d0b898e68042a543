"""Models that a whole Kohort takes from a real S3 server, with keys of the tenant's Secret."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from kohort_server.digest import digest_of
from tests.component.test_source_s3 import S3, started
from tests.component.tool_environments import MOTO, environment, python
from tests.e2e.test_engines import told
from tests.e2e.world import Model, in_thread, nobody_noticed

UPLOAD = """
import boto3, sys
endpoint, authority, key, secret, *paths = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", verify=authority,
                  aws_access_key_id=key, aws_secret_access_key=secret)
for path in paths:
    s3.upload_file(path, "plain", path.rsplit("/", 1)[1])
"""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A server that checks who asks."""
    yield from started(tmp_path_factory.mktemp("s3"), free=19)


async def test_keys_that_are_wrong_stop_a_rollout_and_right_ones_let_it_go_on_by_itself(
    model: Model, s3: S3
) -> None:
    paths = [str(path) for path in model.versions.values()]
    python(environment(*MOTO), UPLOAD, s3.endpoint, str(s3.authority), *s3.keys["reader"], *paths)

    def keys_of(user: str) -> dict[str, Any]:
        key, value = s3.keys[user]
        told = {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": value,
            "ca.crt": s3.authority.read_text(),
        }
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"{user}-keys", "namespace": model.namespace},
            "data": {name: base64.b64encode(text.encode()).decode() for name, text in told.items()},
        }

    def source(version: str, user: str) -> dict[str, Any]:
        path = model.versions[version]
        return {
            "uri": f"s3://plain/{path.name}",
            "digest": digest_of(path),
            "secretRef": {"name": f"{user}-keys"},
            "endpoint": s3.endpoint,
        }

    model.kubectl.apply(keys_of("reader"))
    async with model.served("v1", model=source("v1", "reader"), replicas=1) as traffic:
        # A Secret that nobody has made, and then one of somebody who may not read it.
        model.apply("v2", model=source("v2", "stranger"), replicas=1)
        await in_thread("it is told", lambda: told(model)[0] == "AccessDenied")
        assert "the Secret of secretRef is not there" in told(model)[1]
        model.kubectl.apply(keys_of("stranger"))
        await in_thread("it is told", lambda: "access was refused" in told(model)[1])
        assert s3.keys["stranger"][1] not in str(model.status)
        assert model.serves(singles="v1", batchers="v1") or model.status["phase"] != "Healthy"
        # Rotated: nobody touches the ModelDeployment.
        right = {**keys_of("stranger"), "data": keys_of("reader")["data"]}
        model.kubectl.apply(right)
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"), 180)
    nobody_noticed(traffic.account)
    for user in ("reader", "stranger"):
        model.kubectl("delete", "secret", f"{user}-keys", "-n", model.namespace)
