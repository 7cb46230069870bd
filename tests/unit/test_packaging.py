"""Every package that the wheel has is wherever else packages are listed by hand."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
PACKAGES = PROJECT["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_wheel_has_every_package_of_the_tree():
    # Recipes and tests are no part of it; what is measured is measured in a checkout.
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks", "tests"}
    assert sorted(PACKAGES) == sorted(found)


def test_images_are_built_with_every_package_and_every_folder_that_the_wheel_includes():
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    included = {path.partition("/")[0] for path in PROJECT["hatch"]["build"]["targets"]["wheel"]["force-include"]}
    assert [
        name for name in (*PACKAGES, *included, "pyproject.toml", "README.md", "LICENSE") if f"!{name}" not in sent
    ] == []
    assert sent[1] == "*", "and with nothing else"


def test_contracts_and_types_are_checked_in_every_package():
    assert PROJECT["importlinter"]["root_packages"] == PACKAGES
    assert [package for package in PACKAGES if package not in PROJECT["mypy"]["packages"]] == []
