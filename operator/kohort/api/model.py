"""Which model is served, and from where; golden inputs come from places of some of the same kinds."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from kohort.api.base import SecretRef, SpecStruct, rules

MODEL_SCHEMES = ("file:///", "http://", "https://", "s3://", "oci://", "mlflow://")
SAMPLE_SCHEMES = ("file:///", "http://", "https://")


def uri_rules(schemes: tuple[str, ...]) -> dict[str, Any]:
    """What a URI of these schemes must be."""
    *others, last = schemes
    return rules(
        (
            " || ".join(f"self.startsWith('{scheme}')" for scheme in schemes),
            f"uri must start with {', '.join(others)} or {last}",
        ),
        (
            "!self.matches('^https?://([/?#]|$)')",
            "uri must name a host after http:// or https://",
        ),
        (
            "!self.matches('^[a-z0-9]+://[^/?#]*:[^/?#]*@|^https?://[^/?#]*@')",
            "uri must not hold a user or password: it is shown in status and events",
        ),
        *(rule for scheme, rule in FORMS.items() if scheme in schemes),
    )


FORMS = {
    "s3://": (
        "!self.startsWith('s3://') || self.matches('^s3://[a-z0-9][a-z0-9.-]+[a-z0-9]/"
        "([^?#]*|[^?#]*[^?#/][?]versionId=[^&?#]+)$')",
        "an s3 uri must be s3://BUCKET/KEY, s3://BUCKET/KEY?versionId=ID, or s3://BUCKET/PREFIX/ for all "
        "below it",
    ),
    "oci://": (
        "!self.startsWith('oci://') || self.matches('^oci://[A-Za-z0-9.-]+(:[0-9]+)?/[a-z0-9][a-z0-9._/-]*"
        "(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:[0-9a-f]{64})?$')",
        "an oci uri must be oci://HOST/REPOSITORY@sha256:DIGEST, or oci://HOST/REPOSITORY:TAG with digest",
    ),
    "mlflow://": (
        "!self.startsWith('mlflow://') || self.matches('^mlflow://[^/@?#:]+(@[^/@?#:]+|/[0-9]+)?$')",
        "an mlflow uri must be mlflow://NAME/VERSION, or mlflow://NAME@ALIAS with digest",
    ),
}
# What stands for the same content for ever, so that every pod of a revision gets the same.
PINNED = (
    "self.uri.matches('^mlflow://[^/]+/[0-9]+$')",
    "self.uri.startsWith('oci:') && self.uri.contains('@sha256:')",
    "self.uri.startsWith('file:')",
    "self.uri.startsWith('s3:') && self.uri.contains('?versionId=')",
)

Digest = Annotated[
    str,
    Meta(
        pattern=r"^(sha256:[0-9a-f]{64})?$",
        max_length=71,
        description="sha256:… of the file, or of a directory's files as kohort-server fetch prints it; "
        "content with another digest is never used. Required where the uri may stand for another content "
        "tomorrow.",
    ),
]


def digest_rule(what: str) -> tuple[str, str]:
    """Whatever has a uri and a digest needs the latter where others may change the file."""
    told = " || ".join(PINNED)
    return (
        f"{told} || (has(self.digest) && self.digest != '')",
        f"{what} from there can change under you: set digest to sha256:… of it (kohort-server fetch URI "
        "prints it), or name a version of it in uri",
    )


MODEL_RULES = (
    digest_rule("a model"),
    (
        "!has(self.secretRef) || !self.uri.startsWith('file:')",
        "secretRef is for models that are fetched: a file:///… is in the pod already",
    ),
    (
        "!has(self.endpoint) || self.endpoint == '' || self.uri.startsWith('s3:') || "
        "self.uri.startsWith('oci:') || self.uri.startsWith('mlflow:')",
        "endpoint is for s3://, oci:// and mlflow://: leave it out",
    ),
    (
        "!has(self.region) || self.region == '' || self.uri.startsWith('s3:') || "
        "self.uri.startsWith('mlflow:')",
        "region is for s3://, and for mlflow:// with files there: leave it out",
    ),
)


class Model(SpecStruct, frozen=True):
    """The model to serve."""

    uri: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=2048,
            description="Where the model is: file:///PATH (a path inside the pod), http(s)://…, "
            "s3://BUCKET/KEY, s3://BUCKET/PREFIX/, oci://HOST/REPOSITORY, mlflow://NAME/VERSION.",
            extra_json_schema=uri_rules(MODEL_SCHEMES),
        ),
    ]
    digest: Digest = ""
    secret_ref: Annotated[
        SecretRef | None,
        Meta(
            description="Credentials for the uri, by key. http(s): token, or username and password. s3: "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN. oci: .dockerconfigjson, or "
            "username and password. mlflow: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD; those of s3 where its files are there. ca.crt where certificates are "
            "of one's own authority. The pods read it, the operator "
            "never does; ones that are rotated are used without a new revision."
        ),
    ] = None
    endpoint: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[^/?#@]+(/[^?#@]*)?)?$",
            max_length=1024,
            description="The service that is spoken to, such as https://minio.storage:9000; without it "
            "Amazon's, or https on the host of an oci uri. For mlflow its tracking server, which must be "
            "told.",
        ),
    ] = ""
    region: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9-]*$",
            max_length=64,
            description="Of the bucket; without it us-east-1, or what AWS_REGION says.",
        ),
    ] = ""
