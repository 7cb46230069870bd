"""What a helper can make of what devices send it: pictures rebuilt from activations, with and without the defences.

`python -m benchmarks.split_attack --data ../shared/data` prints one JSON object as its last line. Two attacks on
`models/mnist_cnn`, after a few rounds of training, on digits that the attacker has never seen:

* reconstruction: an honest but curious helper has the version's weights, as all devices do, and pictures of the same
  kind; it trains a decoder from what the device's blocks make of those, and applies it to what devices send;
* hijacking (FSHA: Pasquini et al. 2021, "Unleashing the tiger", section 3): a malicious helper answers gradients of
  its own choice, which pull the device's blocks towards a function that the helper can invert.

What devices send passes through the shipped codec and the shipped defences. SSIM is that of Wang et al. 2004 with even
windows of 7 pixels: 1 is the same picture, and the mean picture of the data set has what `guess` says.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.inversion.decoder import STEPS as DECODER_STEPS
from benchmarks.inversion.decoder import decoder, rebuilt, step, trained_decoder
from benchmarks.inversion.helper_view import HelperView
from benchmarks.inversion.likeness import Likeness, likeness
from benchmarks.mnist import read_mnist
from benchmarks.split_accuracy import BUNDLE, plan_of
from benchmarks.split_rounds import SplitFleet, Traffic
from bundle_runtime.blocks import Floats
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.split_plan import SplitPlan

PRIVATE, KNOWN, SHOWN = 4000, 4000, 300
"""Digits that devices train on, that the attacker has, and that it is judged by: some of the private ones."""
ROUNDS, STEPS = 4, 60
BATCH = 32
HIJACKING_STEPS = 1500
MOMENTS = 10.0
"""Weight of means and deviations among what the hijacker makes alike: without them, the device's block dies out."""
NOISE = (0.0, 0.5, 1.0, 2.0)
DISTANCE_CORRELATION = (0.5, 5.0)


def trained_weights(bundle: Bundle, samples: Samples) -> FloatVector:
    """Those of a fleet that has learned for a while."""
    task = bundle.description
    weights = read_weights(bundle.weights, task.parameters)
    engine = OnnxStepEngine.of_task(task, bundle.files)
    for number in range(ROUNDS):
        batches = plan_batches(len(samples), STEPS, task.training.batch_size, number)
        weights, _ = engine.train(weights, samples, batches, Rates.planned(task.training))
    return weights


def learned_with_helper(bundle: Bundle, plan: SplitPlan, samples: Samples) -> FloatVector:
    """The same rounds through a helper, for what the plan changes of how devices learn."""
    weights = read_weights(bundle.weights, bundle.description.parameters)
    fleet = SplitFleet(bundle.description, plan, bundle.files, [samples], [plan.cuts[0]], at_once=1)
    for number in range(ROUNDS):
        weights = fleet.round(weights, STEPS, number, Traffic())
    return weights


def view_of(bundle: Bundle, weights: FloatVector, blocks: int) -> HelperView:
    """Of a helper that has all but so many blocks."""
    return HelperView(bundle.description, bundle.files, weights, blocks, rows=BATCH)


def reconstruct(view: HelperView, plan: SplitPlan, known: Floats, shown: Floats) -> Likeness:
    """The best of a decoder that was trained on what the same blocks make of known pictures, noise and all."""
    generator = np.random.default_rng(5)
    model = trained_decoder(view.seen(known, plan, generator), torch.from_numpy(known))
    return likeness(rebuilt(model, view.seen(shown, plan, generator)), torch.from_numpy(shown))


class HijackedDevice(nn.Module):
    """The device's first block in torch, which follows whatever gradient it is answered."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU())
        self.noise = noise

    def forward(self, images: Tensor) -> Tensor:
        """What it sends, with the defence."""
        values: Tensor = self.block(images)
        return values + self.noise * values.detach().std() * torch.randn_like(values) if self.noise else values


def hijack(noise: float, private: Floats, known: Floats, shown: Floats) -> Likeness:
    """FSHA: the discriminator tells what the device sends from what the helper's own encoder gives, and the device is
    answered the gradient that makes the two alike; so the encoder's decoder fits the device too.

    The helper trains its encoder and decoder before the device comes.
    """
    torch.manual_seed(0)
    device, encoder, inverse = HijackedDevice(noise), HijackedDevice(noise), decoder(8, 14)
    judge = nn.Sequential(
        nn.Conv2d(8, 32, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(32 * 16, 1),
    )
    secret, pictures = torch.from_numpy(private), torch.from_numpy(known)
    own = torch.optim.Adam([*encoder.parameters(), *inverse.parameters()], 3e-3)
    for _ in range(DECODER_STEPS):
        batch = pictures[torch.randint(len(pictures), (BATCH,))]
        step(own, functional.mse_loss(inverse(encoder(batch)), batch))
    of_judge = torch.optim.Adam(judge.parameters(), 1e-3, betas=(0.5, 0.99))
    # The device has no such optimiser: the helper scales what it answers as it likes.
    of_device = torch.optim.Adam(device.parameters(), 1e-3, betas=(0.5, 0.99))
    for _ in range(HIJACKING_STEPS):
        sent = device(secret[torch.randint(len(secret), (BATCH,))])
        with torch.no_grad():
            encoded = encoder(pictures[torch.randint(len(pictures), (BATCH,))])
        step(of_judge, functional.softplus(-judge(encoded)).mean() + functional.softplus(judge(sent.detach())).mean())
        alike = functional.mse_loss(sent.mean(0), encoded.mean(0)) + functional.mse_loss(sent.std(0), encoded.std(0))
        step(of_device, functional.softplus(-judge(sent)).mean() + MOMENTS * alike)
    inverse.eval()
    with torch.no_grad():
        return likeness(inverse(device(torch.from_numpy(shown))), torch.from_numpy(shown))


def measure(data: Path, told: Callable[[str, Likeness], None]) -> dict[str, dict[str, float]]:
    """Every attack against every defence; `told` is called with each as it is found."""
    digits = read_mnist(data)
    private, known = digits.images[:PRIVATE], digits.images[PRIVATE : PRIVATE + KNOWN]
    shown = private[:SHOWN]
    bundle = load_bundle(BUNDLE)
    weights = trained_weights(bundle, Samples(private, digits.labels[:PRIVATE]))
    found: dict[str, dict[str, float]] = {}

    def note(name: str, one: Likeness) -> None:
        found[name] = vars(one)
        told(name, one)

    mean = torch.from_numpy(known).mean(0, keepdim=True).expand(SHOWN, -1, -1, -1)
    note("guess: the mean picture", likeness(mean, torch.from_numpy(shown)))
    for blocks in (1, 2):
        view = view_of(bundle, weights, blocks)
        for noise in NOISE:
            plan = msgspec.structs.replace(plan_of(bundle), activation_noise=noise)
            name = f"reconstruction behind convolution {blocks}, noise {noise:g}"
            note(name, reconstruct(view, plan, known, shown))
    for weight in DISTANCE_CORRELATION:
        plan = msgspec.structs.replace(plan_of(bundle), distance_correlation=weight, most_in_flight=1)
        learned = learned_with_helper(bundle, plan, Samples(private, digits.labels[:PRIVATE]))
        view = view_of(bundle, learned, 1)
        name = f"reconstruction behind convolution 1, distance correlation {weight:g}"
        note(name, reconstruct(view, plan, known, shown))
    for noise in NOISE:
        note(f"hijacking behind convolution 1, noise {noise:g}", hijack(noise, private, known, shown))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the data sets")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    found = measure(options.data, lambda name, one: print(f"{name}: {one}", flush=True))
    print(json.dumps({"attacks": found, "seconds": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
