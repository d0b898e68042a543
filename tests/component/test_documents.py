"""Every ModelDeployment that documents and examples show is one that a real API server takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.component.other_crds import install_crds

ROOT = Path(__file__).parents[2]
YAML_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)

# How blocks begin that are no objects: the chart's values, which test_chart.py tries, and gates, which
# test_gates_command.py does.
VALUES = "# my-values.yaml\n"
GATES = "# gates.yaml\n"


def shown() -> Iterator[tuple[str, str]]:
    """Where it stands, and the YAML."""
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        yield path.name, path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for number, block in enumerate(YAML_BLOCK.findall(path.read_text()), start=1):
            if not block.startswith((VALUES, GATES)):
                yield f"{path.name}, block {number}", block


SHOWN = dict(shown())


@pytest.mark.parametrize("place", SHOWN)
def test_what_documents_show_is_accepted(kubectl: Callable[..., str], place: str) -> None:
    kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    kubectl("wait", "--for=condition=Established", "crd/modeldeployments.kohort.dev")
    install_crds(kubectl)
    created = kubectl(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=SHOWN[place]
    )
    assert "created" in created
