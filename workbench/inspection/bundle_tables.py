"""An inspection as people read it."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleet_protocol.aggregation_plan import SMALLEST_BUFFER
from fleet_protocol.limits import KIB
from fleet_protocol.sample_schema import qualified
from fleet_protocol.split_plan import SplitPlan
from workbench.inspection.bundle_inspection import Inspection
from workbench.inspection.promises import promises


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Everything but the hashes' tails."""
    plan = inspection.training
    console.print(f"[bold]{inspection.task}[/]: {inspection.title}", highlight=False)
    facts = Table.grid(padding=(0, 2))
    frozen = inspection.parameters - inspection.trainable_parameters
    facts.add_row("bundle", f"format {inspection.format}, {inspection.bytes / 1000:.1f} kB, {inspection.bundle_sha256}")
    facts.add_row("parameters", f"{inspection.parameters}" + (f", {frozen} of them buffers" if frozen else ""))
    if inspection.clusters is not None:
        facts.add_row(
            "copies",
            f"for {inspection.clusters.most} clusters, a version has {inspection.version_parameters} parameters",
        )
    if inspection.personal is not None:
        own = f", {inspection.own_parameters} parameters never leave a device" if inspection.own_parameters else ""
        facts.add_row("personal", inspection.personal.method + own)
    if inspection.selection is not None:
        chosen = inspection.selection
        facts.add_row("selection", f"{chosen.method}, {chosen.share:g} of the devices train for a version")
    if inspection.gossip is not None:
        facts.add_row(
            "gossip", f"{inspection.gossip.topology}, {inspection.gossip.rule}; no coordinator makes versions"
        )
    for name, schema in (inspection.inputs or {"": inspection.input}).items():
        kind = "whole numbers" if schema.whole else "float32"
        facts.add_row(
            qualified("input", name), f"{kind} {schema.shape}, each value from {schema.minimum:g} to {schema.maximum:g}"
        )
    for name, label in (inspection.heads or {"": inspection.label}).items():
        facts.add_row(
            qualified("label", name), f"{label.kind}" + (f", {label.outputs} outputs" if label.outputs else "")
        )
    facts.add_row(
        "round",
        f"{plan.steps} steps of {plan.batch_size} samples, {plan.optimiser}, learning rate {plan.learning_rate:g}",
    )
    trial = inspection.trial
    facts.add_row("trial round", f"{_judged(trial.unsteady)}, on {trial.samples}")
    facts.add_row("update", _update(inspection))
    for number, promise in enumerate(promises(inspection.privacy, plan.steps)):
        facts.add_row("" if number else "privacy", promise)
    aggregation = inspection.aggregation
    updates = aggregation.buffer_size or f"a tenth as many as devices take part, at least {SMALLEST_BUFFER},"
    rule = f" by {aggregation.rule.rule}" if aggregation.rule else ""
    if inspection.gossip is None:
        facts.add_row("version", f"{aggregation.strategy}{rule}, {updates} updates each")
    verdict = "every operator" if inspection.runs_on_oldest else "[red]not every operator[/]"
    facts.add_row("runs", f"{verdict} on onnxruntime {inspection.oldest_onnxruntime}, the oldest that is supported")
    if inspection.split is not None:
        facts.add_row("cuts", ", ".join(cut.name for cut in inspection.split.cuts))
    console.print(facts, highlight=False)
    blocks = [_blocks(inspection.split, inspection.block_parameters)] if inspection.split else []
    for table in (*blocks, _files(inspection), _graphs(inspection), _needs(inspection)):
        console.print(table, highlight=False)
    console.print(f"time: {inspection.time_estimate}", f"memory: {inspection.memory_estimate}", sep="\n", style="dim")


def _update(inspection: Inspection) -> str:
    update = inspection.update
    if inspection.privacy is None or (masks := inspection.privacy.masks) is None:
        feedback = f", {update.feedback}" if inspection.gossip is None else ""
        return f"{update.selection} {update.keep_fraction:.3g}, {update.quantisation}{feedback}"
    entries = masks.entries(inspection.trainable_parameters)
    which = masks.position_rule(inspection.trainable_parameters)
    return f"{entries} entries behind masks, {which}, {masks.bits} bits, clip {masks.clip:g}"


def _judged(unsteady: str | None) -> str:
    return "steady" if unsteady is None else f"[red]unsteady[/]: {escape(unsteady)}"


def _blocks(split: SplitPlan, parameters: Sequence[int]) -> Table:
    """What a device or its helper runs, for one sample."""
    table = Table("block", "ends with", "gives", "parameters", "kflop", "working KiB", "is", box=None)
    for number, (block, count) in enumerate(zip(split.blocks, parameters, strict=True)):
        traits = [block.part] * bool(block.part) + ["reads samples"] * (block.reads_inputs or not number)
        traits += ["mixes or numbers samples"] * (not block.rows_are_alone)
        table.add_row(
            str(number),
            escape(block.point) or "the loss",
            "x".join(map(str, block.output_shape)),
            str(count),
            f"{block.forward_flops / 1000:.1f}",
            f"{block.working_bytes / KIB:.1f}",
            ", ".join(traits),
        )
    return table


def _files(inspection: Inspection) -> Table:
    table = Table("file", "bytes", "SHA-256, verified", box=None)
    for file in inspection.files:
        table.add_row(file.name, str(file.bytes), f"{file.sha256[:16]}…")
    return table


def _graphs(inspection: Inspection) -> Table:
    table = Table("graph", "IR", "opset", "operators", "obstacles", box=None)
    for graph in inspection.graphs:
        operators = f"{sum(graph.operators.values())} of {len(graph.operators)} kinds"
        table.add_row(
            graph.name, str(graph.ir_version), str(graph.opset), operators, "; ".join(graph.obstacles) or "none"
        )
    return table


def _needs(inspection: Inspection) -> Table:
    has_backbone = any(need.feature_ms for need in inspection.needs)
    columns = ("profile", "ms a step", "s a round", *(("ms a new sample",) if has_backbone else ()))
    table = Table(*columns, "peak MiB", "limit MiB", "fits", box=None)
    for need in inspection.needs:
        table.add_row(
            need.profile,
            f"~{need.step_ms:.2g}",
            f"~{need.round_seconds:.2g}",
            *((f"~{need.feature_ms:.2g}",) if has_backbone else ()),
            f"{need.peak_memory_mib:.0f}",
            str(need.memory_limit_mib),
            "yes" if need.fits else "[red]no[/]",
        )
    return table
