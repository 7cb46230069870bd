"""A table `[prompts]` in a recipe's task.toml reaches the devices, or is refused with what to change."""

import shutil
from pathlib import Path

import pytest

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.prompt_plan import PromptPlan
from workbench.export.bundle_writer import export_bundle
from workbench.recipe_folder import find_recipe


def recipe(folder: Path, more: str) -> Path:
    shutil.copytree(find_recipe("digits"), folder, ignore=shutil.ignore_patterns("bundle"))
    with (folder / "task.toml").open("a") as file:
        file.write(f"\n{more}\n")
    return folder


def test_table_of_prompts_stands_in_the_bundle(tmp_path):
    more = '[prompts]\nlevel = "moments"\nnames = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]\nrounds = true'
    description = export_bundle(recipe(tmp_path / "recipe", more), tmp_path / "bundle", tell=lambda _: None)
    assert description.prompts == PromptPlan("moments", list("abcdefghij"), rounds=True)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('[prompts]\nnames = ["a"]', "prompts.names has 1 words for 10 classes; write one for each"),
        ('[prompts]\nlevel = "samples"', "level"),
    ],
)
def test_table_that_can_not_be_is_refused_with_what_to_change(tmp_path, more, words):
    with pytest.raises(ConfigurationError, match=words):
        export_bundle(recipe(tmp_path / "recipe", more), tmp_path / "bundle", tell=lambda _: None)
