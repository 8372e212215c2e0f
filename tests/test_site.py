"""The documentation as a site: it builds without a warning, needs no network, and has every exported name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import nogs

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LOADED = re.compile(r"""<(?:script|img|iframe|source|link)[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
"""Elements whose file a browser fetches from another host."""


def test_the_api_page_has_every_exported_name_once() -> None:
    named = re.findall(r"^::: nogs\.(?:data\.load\.)?(\w+)$", (DOCS / "api.md").read_text(), flags=re.MULTILINE)
    assert sorted(named) == sorted(nogs.__all__)


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_the_network(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not LOADED.findall(text), page
        assert "class=mermaid" not in text.replace('"', "")  # its script would come from elsewhere
