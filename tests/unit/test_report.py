"""What `report.html` must show, for whatever a run was: charts with their data, right figures, nothing from outside."""

import json
import re
from html import escape
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from fleet_protocol.privacy.adaptive_clip import AdaptiveClip
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.sample_privacy import SamplePrivacy
from tests.support.hidden_devices import hiding_bundle
from workbench.report.history import AccuracyPoint, DeviceRow, RunHistory, Summary
from workbench.report.html import render_report
from workbench.report.labels import bytes_label, duration_label, percent_label
from workbench.report.page import whole_page
from workbench.report.plots import Axis, Line, Reference, line_chart, strip
from workbench.report.privacy_told import Told, told_so_far

VOID_TAGS = {"meta", "link"}
LOADING_ATTRIBUTES = {"src", "href", "xlink:href", "data", "action", "srcset", "poster"}

SUMMARY = Summary(
    accuracy=0.9642,
    central_accuracy=0.9721,
    averaged_versions=6,
    newest_version_accuracy=0.9612,
    updates_applied=312,
    updates_lost=0,
    updates_duplicated=0,
    uplink_bytes=155_000,
    dense_uplink_bytes=6_540_000,
    versions=3,
    median_staleness=1.0,
    wall_seconds=103.0,
    broker="mosquitto 127.0.0.1:1883",
    agents=8,
    seed=7,
    stopped_early=False,
    downlink_bytes=1_843_221,
    updates_rejected=4,
    updates_pending=2,
    updates_buffered=1,
    held_out_samples=359,
    parameters=9_610,
)
NO_VERSIONS = msgspec.structs.replace(
    SUMMARY,
    versions=0,
    updates_applied=0,
    median_staleness=None,
    uplink_bytes=0,
    dense_uplink_bytes=0,
    stopped_early=True,
)


def device(number: int, *, name: str | None = None, staleness: float | None = 1.25) -> DeviceRow:
    return DeviceRow(
        name=name or f"pi-{number:02}",
        state="sleeping",
        version=3,
        staleness=staleness,
        applied=39,
        buffered=1,
        uplink_bytes=19_400,
        samples=180,
        samples_expected=181,
        samples_per_second=2.4,
        label_counts=[number % 3, 0, 90, 0, 0, 0, 0, 0, 0, 3],
    )


def history(*, summary: Summary = SUMMARY, versions: int = 3, agents: int = 8) -> RunHistory:
    accuracy = [
        AccuracyPoint(float(version * 30), version, min(0.9, 0.3 * version), version * 50_000, version * 2_000_000)
        for version in range(versions + 1)
    ]
    return RunHistory(
        summary=summary,
        accuracy=accuracy if versions else [],
        staleness=[0, 0, 1, 4] if versions else [],
        devices=[device(number) for number in range(agents)],
    )


class Page(HTMLParser):
    """Keeps the text that a reader sees and every attribute that could load something; demands closed tags."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.loaded: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in LOADING_ATTRIBUTES]
        if tag not in VOID_TAGS:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open_tags):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


def charts(source: str) -> list[dict[str, Any]]:
    """The data of every chart."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', source, flags=re.DOTALL)
    return [json.loads(each) for each in found]


RUNS = {
    "finished": history(),
    "stopped before the first version": history(summary=NO_VERSIONS, versions=0),
    "stopped before any device reported": RunHistory(NO_VERSIONS, [], [], []),
    "only the untrained version": RunHistory(NO_VERSIONS, [AccuracyPoint(0.0, 0, 0.1, 0, 0)], [], [device(1)]),
    "one point": RunHistory(SUMMARY, [AccuracyPoint(4.0, 1, 0.2, 900, 40_000)], [0], [device(1)]),
    "one device": history(summary=msgspec.structs.replace(SUMMARY, agents=1), agents=1),
    "64 devices": history(versions=300, agents=64),
    "very stale": RunHistory(SUMMARY, history().accuracy, [0, 1, 3000], [device(1, staleness=None)]),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_every_page_is_closed_html_with_a_table_for_each_chart(run: RunHistory) -> None:
    source = render_report(run)
    page = Page(source)
    assert page.open_tags == []
    assert page.tags.count("details") == len(charts(source))
    for chart in charts(source):
        for line in chart["lines"]:
            assert len(line["values"]) == len(chart["places"])


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_page_loads_nothing_and_runs_no_script_of_anybody_else(run: RunHistory) -> None:
    source = render_report(run)
    page = Page(source)
    assert page.loaded == ["data:,"]
    assert page.tags.count("script") == 2 + len(charts(source))
    assert "default-src 'none'" in source
    content = re.sub(r"<(style|script)>.*?</\1>|<script type=.module.>.*?</script>", "", source, flags=re.DOTALL)
    for needle in ("http:", "https:", "url(", "@import", "nan", "inf "):
        assert needle not in content.lower()


def test_headline_says_the_result_in_one_sentence() -> None:
    headline = "8 devices learned to read handwritten digits: 96.4 % right, without any of their samples leaving them"
    assert headline in Page(render_report(history())).text


def test_headline_of_a_stopped_run_claims_nothing_it_did_not_reach() -> None:
    text = Page(render_report(RUNS["stopped before the first version"])).text
    assert "8 devices started, but the run ended before" in text
    assert "stopped early" in text
    assert "% right" not in text
    assert "Nothing to show" in text


def test_key_figures_appear() -> None:
    text = Page(render_report(history())).text
    for figure in (
        "97.2 % if all samples were pooled",
        "42x",
        "155 kB instead of 6.54 MB",
        "0 / 0",
        "312 applied, 1 waiting for a version, 4 rejected, 2 still safe",
        "3 versions",
        "median staleness of an update: 1",
        "1 min 43 s",
        "mosquitto 127.0.0.1:1883",
        "1.84 MB",
        "Seed 7.",
    ):
        assert figure in text


@pytest.mark.parametrize(("lost", "duplicated", "style"), [(0, 0, "good"), (1, 0, "bad"), (0, 2, "bad")])
def test_lost_and_duplicated_updates_do_not_look_fine(lost: int, duplicated: int, style: str) -> None:
    summary = msgspec.structs.replace(SUMMARY, updates_lost=lost, updates_duplicated=duplicated)
    assert f'<dd class="value {style}">{lost} / {duplicated}</dd>' in render_report(history(summary=summary))


def test_every_version_has_a_point_in_each_chart() -> None:
    over_time, over_bytes = charts(render_report(history()))[:2]
    assert over_time["places"] == [0.0, 30.0, 60.0, 90.0]
    assert over_time["lines"][0]["values"] == [0.0, 0.3, 0.6, pytest.approx(0.9)]
    reference = over_time["lines"][1]
    assert reference.pop("label") == "if all samples were pooled on one computer: 97.2 %"
    assert reference == {"values": [0.9721] * 4, "dashed": True, "reference": True}
    # Version 0 cost nothing and has no place on a logarithmic axis.
    sent, dense = over_bytes["lines"]
    assert over_bytes["places"] == [50_000, 100_000, 150_000, 2_000_000, 4_000_000, 6_000_000]
    assert [value is None for value in sent["values"]] == [False] * 3 + [True] * 3
    assert [value is None for value in dense["values"]] == [True] * 3 + [False] * 3


def test_staleness_histogram_shows_every_count_once_and_groups_many_values() -> None:
    bars = charts(render_report(history()))[2]
    assert bars["shape"]["places"] == ["0", "1", "2", "3", "4"]
    assert bars["lines"][0]["values"] == [2, 1, 0, 0, 1]
    grouped = charts(render_report(RUNS["very stale"]))[2]
    assert len(grouped["shape"]["places"]) <= 25
    assert sum(grouped["lines"][0]["values"]) == 3


def test_device_table_has_a_row_of_cells_per_device_and_one_for_all() -> None:
    source = render_report(history(versions=300, agents=64))
    assert len(re.findall(r"pi-\d+, digit 2: ", source)) == 64
    assert "pi-63, digit 2: 90 samples" in source
    assert f"all together, digit 2: {64 * 90:,} samples" in source


def test_page_says_what_happened_to_the_fleet_and_nothing_where_nothing_did() -> None:
    eventful = msgspec.structs.replace(history(), events=["34 s: zero-1 stands still", "49 s: <b> & zero-1 goes on"])
    page = render_report(eventful)
    assert "<li>34 s: zero-1 stands still</li>" in page
    assert "<li>49 s: &lt;b&gt; &amp; zero-1 goes on</li>" in page
    assert "What happened to it" not in render_report(history())


def test_names_from_outside_are_escaped() -> None:
    evil = "<script>alert('1')</script>&\""
    run = RunHistory(msgspec.structs.replace(SUMMARY, broker=evil), history().accuracy, [0], [device(1, name=evil)])
    source = render_report(run)
    page = Page(source)
    assert page.tags.count("script") == 2 + 3
    assert page.text.count(evil) >= 2
    assert f"{escape(evil)}, digit 2: 90 samples" in source


def test_strip_tells_none_from_one_of_many() -> None:
    cells = re.findall(r"<i .*?</i>", strip([0, 1, 500], ["a", "b", "c"], "test"))
    opacities = [[float(found) for found in re.findall(r"opacity:([0-9.]+)", cell)] for cell in cells]
    assert opacities == [[], [pytest.approx(0.15, abs=0.01)], [1.0]]


def test_lines_over_unlike_places_share_them_and_leave_gaps() -> None:
    lines = [Line("one", [(3.0, 0.3), (1.0, 0.1)]), Line("two", [(2.0, 0.2)])]
    source = line_chart(
        "both", lines, Axis("bytes", "bytes", logarithmic=True), Axis("right", "percent"), Reference(0.5, "best")
    )
    (chart,) = charts(source)
    assert chart["places"] == [1.0, 2.0, 3.0]
    assert [line["values"] for line in chart["lines"]] == [[0.1, None, 0.3], [None, 0.2, None], [0.5] * 3]
    assert chart["shape"]["x"] == {"label": "bytes", "unit": "bytes", "log": True, "begins": None}
    assert "<tr><td>2 B</td><td></td><td>20.0 %</td><td>50.0 %</td></tr>" in source


def test_what_stands_in_a_chart_ends_no_script() -> None:
    evil = "</script><script>alert(1)</script>"
    source = line_chart(evil, [Line(evil, [(1.0, 1.0)])], Axis(evil), Axis("y"))
    page = Page(source)
    assert page.tags.count("script") == 1
    (chart,) = charts(source)
    assert chart["title"] == chart["lines"][0]["label"] == chart["shape"]["x"]["label"] == evil


def test_chart_of_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        line_chart("broken", [Line("one", [(1.0, float("nan"))])], Axis("x"), Axis("y"))


def test_page_has_no_line_left_that_joins_modules() -> None:
    (module,) = re.findall(r'<script type="module">(.*?)</script>', whole_page("t", ""), flags=re.DOTALL)
    assert not re.search(r"^(import|export)\b", module, flags=re.MULTILINE)
    declared = re.findall(r"^(?:const|function|class) (\w+)", module, flags=re.MULTILINE)
    assert len(declared) == len(set(declared)) > 5


def test_labels_read_like_a_person_writes() -> None:
    assert percent_label(0.9642) == "96.4 %"
    assert [bytes_label(count) for count in (0, 999, 1_000, 12_345, 999_600, 10**7, 2 * 10**15)] == [
        "0 B",
        "999 B",
        "1 kB",
        "12.3 kB",
        "1 MB",
        "10 MB",
        "2e+03 TB",
    ]
    assert [duration_label(seconds) for seconds in (0.4, 59.7, 103, 7500)] == [
        "0 s",
        "1 min 00 s",
        "1 min 43 s",
        "2 h 05 min",
    ]


def test_what_was_told_of_samples_and_of_devices_is_shown_with_what_is_planned_and_left():
    told = [Told("sample", 1.234, 8.0, 1e-5), Told("device", 3.5, 4.0, 1e-6, versions_left=17)]
    page = render_report(RunHistory(msgspec.structs.replace(SUMMARY, told=told), [], [], []))
    assert "epsilon 1.23" in page
    assert "told of a single sample" in page
    assert "epsilon 3.5" in page
    assert "told of a single device" in page
    assert "4 is planned, at delta 1e-06, and 17 versions are left" in page
    assert "epsilon" not in render_report(RunHistory(SUMMARY, [], [], []))


def test_clip_that_follows_norms_is_shown_as_it_is_by_now(tmp_path):
    adaptive = {"buffer_size": 4, "epsilon": 100.0, "adaptive_clip": AdaptiveClip(at_most=2.0)}
    task = hiding_bundle(tmp_path, **adaptive).description
    for kept, clip in ((None, "0.5"), (0.8765, "0.876")):
        told = told_so_far(task, rounds=1, versions=1, clip=kept)
        page = render_report(RunHistory(msgspec.structs.replace(SUMMARY, told=told), [], [], []))
        assert f"updates are clipped at {clip} by now" in page


def test_masks_say_what_nobody_has_seen_and_what_helpers_sent_for_it():
    summary = msgspec.structs.replace(SUMMARY, privacy="masks", mask_helper_bytes=78_200)
    page = render_report(RunHistory(summary, [], [], []))
    assert "seen by itself" in page
    assert "mask helpers sent 78.2 kB" in page


@pytest.mark.parametrize("rounds", [0, 10, 10_000])
def test_no_more_is_told_of_a_sample_than_devices_allow(tmp_path, rounds):
    bundle = hiding_bundle(tmp_path)
    samples = SamplePrivacy(epsilon=8.0, noise_multiplier=2.0)
    task = msgspec.structs.replace(bundle.description, privacy=PrivacyPlan(samples=samples))
    (found,) = told_so_far(task, rounds=rounds, versions=3, clip=None)
    steps = task.training.steps
    most = samples.most_steps() // steps
    assert samples.epsilon_after(most * steps) <= 8.0 < samples.epsilon_after((most + 1) * steps)
    assert found.epsilon == (samples.epsilon_after(min(rounds, most) * steps) if rounds else 0.0)
    (devices,) = told_so_far(bundle.description, rounds=rounds, versions=2, clip=None)
    assert devices.versions_left == 4
    assert devices.clip is None
    assert 0 < devices.epsilon < devices.planned
