"""Which model is served, and from where; golden inputs come from places of the same kinds."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from kohort.api.base import SpecStruct, rules

URI_RULES = rules(
    (
        "self.startsWith('file:///') || self.startsWith('http://') || self.startsWith('https://')",
        "uri must start with file:///, http:// or https://",
    ),
    (
        "!self.matches('^https?://([/?#]|$)')",
        "uri must name a host after http:// or https://",
    ),
    (
        "!self.matches('^https?://[^/?#]*@')",
        "uri must not hold a user or password: it is shown in status and events",
    ),
)

Digest = Annotated[
    str,
    Meta(
        pattern=r"^(sha256:[0-9a-f]{64})?$",
        max_length=71,
        description="sha256:… of the file; one with another digest is never used. Required for http(s).",
    ),
]


def digest_rule(what: str) -> tuple[str, str]:
    """Whatever has a uri and a digest needs the latter where others may change the file."""
    return (
        "self.uri.startsWith('file:') || (has(self.digest) && self.digest != '')",
        f"{what} from http(s) can change under you: set digest to sha256:… of the file",
    )


class Model(SpecStruct, frozen=True):
    """The model to serve."""

    uri: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=2048,
            description="Where the model is: file:///PATH (a path inside the pod) or http(s)://…",
            extra_json_schema=URI_RULES,
        ),
    ]
    digest: Digest = ""
