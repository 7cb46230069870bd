"""Every attack on one device's pair, and how well each does."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.chained_blocks import ExportedTask
from benchmarks.inversion.decoder import SIDE, rebuilt, trained_decoder
from benchmarks.inversion.helper_view import HelperView
from benchmarks.inversion.likeness import likeness
from benchmarks.inversion.membership import area_under_curve, nearness, scores
from benchmarks.inversion.pair_victim import KNOWN, Victim
from benchmarks.inversion.told_by_gradients import REAL, GradientsOfDevice, told_classes
from benchmarks.inversion.white_box import DiscriminatorFront, invert
from benchmarks.split_gans.classifier import Classifier, trained_on
from benchmarks.split_gans.drawing import draw, load
from benchmarks.split_gans.scenario import CLASSES, ROWS, Labelled, Pictures
from fleet_protocol.split_plan import SplitPlan
from workbench.export.recipe.recipe import Recipe

FRONTS = {"discriminator.block1": 1, "discriminator.block2": 2}
"""Points behind which a device hands over what its pictures gave, and how many of the discriminator's blocks it ran."""
BACKS = {"discriminator.block4": ["block5"], "discriminator.block3": ["block4", "block5"]}
"""Points in front of which it hands back a gradient, and the discriminator's blocks that made it."""
SHOWN, OPTIMISED = 320, 64
"""Private pictures that a decoder, and the slower optimisation, is judged by; multiples of a mini-batch."""
NOISE = (1.0, 2.0)


@dataclass(frozen=True)
class Rebuilt:
    """Rebuilt pictures: how like the real ones, and of how many a classifier sees the class."""

    ssim: float
    squared_error: float
    psnr_db: float
    recognised: float


@dataclass(frozen=True)
class Report:
    """What a helper learns of a device: pictures by point and attack, classes by how they are told, and by which number
    members are told from others (area under the curve; 0.5 is chance).
    """

    domain: str
    originals_recognised: float
    rebuilt: dict[str, dict[str, Rebuilt]]
    classes_told: dict[str, float]
    membership: dict[str, float]


class PairAttacks:
    """Those on one victim; `told` is called with each that has been run."""

    def __init__(self, exported: ExportedTask, recipe: Recipe, victim: Victim, told: Callable[[str], None]) -> None:
        self._exported, self._victim, self._told = exported, victim, told
        self._shown = victim.private.take(np.arange(SHOWN))
        self._judge: Classifier = trained_on(victim.rest.take(np.arange(min(len(victim.rest), KNOWN))), 0)
        classes = np.arange(KNOWN) % CLASSES
        self._drawn = draw(recipe, victim.weights, classes, 0, seed=21)
        load(recipe, victim.weights)
        self._discriminator: nn.Module = recipe.module.get_submodule("discriminator")

    def report(self) -> Report:
        """Run all."""
        pictures, classes = {}, {}
        for point, blocks in FRONTS.items():
            pictures[point], classes[f"optimisation behind {point}"] = self._rebuilt(point, blocks)
        classes |= {f"gradient in front of {point}": self._told_by_gradient(point) for point in BACKS}
        found = Report(
            self._victim.domain,
            self._judged(self._shown, self._shown.pictures).recognised,
            pictures,
            classes,
            self._membership(),
        )
        self._told(f"{found.domain}: classes {found.classes_told}, membership {found.membership}")
        return found

    def _rebuilt(self, point: str, blocks: int) -> tuple[dict[str, Rebuilt], float]:
        """By attack; and how many classes come to light on the way."""
        found = {"the mean picture": self._judged(self._shown, np.tile(_mean(self._victim.alike), (SHOWN, 1)))}
        for name, pictures in self._by_decoders(point):
            found[name] = self._judged(self._shown, pictures)
            self._told(f"{self._victim.domain}, {point}, {name}: {found[name]}")
        some = self._shown.take(np.arange(OPTIMISED))
        seen = self._seen(point, some, self._exported.plan)
        inverted = invert(DiscriminatorFront(self._discriminator, blocks), seen, ROWS)
        name = "optimisation, no pictures"
        found[name] = self._judged(some, _flat(inverted.pictures))
        self._told(f"{self._victim.domain}, {point}, {name}: {found[name]}")
        return found, round(float((inverted.classes.numpy() == some.classes).mean()), 3)

    def _by_decoders(self, point: str) -> Iterator[tuple[str, Pictures]]:
        victim, plan = self._victim, self._exported.plan
        known = {
            "decoder, pictures of another domain": victim.other,
            "decoder, pictures that the version draws": self._drawn,
            "decoder, pictures of its domain": victim.alike,
        }
        for name, data in known.items():
            model = self._decoder(point, data, plan)
            yield name, _flat(rebuilt(model, self._seen(point, self._shown, plan)))
            if data is victim.alike:
                seen = self._seen(point, self._shown, plan, at_the_end=True)
                yield f"{name}, at the end of the round", _flat(rebuilt(model, seen))
        for noise in NOISE:
            noisy = msgspec.structs.replace(plan, activation_noise=noise)
            model = self._decoder(point, victim.alike, noisy)
            pictures = _flat(rebuilt(model, self._seen(point, self._shown, noisy)))
            yield f"decoder, pictures of its domain, activation_noise {noise:g}", pictures

    def _decoder(self, point: str, known: Labelled, plan: SplitPlan) -> nn.Module:
        return trained_decoder(self._seen(point, known, plan), _images(known.pictures))

    def _seen(self, point: str, data: Labelled, plan: SplitPlan, *, at_the_end: bool = False) -> Tensor:
        blocks = [block.point for block in plan.blocks].index(point) + 1
        weights = self._victim.moved if at_the_end else self._victim.weights
        view = HelperView(self._exported.task, self._exported.files, weights, blocks, rows=ROWS, call=REAL)
        return view.seen(data.samples().inputs, plan, np.random.default_rng(5))

    def _judged(self, real: Labelled, pictures: Pictures) -> Rebuilt:
        like = likeness(_images(pictures), _images(real.pictures))
        psnr = -10 * math.log10(max(like.squared_error, 1e-10))
        recognised = (self._judge.shares(pictures).argmax(axis=1) == real.classes).mean()
        return Rebuilt(like.ssim, like.squared_error, round(psnr, 1), round(float(recognised), 3))

    def _told_by_gradient(self, point: str) -> float:
        exported, generator = self._exported, np.random.default_rng(6)
        first = [block.point for block in exported.plan.blocks].index(point) + 1
        device = GradientsOfDevice(exported.task, exported.files, exported.plan, self._victim.weights, first)
        inputs, right = self._shown.samples().inputs, 0
        for start in range(0, SHOWN, ROWS):
            rows = slice(start, start + ROWS)
            given, gradient = device.sent(inputs[rows], start, generator)
            told = told_classes(self._discriminator, BACKS[point], given, gradient)
            right += int((told == self._shown.classes[rows]).sum())
        return round(right / SHOWN, 3)

    def _membership(self) -> dict[str, float]:
        members, others = self._victim.private, self._victim.alike.take(np.arange(len(self._victim.private)))
        measures: dict[str, Callable[[Labelled], Pictures]] = {
            "the discriminator's score": lambda data: scores(self._discriminator, data),
            "nearness to a drawn picture": lambda data: nearness(data, self._drawn),
        }
        return {name: round(area_under_curve(of(members), of(others)), 3) for name, of in measures.items()}


def _mean(data: Labelled) -> Pictures:
    return np.asarray(data.pictures.mean(axis=0, keepdims=True))


def _images(pictures: Pictures) -> Tensor:
    return torch.from_numpy(pictures).reshape(-1, 1, SIDE, SIDE)


def _flat(pictures: Tensor) -> Pictures:
    return np.asarray(pictures.reshape(len(pictures), -1).numpy())
