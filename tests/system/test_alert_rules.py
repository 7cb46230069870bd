"""Prometheus' own tool plays fleets through the alert rules."""

import subprocess
from pathlib import Path

import pytest

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "edgeflock-alerts.yaml"
PLAYED = Path(__file__).with_name("alert_rules.yaml")

pytestmark = pytest.mark.long


def promtool(*words: object) -> str:
    done = subprocess.run(
        ["promtool", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_rules_can_be_loaded() -> None:
    assert "7 rules found" in promtool("check", "rules", RULES)


def test_rules_fire_for_what_they_are_for_and_for_nothing_else(tmp_path: Path) -> None:
    played = tmp_path / "played.yaml"
    played.write_text(PLAYED.read_text().replace("[RULES]", f"[{RULES}]"))
    assert "SUCCESS" in promtool("test", "rules", played)
