"""What mkdocs is told besides mkdocs.yml: pages that are made from the code."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from kohort_local.reference import PAGES


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the reference."""
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    return files
