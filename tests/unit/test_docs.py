"""Files and modules that the documents name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "models/*/README.md", "systemd/**/*", "docker/**/*")
    for path in ROOT.glob(pattern)
    if path.is_file()
)
MADE = {"build", "dist", "demo-run"}
"""Folders that commands make, and the documents name."""
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")} - MADE
PATH = re.compile(r"(?<![\w/.~-])([a-z_]+/[\w./-]*\w/?)")
MODULE = re.compile(r"(?<![\w/.-])([a-z_]+(?:\.[a-z_]\w*)+)")
PLACEHOLDER = re.compile(r"^[A-Z]+(?:_[A-Z]+)+$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#:]+)[^)]*\)")


def is_module(name: str) -> bool:
    """Whether it is a module, or an attribute of one."""
    path = ROOT.joinpath(*name.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    module = path.parent / "__init__.py" if path.parent.is_dir() else path.parent.with_suffix(".py")
    return module.is_file() and re.search(rf"\b{path.name}\b", module.read_text()) is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_names_exists(document):
    text = document.read_text()
    paths = {name for name in PATH.findall(text) if name.split("/")[0] in FOLDERS}
    modules = {name for name in MODULE.findall(text) if name.split(".")[0] in FOLDERS and "/" not in name}
    links = {name for name in LINK.findall(text) if document.suffix == ".md"}
    lacking = [name for name in paths if not (ROOT / name).exists()]
    lacking += [name for name in modules if not is_module(name)]
    lacking += [name for name in links if not (document.parent / name).exists()]
    assert lacking == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_document_waits_for_its_figures(document):
    assert PLACEHOLDER.findall(document.read_text()) == []


TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
CONSTANT = re.compile(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`")
PACKAGES = (
    "fleet_protocol",
    "secure_aggregation",
    "fleet_host",
    "bundle_runtime",
    "edge_agent",
    "broker_coordinator",
    "session_relay",
    "prompt_synthesis",
)


def test_tests_and_limits_that_the_threat_model_names_exist():
    text = (ROOT / "docs" / "threat-model.md").read_text()
    lacking = [
        f"{file}::{test}"
        for file, test in TEST.findall(text)
        if not re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE)
    ]
    code = "\n".join(path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    lacking += [name for name in set(CONSTANT.findall(text)) if not re.search(rf"^{name}\b.* = ", code, re.MULTILINE)]
    assert lacking == []
    assert len(TEST.findall(text)) > 20
