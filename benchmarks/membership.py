"""Whether a device's update tells which samples it trained on, with privacy of samples and without.

    python -m benchmarks.membership --data ../shared/data [--models 32] [--epsilon 2]

The attack is the likelihood ratio of Carlini et al. 2022 ("Membership inference attacks from first principles"), in its
strong form: many models are trained on random halves of `AUDITED` samples with random labels, which a model can only
learn by heart, beside others that are always there. Of each sample the attacker knows how confident models with it and
without it are, from all models but the attacked one. Its advantage is the true positives minus the false ones, where
that is largest; no attack on (epsilon, delta) has more than `largest_advantage`.
"""

import argparse
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.mnist import read_mnist
from benchmarks.private_fleets import RECIPE
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from edge_agent.training.engine import TrainingEngine
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.private.engine import PrivateEngine
from edge_agent.training.round import learn
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.sample_privacy import with_noise
from workbench.export.bundle_writer import export_bundle

AUDITED, ALWAYS_THERE = 100, 100
STEPS, LEARNING_RATE = 400, 0.5
SMALLEST_DEVIATION = 1e-3
"""Of confidences: a few models may agree by chance."""

Table = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Audit:
    """Of M models and N samples: which had which, bool [M, N], and how confident each was of each, f64 [M, N]."""

    members: Flags
    confidence: Table


def largest_advantage(epsilon: float, delta: float) -> float:
    """True positives minus false ones that no attack exceeds: Kairouz, Oh & Viswanath 2015, theorem 2.1."""
    return (math.expm1(epsilon) + 2 * delta) / (math.exp(epsilon) + 1)


def likelihood_ratios(audit: Audit) -> Table:
    """For each model and sample, the log of how much likelier the confidence is with the sample than without it,
    f64 [M, N], by Gaussians that the other models give.
    """
    ratios = np.zeros_like(audit.confidence)
    for model in range(len(audit.members)):
        others = np.arange(len(audit.members)) != model
        seen = audit.confidence[model]
        ratios[model] = _log_density(audit, others, seen, having=True) - _log_density(audit, others, seen, having=False)
    return ratios


def advantage(scores: Table, members: Flags) -> float:
    """The largest difference of true and false positives over all thresholds; members have the larger scores."""
    order = np.argsort(-scores, axis=None, kind="stable")
    held = members.ravel()[order]
    found = np.cumsum(held) / held.sum() - np.cumsum(~held) / (~held).sum()
    last_of_equals = np.append(np.diff(scores.ravel()[order]) != 0, True)
    return float(max(0.0, found[last_of_equals].max()))


def _log_density(audit: Audit, models: Flags, seen: Table, *, having: bool) -> Table:
    chosen = np.where((audit.members == having) & models[:, np.newaxis], audit.confidence, np.nan)
    deviation = np.maximum(np.nanstd(chosen, axis=0), SMALLEST_DEVIATION)
    density: Table = -0.5 * ((seen - np.nanmean(chosen, axis=0)) / deviation) ** 2 - np.log(deviation)
    return density


def audited(bundle: Bundle, engine: TrainingEngine, samples: Samples, models: int, seed: int) -> Audit:
    """Train so many models of one round each; the first `AUDITED` samples are in half of them."""
    generator = np.random.default_rng(seed)
    members = np.zeros((models, AUDITED), np.bool_)
    for sample in range(AUDITED):
        members[generator.permutation(models)[: models // 2], sample] = True
    runner = BundleRunner(bundle.description, bundle.files)
    first, looked_at = bundle.first_version(), samples.take(slice(0, AUDITED))
    confidence = np.empty(members.shape)
    for model, had in enumerate(members):
        rows = np.append(np.flatnonzero(had), np.arange(AUDITED, len(samples)))
        learned = learn(engine, first, samples.take(rows), bundle.description, int(generator.integers(2**31)))
        losses = runner.evaluate_features(learned.weights, looked_at).losses.astype(np.float64)
        # The logit of the right answer's probability, which is nearly Gaussian (Carlini et al. 2022, equation 6).
        confidence[model] = -losses - np.log(-np.expm1(-np.maximum(losses, 1e-9)))
    return Audit(members, confidence)


def bundle_for(bundle: Bundle, epsilon: float | None) -> Bundle:
    """One round of `STEPS`, with the noise for this epsilon or none."""
    task = bundle.description
    training = msgspec.structs.replace(task.training, steps=STEPS, learning_rate=LEARNING_RATE)
    plan = None
    if epsilon is not None and (promised := task.sample_privacy) is not None:
        asked = msgspec.structs.replace(promised, epsilon=epsilon, rounds=1, noise_multiplier=0.0)
        plan = PrivacyPlan(with_noise(asked, STEPS, RECIPE.name))
    return Bundle(msgspec.structs.replace(task, training=training, privacy=plan), bundle.files)


def main() -> None:
    """Print one JSON object: the advantage without noise and with it, and the largest that epsilon allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--models", type=int, default=32)
    parser.add_argument("--epsilon", type=float, default=2.0)
    options = parser.parse_args()
    digits, count = read_mnist(options.data), AUDITED + ALWAYS_THERE
    labels = digits.labels[:count].copy()
    labels[:AUDITED] = np.random.default_rng(0).integers(0, 10, AUDITED)
    samples = Samples(digits.images[:count].reshape(count, -1), labels)
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(RECIPE, Path(folder))
        whole = load_bundle(Path(folder))
    found: dict[str, object] = {"models": options.models, "epsilon": options.epsilon}
    for name, epsilon in (("without_noise", None), ("with_noise", options.epsilon)):
        bundle = bundle_for(whole, epsilon)
        kind = OnnxStepEngine.of_task if epsilon is None else PrivateEngine
        audit = audited(bundle, kind(bundle.description, bundle.files), samples, options.models, seed=1)
        found[name] = round(advantage(likelihood_ratios(audit), audit.members), 3)
    found["largest_by_epsilon"] = round(largest_advantage(options.epsilon, 1e-5), 3)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
