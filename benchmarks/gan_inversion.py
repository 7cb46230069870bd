"""What a helper can make of a pair that it helps to train: pictures, classes, and which pictures a device has.

`python -m benchmarks.gan_inversion --data ../shared/data` prints one JSON object as its last line. A device trains
`models/mnist_gan` on 1,000 pictures for a while; then its helper, honest but curious, sees what leaves the device in
the steps of a round, behind the shipped codec: activations of real pictures behind the discriminator's first or second
block, as the cut says, and gradients. It knows the weights of the version that the round began with, as everybody does.

* A decoder is trained on pictures of another domain, on what the version's own generator draws, or on other pictures of
  the device's domain, and applied to what the device sends; the weights of the version, or those that the device has at
  the end of its round.
* An optimisation looks for pictures and classes that give what was seen; it needs no pictures.
* Each class is tried on the device's last blocks, to tell which gives the gradient that came.
* Members of the device's pictures are told from others by the discriminator's score, and by what the generator draws.

Digits and letters are attacked in turn, each with the other as the other domain. `recognised` is by a classifier
trained on pictures of the domain that neither has.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch

from benchmarks.chained_blocks import ExportedTask
from benchmarks.inversion.pair_attacks import PairAttacks
from benchmarks.inversion.pair_victim import train_victim
from benchmarks.split_gans.scenario import read_domains
from workbench.export.recipe.recipe import read_recipe
from workbench.recipe_folder import find_recipe

ITERATIONS = 600
TESTED = 2000


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the data sets")
    parser.add_argument("--domains", choices=["mnist", "notmnist"], nargs="+", default=["mnist", "notmnist"])
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="of the device before it is attacked")
    parser.add_argument("--recipe", type=Path, default=find_recipe("mnist_gan"), help="folder of the pair")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    domains = read_domains(options.data, TESTED)
    recipe = read_recipe(options.recipe)
    exported = ExportedTask.of(recipe)
    reports = []
    for name in options.domains:
        victim = train_victim(exported, domains, name, options.iterations)
        reports.append(dataclasses.asdict(PairAttacks(exported, recipe, victim, say).report()))
    seconds = round(time.process_time() - began)
    print(json.dumps({"iterations": options.iterations, "devices": reports, "processor_seconds": seconds}))


if __name__ == "__main__":
    main()
