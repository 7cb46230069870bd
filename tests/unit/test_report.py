"""What `report.html` must show, for whatever a run was: well-formed pictures, right figures, nothing from outside."""

import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.privacy.adaptive_clip import AdaptiveClip
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.sample_privacy import SamplePrivacy
from tests.support.hidden_devices import hiding_bundle
from workbench.report.history import AccuracyPoint, DeviceRow, RunHistory, Summary
from workbench.report.html import render_report
from workbench.report.labels import bytes_label, duration_label, percent_label
from workbench.report.privacy_told import Told, told_so_far
from workbench.report.svg_plots import (
    HEIGHT,
    WIDTH,
    Axis,
    Bar,
    Point,
    Series,
    bar_plot,
    heat_strip,
    line_plot,
    log_ticks,
    nice_ticks,
)

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
        if "style" not in self.open_tags:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


def pictures(source: str) -> list[ElementTree.Element]:
    """Every inline `<svg>`, parsed as XML."""
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg .*?</svg>", source, flags=re.DOTALL)]


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
def test_every_page_is_closed_html_with_well_formed_pictures_inside_their_frame(run: RunHistory) -> None:
    source = render_report(run)
    page = Page(source)
    assert page.open_tags == []
    assert len(pictures(source)) == page.tags.count("svg")
    for picture in pictures(source):
        assert picture.get("aria-label")
        _, _, width, height = map(float, picture.attrib["viewBox"].split())
        for element in picture.iter():
            for name, limit in (("x", width), ("cx", width), ("y", height), ("cy", height)):
                assert 0 <= float(element.get(name, 0)) <= limit


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_page_loads_nothing_and_runs_no_script(run: RunHistory) -> None:
    source = render_report(run)
    page = Page(source)
    assert page.loaded == ["data:,"]
    assert "script" not in page.tags
    for needle in ("http:", "https:", "url(", "@import", "nan", "inf "):
        assert needle not in source.lower()


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


def test_every_version_has_a_point_with_a_hover_title_in_each_plot() -> None:
    over_time, over_bytes = pictures(render_report(history()))[:2]
    titles = [circle.findtext("title") for circle in over_time.iter("circle")]
    assert titles[-1] == "version 3: 90.0 % after 1 min 30 s and 150 kB"
    assert len(titles) == 4
    # Version 0 cost nothing and has no place on a logarithmic axis.
    assert len(list(over_bytes.iter("circle"))) == 2 * 3


def test_staleness_histogram_shows_every_count_once_and_groups_many_values() -> None:
    bars = [rect.findtext("title") for rect in pictures(render_report(history()))[2].iter("rect")]
    assert bars[0] == "staleness 0: 2 updates (50%)"
    assert len(bars) == 5
    grouped = [rect.findtext("title") or "" for rect in pictures(render_report(RUNS["very stale"]))[2].iter("rect")]
    assert len(grouped) <= 25
    assert sum(int(re.findall(r": (\d+) updates", title)[0]) for title in grouped) == 3


def test_device_table_has_a_row_of_cells_per_device_and_one_for_all() -> None:
    source = render_report(history(versions=300, agents=64))
    assert source.count("<tr>") == 1 + 64 + 1
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
    assert "script" not in page.tags
    assert page.text.count(evil) >= 2
    assert any(evil in (title.text or "") for picture in pictures(source) for title in picture.iter("title"))


@given(
    st.floats(-1e12, 1e12, allow_subnormal=False),
    st.floats(0, 1e12, allow_subnormal=False),
    st.integers(3, 20),
)
def test_nice_ticks_cover_the_range_in_few_even_ascending_steps(low: float, span: float, most: int) -> None:
    high = low + span
    ticks = nice_ticks(low, high, most=most)
    assert 2 <= len(ticks) <= most
    assert ticks[0] <= low
    assert ticks[-1] >= high
    steps = [after - before for before, after in pairwise(ticks)]
    assert min(steps) > 0
    largest = max(abs(tick) for tick in ticks)
    assert all(math.isclose(step, steps[0], rel_tol=1e-6, abs_tol=1e-12 * largest) for step in steps)


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (0, 1, 6, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 57, 8, [0, 10, 20, 30, 40, 50, 60]),
        (0, 0, 6, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-1, 1, 3, [-1, 0, 1]),
    ],
)
def test_nice_ticks_are_the_ones_a_person_would_choose(low: float, high: float, most: int, ticks: list[float]) -> None:
    assert nice_ticks(low, high, most=most) == ticks


@given(st.floats(1e-3, 1e15), st.floats(1, 1e15), st.integers(3, 12))
def test_log_ticks_cover_the_range_and_ascend(low: float, factor: float, most: int) -> None:
    high = low * factor
    ticks = log_ticks(low, high, most=most)
    assert 2 <= len(ticks) <= most
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert all(before < after for before, after in pairwise(ticks))


def test_axes_map_their_ends_and_middle() -> None:
    linear = Axis("", [0.0, 5.0, 10.0], str)
    assert [linear.fraction(value) for value in (0, 2.5, 10)] == [0, 0.25, 1]
    logarithmic = Axis("", [1e3, 1e5], str, logarithmic=True)
    assert [logarithmic.fraction(value) for value in (1e3, 1e4, 1e5)] == pytest.approx([0, 0.5, 1])


def test_line_plot_puts_larger_values_further_right_and_higher() -> None:
    axis = Axis("", [0.0, 1.0], str)
    points = [Point(0, 0, "first"), Point(0.5, 0.5, "second"), Point(1, 1, "third")]
    picture = ElementTree.fromstring(
        line_plot([Series("one", "sent", points)], axis, axis, reference=None, about="test")
    )
    places = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in picture.iter("circle")]
    assert places[0][0] < places[1][0] < places[2][0] < WIDTH
    assert HEIGHT > places[0][1] > places[1][1] > places[2][1]
    assert places[1][0] == pytest.approx((places[0][0] + places[2][0]) / 2, abs=0.11)


def test_bars_are_as_high_as_their_values_and_their_labels_do_not_overlap() -> None:
    bars = [Bar(f"{1000 + index}", index, "bar") for index in range(60)]
    picture = ElementTree.fromstring(bar_plot(bars, Axis("", [0, 100], str), x_label="", about="test"))
    heights = [float(rect.attrib["height"]) for rect in picture.iter("rect")]
    assert heights[0] == 0
    assert heights[50] == pytest.approx(2 * heights[25], abs=0.2)
    labels = [float(text.attrib["x"]) for text in picture.iter("text") if len(text.text or "") == 4]
    gaps = [after - before for before, after in pairwise(labels)]
    assert min(gaps) > len("1059") * 6


def test_heat_cells_tell_none_from_one_of_many() -> None:
    strip = ElementTree.fromstring(heat_strip([0, 1, 500], ["a", "b", "c"], about="test"))
    opacities = [float(rect.attrib["fill-opacity"]) for rect in strip.iter("rect") if rect.get("class") == "heat"]
    assert opacities[0] == 0
    assert opacities[1] >= 0.15
    assert opacities[2] == 1


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
