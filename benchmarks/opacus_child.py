"""Opacus's counts of epsilon, for `benchmarks.accountants`: JSON in, JSON out. Runs without edgeflock."""

import json
import sys
import warnings

from opacus.accountants import PRVAccountant, RDPAccountant


def counted(point: dict[str, float], delta: float, error: float, orders: list[int]) -> dict[str, float]:
    """What so many steps tell by both accountants; the Rényi one looks at these orders."""
    history = [(point["noise_multiplier"], point["sampling_rate"], int(point["steps"]))]
    renyi, tight = RDPAccountant(), PRVAccountant()
    renyi.history, tight.history = history, history
    return {
        "renyi": float(renyi.get_epsilon(delta, alphas=orders)),
        "tight": float(tight.get_epsilon(delta, eps_error=max(error * point["tight"], 1e-4), delta_error=delta / 1000)),
    }


def main() -> None:
    """Answer one question."""
    warnings.simplefilter("ignore")
    asked = json.load(sys.stdin)
    json.dump([counted(each, asked["delta"], asked["error"], asked["orders"]) for each in asked["points"]], sys.stdout)


if __name__ == "__main__":
    main()
