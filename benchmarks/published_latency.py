"""The published latency model of clustered split training of a pair (Tawfilis et al. 2025, arXiv 2507.12979). Pure.

A fresh telling of what the paper's public code adds up, none of which is here. All devices go in lockstep: an iteration
is generator forward, discriminator forward, and both back, and each of these takes as long as its slowest device:

    forward  = max(heads that left block 2 to the server + the server's block 2, heads with block 2)
               + the server's block 3 + max over devices of (the server's block 4 if it is there, link, tail)
    backward = the same from the tail to the head

The server computes a block for all devices that left it there, one after the other, and sends to all at once. Generator
and discriminator, and in each of them blocks 2 and 4, never meet in one maximum, so the best cuts can be found apart.

Operations are counted as the paper's code does: a transposed convolution over its output's places, which is four times
what a stride of 2 takes; normalisation and activations by element. In GFLOP, GFLOP/s, bytes, bytes/s, seconds.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

ROWS: Final = 64
FLOAT_BYTES: Final = 4
GIGA: Final = 1e9


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of device."""

    gflops: float
    link: float


PROFILES: Final = (
    Profile(0.48 * 1, 50e6),
    Profile(6.0 * 8, 150e6),
    Profile(15.6 * 8, 1e9),
    Profile(5.72 * 8, 300e6),
    Profile(4.0 * 4, 50e6),
    Profile(9.0 * 4, 100e6),
    Profile(12.0 * 10, 800e6),
)
"""Clock in GHz times operations a cycle, and bytes a second."""
SERVER: Final = Profile(42.0 * 16, 1e9)


@dataclass(frozen=True, slots=True)
class Block:
    """GFLOP of a mini-batch forward and back, and the bytes of what the block gives."""

    forward: float
    backward: float
    given: int


@dataclass(frozen=True, slots=True)
class Reading:
    """How the model is read. The discriminator runs three times an iteration; the public code multiplies what devices
    compute and all bytes of it, and not what the server computes. It takes block 4's operations for block 2's, back at
    the server.
    """

    name: str
    runs: int
    runs_at_server: int
    block_2_is_block_4: bool


AS_PUBLISHED: Final = Reading("as published", 3, 1, block_2_is_block_4=True)
READINGS: Final = (
    AS_PUBLISHED,
    Reading("block 2 by its own operations", 3, 1, block_2_is_block_4=False),
    Reading("the same, discriminator once", 1, 1, block_2_is_block_4=False),
    Reading("the same, three times at the server too", 3, 3, block_2_is_block_4=False),
)

Bits = tuple[int, ...]
"""Of each profile, whether its devices run the block themselves."""


@dataclass(frozen=True, slots=True)
class Holders:
    """So many devices of one profile, which run a block themselves or leave it to the server."""

    profile: Profile
    count: int
    keep: bool


@dataclass(frozen=True, slots=True)
class Half:
    """Generator or discriminator: its five blocks, how often it runs on devices and links, and at the server."""

    blocks: tuple[Block, ...]
    runs: int
    runs_at_server: int
    block_2_back: float

    def seconds(self, heads: Sequence[Holders], tails: Sequence[Holders]) -> float:
        """Forward and back, with these holders of block 2 and of block 4."""
        return self.seconds_of_heads(heads) + self.seconds_of_tails(tails) + self._middle(_devices(heads))

    def seconds_of_heads(self, heads: Sequence[Holders]) -> float:
        """What depends on who runs block 2: up to the server's block 3, and back from it."""
        first, second = self.blocks[0], self.blocks[1]
        left = _devices(each for each in heads if not each.keep)
        leaving, keeping, back = 0.0, 0.0, 0.0
        for each in heads:
            given = (second if each.keep else first).given
            forward = first.forward + each.keep * second.forward
            until_sent = self.runs * (forward / each.profile.gflops + given / each.profile.link)
            if each.keep:
                keeping = max(keeping, until_sent)
            else:
                leaving = max(leaving, until_sent)
            at_server = 0.0 if each.keep else self._at_server(self.block_2_back, left)
            backward = first.backward + each.keep * second.backward
            back = max(back, at_server + self.runs * (given / SERVER.link + backward / each.profile.gflops))
        return max(leaving + self._at_server(second.forward, left), keeping) + back

    def seconds_of_tails(self, tails: Sequence[Holders]) -> float:
        """What depends on who runs block 4: from the server's block 3 on, and back to it."""
        third, fourth, fifth = self.blocks[2:]
        left = _devices(each for each in tails if not each.keep)
        leaving, keeping, ahead = 0.0, 0.0, 0.0
        for each in tails:
            given = (third if each.keep else fourth).given
            at_server = 0.0 if each.keep else self._at_server(fourth.forward, left)
            forward = fifth.forward + each.keep * fourth.forward
            ahead = max(ahead, at_server + self.runs * (given / SERVER.link + forward / each.profile.gflops))
            backward = fifth.backward + each.keep * fourth.backward
            until_sent = self.runs * (backward / each.profile.gflops + given / each.profile.link)
            if each.keep:
                keeping = max(keeping, until_sent)
            else:
                leaving = max(leaving, until_sent)
        return ahead + max(leaving + self._at_server(fourth.backward, left), keeping)

    def best(self, counts: Sequence[int]) -> tuple[Bits, Bits]:
        """The best holders of block 2 and of block 4, of all there are, with so many devices of each profile.

        Devices of one profile do best alike: where some of them keep a block, the others keep it at no cost, and the
        server has less to compute.
        """
        every = list(itertools.product((0, 1), repeat=len(PROFILES)))
        heads = min(every, key=lambda bits: self.seconds_of_heads(holders(counts, bits)))
        return heads, min(every, key=lambda bits: self.seconds_of_tails(holders(counts, bits)))

    def _middle(self, devices: int) -> float:
        third = self.blocks[2]
        return self._at_server(third.forward + third.backward, devices)

    def _at_server(self, gflop: float, devices: int) -> float:
        return self.runs_at_server * gflop * devices / SERVER.gflops


def holders(counts: Sequence[int], bits: Bits) -> list[Holders]:
    """With so many devices of each profile, all of which keep a block or leave it."""
    return [Holders(*each) for each in zip(PROFILES, counts, map(bool, bits), strict=True)]


def halves(reading: Reading) -> tuple[Half, Half]:
    """Generator and discriminator."""
    second = 3 if reading.block_2_is_block_4 else 1
    return (
        Half(GENERATOR, 1, 1, GENERATOR[second].backward),
        Half(DISCRIMINATOR, reading.runs, reading.runs_at_server, DISCRIMINATOR[second].backward),
    )


def devices_of(extra: Sequence[int], devices: int) -> list[int]:
    """Of each profile as many, and one more of each in `extra`."""
    return [devices // len(PROFILES) + (number in extra) for number in range(len(PROFILES))]


def _devices(those: Iterable[Holders]) -> int:
    return sum(each.count for each in those)


def _layer(weights: int, outputs: int, places: int = 1, *, first: bool = False) -> tuple[int, int]:
    """A convolution or linear layer of so many weights, laid on so many places: forward, back."""
    return 2 * weights * places + outputs, (2 if first else 4) * weights * places + outputs


def _block(shape: tuple[int, ...], layer: tuple[int, int], *by_element: tuple[int, int]) -> Block:
    """With so many operations by element of its output, forward and back, beside its layer's."""
    size = math.prod(shape)
    forward, backward = (layer[way] + size * sum(each[way] for each in by_element) for way in (0, 1))
    return Block(ROWS * forward / GIGA, ROWS * backward / GIGA, ROWS * FLOAT_BYTES * size)


def _convolution(
    inputs: int, shape: tuple[int, int, int], kernel: int, *rest: tuple[int, int], first: bool = False
) -> Block:
    channels, height, width = shape
    weights = inputs * channels * kernel**2
    return _block(shape, _layer(weights, math.prod(shape), height * width, first=first), *rest)


NORM: Final = (8, 11)
"""Operations by element, forward and back."""
RELU: Final = (1, 2)
LEAKY_RELU: Final = (2, 3)
TANH: Final = (5, 3)
SIGMOID: Final = (3, 2)
GENERATOR: Final = (
    _block((256, 7, 7), _layer(110 * 256 * 49, 256 * 49, first=True), NORM, RELU),
    _convolution(256, (128, 14, 14), 4, NORM, RELU),
    _convolution(128, (128, 14, 14), 3, NORM, RELU),
    _convolution(128, (64, 28, 28), 4, NORM, RELU),
    _convolution(64, (1, 28, 28), 3, TANH),
)
DISCRIMINATOR: Final = (
    _convolution(2, (64, 14, 14), 4, NORM, LEAKY_RELU, first=True),
    _convolution(64, (128, 7, 7), 4, NORM, LEAKY_RELU),
    _convolution(128, (128, 7, 7), 3, NORM, LEAKY_RELU),
    _convolution(128, (256, 3, 3), 4, NORM, LEAKY_RELU),
    _block((1,), _layer(256 * 9, 1), SIGMOID),
)
