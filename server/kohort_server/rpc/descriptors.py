"""The schema as serialized file descriptors: what reflection tells, so that tools need no .proto."""

from __future__ import annotations

from functools import cache
from typing import Any

from kohort_server.rpc import protobuf
from kohort_server.rpc.schema import FILES, SCALARS, Field, File, enum_values

# Numbers of descriptor.proto.
OPTIONAL, REPEATED = 1, 3
TYPES = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}
MESSAGE, ENUM = 11, 14


def services() -> list[str]:
    """The full names of all services."""
    return [f"{file.package}.{service}" for file in FILES for service in file.services]


def file_of(symbol: str) -> File | None:
    """The file that has a service, method, message or enum of this full name."""
    for file in FILES:
        if not symbol.startswith(f"{file.package}."):
            continue
        name = symbol[len(file.package) + 1 :]
        methods = {f"{s}.{method.name}" for s, listed in file.services.items() for method in listed}
        if name in file.services or name in methods or name in file.messages or name in file.enums:
            return file
    return None


@cache
def describe(file: File) -> bytes:
    """The file's serialized FileDescriptorProto."""
    return protobuf.encode(
        "google.protobuf.FileDescriptorProto",
        {
            "name": file.name,
            "package": file.package,
            "message_type": [
                describe_message(file, name) for name in file.messages if "." not in name
            ],
            "enum_type": [describe_enum(file, name) for name in file.enums if "." not in name],
            "service": [
                {
                    "name": service,
                    "method": [
                        {
                            "name": method.name,
                            "input_type": f".{file.package}.{method.request}",
                            "output_type": f".{file.package}.{method.response}",
                            "client_streaming": method.client_streams,
                            "server_streaming": method.server_streams,
                        }
                        for method in methods
                    ],
                }
                for service, methods in file.services.items()
            ],
            "syntax": "proto3",
        },
    )


def describe_message(file: File, name: str) -> dict[str, Any]:
    """A message with those inside it."""
    full = f"{file.package}.{name}"
    fields = file.messages[name]
    inside = f"{name}."
    return {
        "name": name.rpartition(".")[2],
        "field": [describe_field(field, full) for field in fields],
        "nested_type": [
            *(describe_entry(field) for field in fields if field.mapped),
            *(describe_message(file, inner) for inner in file.messages if inner.startswith(inside)),
        ],
        "enum_type": [
            describe_enum(file, inner) for inner in file.enums if inner.startswith(inside)
        ],
    }


def describe_field(field: Field, message: str) -> dict[str, Any]:
    """A field of a message of this full name."""
    label = REPEATED if field.repeated or field.mapped else OPTIONAL
    told: dict[str, Any] = {"name": field.name, "number": field.number, "label": label}
    if field.mapped:
        return told | {"type": MESSAGE, "type_name": f".{message}.{entry_name(field)}"}
    if field.kind in SCALARS:
        return told | {"type": TYPES[field.kind]}
    kind = MESSAGE if enum_values(field.kind) is None else ENUM
    return told | {"type": kind, "type_name": f".{field.kind}"}


def describe_entry(field: Field) -> dict[str, Any]:
    """The message that stands for one entry of a map."""
    key = Field(1, "string", "key", repeated=False, mapped=False)
    value = Field(2, field.kind, "value", repeated=False, mapped=False)
    return {
        "name": entry_name(field),
        "field": [describe_field(key, ""), describe_field(value, "")],
        "options": {"map_entry": True},
    }


def entry_name(field: Field) -> str:
    """The name that protoc gives to the entries of a map."""
    return f"{field.name.title().replace('_', '')}Entry"


def describe_enum(file: File, name: str) -> dict[str, Any]:
    """An enum."""
    values = file.enums[name]
    return {
        "name": name.rpartition(".")[2],
        "value": [{"name": value, "number": number} for number, value in enumerate(values)],
    }
