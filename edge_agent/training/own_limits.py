"""A round within a device's own limits: none on samples that are spent, and nothing sent that makes others worse. Pure.

The training worker runs it on a device, the simulator in its own process.
"""

import contextlib
from dataclasses import replace

import msgspec

from edge_agent.core.sample_budget import carried_epochs, epochs_of_steps, is_spent, steps_of_round
from edge_agent.training.client_drift.steering import FleetMovement, Steering
from edge_agent.training.engine import OnProgress, TrainingEngine, ignore_progress
from edge_agent.training.feature_statistics import measure_features
from edge_agent.training.personal.own_model import kept_or_anew, own_copy, own_parameters, steps_on
from edge_agent.training.posterior.local import Predict
from edge_agent.training.posterior.round import find_factor
from edge_agent.training.prompts import tell_prompts
from edge_agent.training.round import DivergedError, Earlier, OtherUnitsError, finish_round, learn
from edge_agent.training.sending import why_irrelevant, why_no_better
from edge_agent.training.statistics import measure
from edge_agent.training.stored_samples import StoredSamples
from edge_agent.training.validation import Evaluate, is_worse, rise
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.codec import with_own, with_shared_only
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.split_placement import held_of
from fleet_protocol.split_plan import WHOLE, Cut
from fleet_protocol.task_description import TaskDescription


def take_part(
    engine: TrainingEngine,
    weights: FloatVector,
    stored: StoredSamples,
    task: TaskDescription,
    earlier: Earlier,
    *,
    evaluate: Evaluate,
    predict: Predict,
    on_progress: OnProgress = ignore_progress,
    cut: Cut = WHOLE,
) -> TrainingResult | Withheld:
    """Train from `weights` f32[P] on the samples that are not kept for validation; with a `cut`, only the device's
    blocks, as `engine` then does. Or measure the samples, while the task awaits its scale, or where its head is solved;
    or tell prompts of them, where the task asks for some that were not told yet.

    What earlier rounds left behind stays as it is where nothing is sent. `weights` are a version's: what the device
    keeps to itself takes its place in them. Of a task with `[posterior]` they are f32[P + H], with precisions.

    Raises:
        DivergedError: loss or weights are no longer finite, or changed by more than the task takes.
        EngineError, GraphError: bundle and samples contradict each other.
    """
    if (measured := _measured(stored, task, earlier)) is not None:
        return measured
    epochs = carried_epochs(earlier.epochs, stored.different, stored.fresh)
    if is_spent(task.training, epochs):
        words = _spent_words(task.training.maximum_epochs, stored.different)
        return Withheld("spent", words, stored.training.newest, epochs)

    if task.posterior is not None:
        return find_factor(
            engine,
            weights,
            stored,
            task,
            earlier,
            plan=task.posterior,
            epochs=epochs,
            evaluate=evaluate,
            predict=predict,
            on_progress=on_progress,
        )

    def round_from(kept: bytes, steering: Steering) -> TrainingResult | Withheld:
        try:
            return _trained(
                engine,
                weights,
                stored,
                task,
                earlier,
                kept=kept,
                steering=steering,
                epochs=epochs,
                evaluate=evaluate,
                on_progress=on_progress,
                cut=cut,
            )
        except OtherUnitsError:
            raise
        except DivergedError as error:
            error.drift = steering.left_unsent(None)
            raise

    steering = _steering(engine, weights, stored, task, earlier)
    if steering.corrects:
        with contextlib.suppress(DivergedError):
            made = round_from(b"", steering)
            if not isinstance(made, Withheld) or made.why != "worse":
                return made
        steering = steering.uncorrected()  # the correction may be why
    kept = kept_or_anew(earlier.own, weights, stored, task, evaluate=evaluate)
    try:
        made = round_from(kept, steering)
    except DivergedError:
        if not (kept and task.own_parameters):
            raise
        kept = b""  # what it has kept may be why
        made = round_from(kept, steering)
    has_let_go = made.own is None and len(earlier.own) > len(kept)
    return msgspec.structs.replace(made, own=b"") if has_let_go else made


def _steering(
    engine: TrainingEngine, weights: FloatVector, stored: StoredSamples, task: TaskDescription, earlier: Earlier
) -> Steering:
    """What the round is told against drift, from the version `weights` f32[P]."""
    planned = steps_on(engine, stored.training, task, earlier.seed, earlier.plan)
    moved = None if earlier.last_weights is None else FleetMovement(earlier.last_weights, earlier.versions_since)
    return Steering.of_round(
        task,
        weights,
        earlier.drift,
        moved,
        steps=steps_of_round(task.training, len(stored.training)),
        first_step=lambda: planned(1).together(weights)[0],
    )


def _trained(
    engine: TrainingEngine,
    version: FloatVector,
    stored: StoredSamples,
    task: TaskDescription,
    earlier: Earlier,
    *,
    kept: bytes,
    steering: Steering,
    epochs: float,
    evaluate: Evaluate,
    on_progress: OnProgress,
    cut: Cut,
) -> TrainingResult | Withheld:
    """What training gives. The round begins with `kept` of what is the device's own, and its steps are told `steering`;
    rounds have gone over the samples `epochs` times before it.
    """
    newest = stored.training.newest
    weights = with_own(version, kept, task)
    learned = learn(
        engine,
        weights,
        stored.training,
        task,
        earlier.seed,
        draw=earlier.draw,
        plan=earlier.plan,
        resting=stored.resting,
        rates=steering.rates,
        on_progress=on_progress,
    )
    if task.split is not None and cut.helper:
        learned = replace(learned, held=held_of(task.split, cut, len(stored.training)))
    epochs += epochs_of_steps(task.training, learned.steps, len(stored.training), stored.different)
    planned = steps_on(engine, stored.training, task, earlier.seed, earlier.plan)
    own = own_copy(planned, weights, kept, stored, task, evaluate=evaluate)
    trained = own_parameters(learned.weights, task) if task.own_parameters else own
    shared = learned
    if task.own_parameters:
        shared = replace(learned, weights=with_shared_only(learned.weights, weights, task))
    change = None if earlier.last_weights is None else weights - with_own(earlier.last_weights, kept, task)
    if words := why_irrelevant(task.sending, shared.weights - weights, change):
        is_good = trained is own or not is_worse(weights, learned.weights, stored.validation, evaluate)
        unsent = steering.left_unsent(learned.losses)
        return Withheld("irrelevant", words, newest, epochs, trained if is_good else own, unsent)
    if len(stored.validation):
        before, after = evaluate(weights, stored.validation), evaluate(learned.weights, stored.validation)
        if (risen := rise(before, after)).is_worse:
            return Withheld("worse", str(risen), newest, epochs, own, steering.left_unsent(None))
        if words := why_no_better(task.sending, before, after):
            return Withheld("no_better", words, newest, epochs, trained, steering.left_unsent(learned.losses))
    result = finish_round(shared, weights, stored.training, task, earlier)
    drift = steering.left((learned.weights - weights)[: task.trained_count], learned.losses)
    return msgspec.structs.replace(result, epochs=epochs, own=trained, drift=drift)


def _measured(stored: StoredSamples, task: TaskDescription, earlier: Earlier) -> TrainingResult | Withheld | None:
    """What a round gives that does not train; None where it trains."""
    if task.scaling.is_awaited:
        return measure(stored.training, task)
    if task.solved_head is not None:
        return measure_features(stored, task.solved_head, task, earlier)
    if task.prompts is not None:
        return tell_prompts(stored, task.prompts, task, earlier)
    return None


def _spent_words(maximum_epochs: int, different: int) -> str:
    return (
        f"rounds have gone over the {different} different samples here {maximum_epochs} times (maximum_epochs);"
        " waits for new ones"
    )
