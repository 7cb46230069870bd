"""What a person sees of a demo: a live table or plain lines, then the result and where it was written."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.live import Live

from fleet_host.new_files import remedy_for
from fleet_protocol.errors import ConfigurationError
from workbench.demo.brokers import free_port
from workbench.demo.children import ChildFailedError
from workbench.demo.demo_kind import PLAIN, DemoKind
from workbench.demo.drawn.picture_folder import PAGE
from workbench.demo.fleet_files import CommandFailedError
from workbench.demo.live_table import progress_line, render_live
from workbench.demo.monitor import Snapshot
from workbench.demo.run import PICTURES, DemoOptions, run_demo
from workbench.demo.run_folder import claimed
from workbench.report.history import RunHistory, Subject, Summary
from workbench.report.html import render_report
from workbench.report.labels import bytes_label
from workbench.report.privacy_told import told_notes

SECONDS_BETWEEN_LINES = 5.0

Show = Callable[[Snapshot], None]


def show_demo(
    agents: int, seed: int, out: Path, broker: str, kind: DemoKind = PLAIN, *, has_dashboard: bool = False
) -> None:
    """Run a demo, show it, and write `summary.json` and `report.html` into `out`; a browser may watch where it
    `has_dashboard`.

    Raises:
        ConfigurationError: with what the user can change, or which program failed, and its last output.
    """
    port = free_port() if has_dashboard else None
    options = DemoOptions(agents, seed, out.resolve(), broker, kind, port)
    with claimed(options.folder):
        pictures = f"Pictures while it runs: {out / PICTURES / PAGE}" if kind.draws else ""
        pages = f"In a browser while it runs: http://127.0.0.1:{port}" if port else ""
        words = (f"edgeflock demo: {agents} agents, seed {seed}, everything in {out}/", kind.subject.source)
        headline = " ".join(filter(None, (*words, pictures, pages)))
        try:
            history = show_run(headline, out, lambda show: run_demo(options, show))
        except (ChildFailedError, CommandFailedError) as error:
            raise ConfigurationError(str(error)) from error
        if history.failure:
            raise ConfigurationError(history.failure)


def show_run(headline: str, out: Path, run: Callable[[Show], Coroutine[None, None, RunHistory]]) -> RunHistory:
    """Run a fleet, show it, and write its `summary.json` and `report.html` into `out`, which exists by then.

    Raises:
        ConfigurationError: they can't be written; the result is shown all the same.
    """
    console = Console()
    console.print(headline, highlight=False, markup=False, soft_wrap=True)
    with _live_view(console) as view:
        history = asyncio.run(run(view.show))
    _print_lines(console, _result_lines(history.summary, history.subject))
    try:
        _write_result(history, out)
    except OSError as error:
        remedy = remedy_for(error, "name another folder with --out")
        raise ConfigurationError(f"{out}: the report can't be written: {error.strerror}; {remedy}") from error
    _print_lines(console, (f"report:  {out / 'report.html'}", f"summary: {out / 'summary.json'}"))
    return history


def _write_result(history: RunHistory, out: Path) -> None:
    (out / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(history.summary), indent=2) + b"\n")
    (out / "report.html").write_text(render_report(history), encoding="utf-8")


class View:
    """Shows snapshots: on a terminal a table that stays in place, elsewhere a line every few seconds."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self._console = console
        self._live = live
        self._broker_said = False
        self._events_said = 0
        self._next_line = 0.0

    def show(self, snapshot: Snapshot) -> None:
        """Show one snapshot."""
        if not self._broker_said:
            self._broker_said = True
            self._say(f"broker: {snapshot.broker}")
        if self._live is not None:
            self._live.update(
                render_live(
                    snapshot.devices,
                    snapshot.accuracy,
                    elapsed_seconds=snapshot.elapsed_seconds,
                    broker=snapshot.broker,
                    central_accuracy=None,
                    events=snapshot.events,
                    drawn=snapshot.drawn,
                    told=snapshot.told,
                ),
                refresh=True,
            )
            return
        for event in snapshot.events[self._events_said :]:
            self._say(event)
        self._events_said = len(snapshot.events)
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            self._say(
                progress_line(
                    snapshot.devices,
                    snapshot.accuracy,
                    elapsed_seconds=snapshot.elapsed_seconds,
                    central_accuracy=None,
                    told=snapshot.told,
                )
            )

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _live_view(console: Console) -> Iterator[View]:
    with contextlib.ExitStack() as stack:
        live = None
        if console.is_terminal and sys.stdout.isatty():
            live = stack.enter_context(Live(console=console, auto_refresh=False))
        yield View(console, live)


def _print_lines(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _result_lines(summary: Summary, subject: Subject) -> Iterator[str]:
    if summary.stopped_early:
        yield "stopped early"
    yield (
        f"accuracy {summary.accuracy:.1%} on {summary.held_out_samples} {subject.samples} that no device has seen"
        f" ({summary.central_accuracy:.1%} if {subject.beside})"
    )
    yield (
        f"{summary.updates_applied} updates made {summary.versions} versions in {summary.wall_seconds:.0f} s;"
        f" lost {summary.updates_lost}, counted twice {summary.updates_duplicated}"
    )
    if summary.rounds:
        rounds = summary.rounds[-1]
        yield (
            f"sent up {summary.message_bytes / 1000:.1f} kB in {summary.updates_applied} messages;"
            f" {rounds.number} rounds of the same layer take {rounds.uplink_bytes / 1000:.1f} kB"
            f" for {rounds.accuracy:.1%}"
        )
    elif summary.uplink_bytes:
        yield (
            f"sent up {summary.uplink_bytes / 1000:.0f} kB,"
            f" {summary.dense_uplink_bytes / summary.uplink_bytes:.0f} times less than whole float32 weights"
        )
    for value, name, note in told_notes(summary.told):
        yield f"{name}: {value} {note}"
    if summary.privacy == "masks":
        yield (
            "nobody has seen an update by itself: versions are sums behind masks, for which helpers sent"
            f" {bytes_label(summary.mask_helper_bytes)} (docs/secure-aggregation.md)"
        )
    if summary.relayed_bytes:
        yield f"through the relay, between weak devices and their helper: {summary.relayed_bytes / 1e6:.1f} MB"
