"""`edgeflock demo --speech` from end to end, with a bundle that is small enough to export in a test."""

from pathlib import Path

from tests.support.random_features import export_random_features
from workbench.data.digits import split_digits
from workbench.demo.demo_kind import DemoKind
from workbench.demo.run import DemoOptions, run_demo
from workbench.report.history import Subject
from workbench.report.html import render_report

MEANS = 'solver = "means"\nprecision = "float16"'
AGENTS = 5
"""With two in a version: one waits for another at the end."""


async def test_fleet_that_speaks_once_ends_with_a_version_of_all_and_is_shown_beside_rounds(tmp_path: Path) -> None:
    export_random_features(tmp_path, solved_head=MEANS)
    kind = DemoKind(
        "digits",
        split_digits,
        new_samples=None,
        sensing_seconds=2.0,
        longest_seconds=90.0,
        subject=Subject("tell spoken words apart", "recordings", "The words were said by a machine."),
        bundle=str(tmp_path / "bundle"),
    )
    (tmp_path / "run").mkdir()
    history = await run_demo(DemoOptions(AGENTS, 1, tmp_path / "run", "mosquitto", kind), lambda _: None)
    summary = history.summary
    assert (summary.updates_lost, summary.updates_duplicated, summary.updates_buffered) == (0, 0, 0), summary
    assert {device.applied > 0 for device in history.devices} == {True}
    assert summary.accuracy > 0.6
    assert [point.number for point in summary.rounds] == list(range(1, 21))
    assert 0 < summary.message_bytes < summary.rounds[-1].uplink_bytes
    page = render_report(history)
    for words in ("One message beside rounds", "to tell spoken words apart", "said by a machine", "<td>20 rounds</td>"):
        assert words in page
