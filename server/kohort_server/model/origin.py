"""What a model's file really is, by its content and not its name; nothing is unpickled."""

from __future__ import annotations

import zipfile
from enum import Enum
from pathlib import Path

from kohort.contract import FailureReason
from kohort_server.errors import StartFailure

HEAD = 8  # bytes that tell the formats apart
MAX_ENTRIES = 100_000  # files in an archive
# torch.export writes archives without compression: what unpacks to more than it is was made by somebody else.
ARCHIVE_SLACK = 1 << 20  # bytes

EXPORT_TO_ONNX = (
    "export it with torch.onnx.export(model, args, 'model.onnx', dynamo=True, dynamic_shapes=…), "
    "or with torch.export.export and torch.export.save to a .pt2"
)


class Origin(Enum):
    """The kinds of file that an engine can be built from."""

    ONNX = "ONNX"
    TORCH_EXPORT = "torch.export"


def origin_of(path: Path) -> Origin:
    """What the file is; raises `StartFailure` with ModelInvalid for one that nothing is built from."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise StartFailure(
            FailureReason.MODEL_NOT_FOUND,
            f"{path} cannot be read: {error.strerror}; check the path and its permissions",
        ) from error
    if head.startswith(b"PK\x03\x04"):
        return archive_origin(path)
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            raise invalid(path, what)
    if not head:
        raise invalid(path, "is empty; export the model again")
    return Origin.ONNX


FOREIGN = {
    **{
        # A pickle says its protocol first, and then what it is made of: 2 and 3 have no frame.
        bytes(
            [0x80, protocol]
        ): f"is a pickle, which can run code when it is read; {EXPORT_TO_ONNX}"
        for protocol in (2, 3, 4, 5)
    },
    b"\x89HDF": "is an HDF5 file, as Keras writes; convert it with tf2onnx",
    b"\x1f\x8b": "is compressed with gzip; unpack it",
    b"BZh": "is compressed with bzip2; unpack it",
    b"\xfd7zXZ": "is compressed with xz; unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it",
    b"PK\x05\x06": "is an empty zip archive; export the model again",
    b"<?xml": "is OpenVINO's own format; give the ONNX file that it was made from",
    b"<html": "is a web page; check that the URL is that of the file itself",
    b"<!DOCTYP": "is a web page; check that the URL is that of the file itself",
    b"version ": "is a pointer of Git LFS, not the file itself; run git lfs pull",
}


def archive_origin(path: Path) -> Origin:
    """What a zip archive holds, by the names in it; nothing is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise invalid(path, f"is a broken zip archive ({error}); export the model again") from error
    if len(entries) > MAX_ENTRIES:
        raise invalid(path, f"is a zip archive of {len(entries)} files; export the model again")
    names = {entry.filename.partition("/")[2] for entry in entries}
    if any(name.startswith("models/") and name.endswith(".json") for name in names) or (
        "serialized_exported_program.json" in {entry.filename for entry in entries}
    ):
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > path.stat().st_size + ARCHIVE_SLACK:
            raise invalid(
                path,
                f"unpacks to {unpacked} bytes, more than it is itself, which torch.export.save does "
                "not write; save the program again",
            )
        return Origin.TORCH_EXPORT
    if any(name.startswith("code/") for name in names):
        raise invalid(
            path, f"is a TorchScript program; load it where it was made and {EXPORT_TO_ONNX}"
        )
    if "data.pkl" in names:
        raise invalid(
            path, f"is a pickle by torch.save, which can run code when it is read; {EXPORT_TO_ONNX}"
        )
    raise invalid(path, "is a zip archive; give the model file that is in it")


def invalid(path: Path, what: str) -> StartFailure:
    """The failure of a file that is no model."""
    return StartFailure(FailureReason.MODEL_INVALID, f"{path.name} {what}")
