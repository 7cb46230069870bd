"""What queries find, against what all samples together have; TrieHH against its theory; epsilon against the mechanisms.

    python -m benchmarks.analytics [--repeats 20]

What runs is what ships: each simulated device answers as an agent does, every answer is checked as the coordinator
checks it, and rounds follow each other as they do there. Nothing is tuned on these data: distributions, bins and
epsilon are given below, and each comparison is with what the theory states before the first answer.
"""

import argparse
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import msgspec
import numpy as np

from broker_coordinator.aggregation.analytics.bins import bin_of, bounds_of, pooled, standard_errors
from broker_coordinator.aggregation.analytics.reports import ReportFacts, RoundAnswers, answers_of
from broker_coordinator.aggregation.analytics.rounds import next_round
from broker_coordinator.aggregation.analytics.stored_query import StoredQuery
from broker_coordinator.aggregation.analytics.trie import probability_found
from broker_coordinator.commands.new_query import query_of
from broker_coordinator.commands.query_file import QueryFile
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.analytics import laplace
from fleet_protocol.analytics.answers import answered, check_report
from fleet_protocol.analytics.randomised_response import respond
from fleet_protocol.analytics.words import END
from fleet_protocol.task_description import TaskDescription
from workbench.recipe_folder import find_recipe

DEVICES = 200
VOTERS = 10_000
WORDS = 500
ZIPF_EXPONENT = 1.1
VOTERS_EPSILON = 4.0
LONGEST = 8
EPSILONS = (0.5, 1.0, 2.0)
DRAWS = 200_000
PROBABILITIES = (0.05, 0.25, 0.5, 0.75, 0.95)
ALL_SAMPLES = 1_000_000

Values = Sequence[Sequence[float]]
Has = Callable[[int], tuple[Sequence[float], Sequence[str]]]
"""The values and the words of a device, by its number."""


def main() -> None:
    """Measure, and print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20, help="runs of what is drawn at random (20)")
    repeats = parser.parse_args().repeats
    task = load_bundle(find_recipe("digits") / "bundle").description
    devices = skewed_fleet(random.Random(1))
    print(
        json.dumps(
            {
                "devices": DEVICES,
                "samples": sum(map(len, devices)),
                "histogram": histogram(task, devices),
                "quantiles": quantiles(task, devices),
                "labels_with_noise": [labels_with_noise(task, epsilon, 10 * repeats) for epsilon in EPSILONS],
                "epsilon": [accounted(epsilon) for epsilon in EPSILONS],
                "heavy_hitters": heavy_hitters(task, repeats),
            }
        )
    )


def asked(task: TaskDescription, ask: str, field: str = "input[0]", **keys: Any) -> StoredQuery:
    """A query as `analytics publish` makes it."""
    written = {"name": "asked", "task": task.task, "ask": ask, "field": field} | keys
    return query_of(msgspec.convert(written, QueryFile), task, number=1)


def one_round(
    stored: StoredQuery,
    has: Has,
    devices: int,
    draws: random.Random,
) -> RoundAnswers:
    """What so many devices answer in this round."""
    reports = []
    for device in range(devices):
        report = answered(stored.query, *has(device), draws)
        check_report(stored.query, report)
        facts = ReportFacts(report.query, report.round, report.outcome, report.numbers, report.word)
        reports.append((str(device), facts))
    return answers_of(reports, stored.query.round)


def all_rounds(
    stored: StoredQuery,
    has: Has,
    devices: int,
    draws: random.Random,
) -> tuple[StoredQuery, RoundAnswers]:
    """The query in its last round, and the answers to that."""
    while True:
        found = one_round(stored, has, devices, draws)
        stored, follows = next_round(stored, found)
        if not follows:
            return stored, found


def skewed_fleet(draws: random.Random) -> Values:
    """Devices with 1 to 500 values, lognormal around a place of their own: long-tailed, and no two alike."""
    places = [draws.gauss(0.0, 1.0) for _ in range(DEVICES)]
    return [[draws.lognormvariate(place, 0.5) for _ in range(draws.randrange(1, 501))] for place in places]


def histogram(task: TaskDescription, devices: Values) -> dict[str, float]:
    """The largest difference from numpy's histogram of all values together, in samples."""
    stored = asked(task, "histogram", lower=0.0, upper=10.0, bins=40, samples_per_device=ALL_SAMPLES)
    counts = pooled(
        stored.query, one_round(stored, lambda device: (devices[device], ()), DEVICES, random.Random(1)).answered
    )
    exact = np.histogram(np.concatenate(devices), [-np.inf, *stored.query.edges, np.inf])[0]
    return {"bins": len(counts), "largest_error_in_samples": float(np.abs(np.array(counts) - exact).max())}


def quantiles(task: TaskDescription, devices: Values) -> list[dict[str, float | bool]]:
    """Whether the interval of each round holds the quantile of all values together, and how wide it is."""
    rows: list[dict[str, float | bool]] = []
    exact = np.quantile(np.concatenate(devices), PROBABILITIES, method="inverted_cdf")
    for rounds in (1, 2, 3):
        stored = asked(
            task,
            "quantiles",
            probabilities=PROBABILITIES,
            lower=0.0,
            upper=40.0,
            rounds=rounds,
            samples_per_device=ALL_SAMPLES,
        )
        last, answers = all_rounds(stored, lambda device: (devices[device], ()), DEVICES, random.Random(1))
        counts = pooled(last.query, answers.answered)
        intervals = [bounds_of(bin_of(probability, counts) or 0, last.query.edges) for probability in PROBABILITIES]
        widths = [(upper or 0.0) - (lower or 0.0) for lower, upper in intervals]
        held = all(
            (lower or 0.0) <= value <= (upper or 0.0) for (lower, upper), value in zip(intervals, exact, strict=True)
        )
        stated = 40.0 / stored.aims.bins**rounds
        rows.append(
            {
                "rounds": rounds,
                "stated_width": stated,
                "largest_width": max(widths),
                "all_hold_the_pooled_quantile": held,
            }
        )
    return rows


def labels_with_noise(task: TaskDescription, epsilon: float, repeats: int) -> dict[str, float]:
    """Root mean squares, over labels and runs of 2,000 devices, of error and stated standard error."""
    stored = asked(task, "labels", "label", epsilon=epsilon)
    errors: list[float] = []
    stated: list[float] = []
    for seed in range(repeats):
        draws = random.Random(seed)
        labels = draws.choices(range(10), [10 - label for label in range(10)], k=2000)
        answers = one_round(stored, lambda device, of=labels: ((float(of[device]),), ()), 2000, draws)  # type: ignore[misc]
        counts = pooled(stored.query, answers.answered)
        true = Counter(labels)
        errors += [count - true[label] for label, count in enumerate(counts)]
        stated += standard_errors(stored.query, counts, 2000)
    return {"epsilon": epsilon, "error": root_mean_square(errors), "stated_standard_error": root_mean_square(stated)}


def root_mean_square(numbers: Sequence[float]) -> float:
    """The square root of the mean of their squares."""
    return math.sqrt(float(np.mean(np.square(numbers))))


def accounted(epsilon: float) -> dict[str, float]:
    """The largest log quotient of how often two devices tell the same, which epsilon is to bound; from draws.

    Of tellings that 1,000 draws or more have had: the sampling error of a quotient is then below 0.1.
    """
    draws = random.Random(5)
    told = [Counter(respond(true, 10, epsilon, draws) for _ in range(DRAWS)) for true in (0, 1)]
    noise = [
        Counter(math.floor(8 * laplace.noised(share, epsilon, draws)) for _ in range(DRAWS)) for share in (0.0, 1.0)
    ]
    return {"epsilon": epsilon, "randomised_response": largest_quotient(*told), "laplace": largest_quotient(*noise)}


def largest_quotient(first: Counter[int], second: Counter[int]) -> float:
    """In natural logarithms."""
    common = [key for key in first if min(first[key], second[key]) >= 1000]
    return max(abs(math.log(first[key] / second[key])) for key in common)


def heavy_hitters(task: TaskDescription, repeats: int) -> dict[str, object]:
    """How often TrieHH finds words that devices have by a Zipf law, against the probability of the theory."""
    stored = asked(task, "heavy_hitters", "text.words", longest=LONGEST, epsilon=VOTERS_EPSILON)
    draws = random.Random(7)
    words = vocabulary(draws)
    weights = list(accumulate(1 / rank**ZIPF_EXPONENT for rank in range(1, WORDS + 1)))
    of_device = draws.choices(words, cum_weights=weights, k=VOTERS)
    expected = probabilities(of_device, stored)
    found: Counter[str] = Counter()
    for seed in range(repeats):
        last, _ = all_rounds(stored, lambda device: ((), (of_device[device],)), VOTERS, random.Random(seed))
        found.update(each.word for each in last.found)
    holders = Counter(of_device)
    rows = [
        {"word": word, "devices": holders[word], "theory": round(expected[word], 4), "found": found[word] / repeats}
        for word, _ in holders.most_common(12)
    ]
    variance = repeats * sum(each * (1 - each) for each in expected.values())
    return {
        "devices": VOTERS,
        "epsilon": VOTERS_EPSILON,
        "delta": stored.aims.delta,
        "fewest_votes": stored.aims.votes,
        "share_that_votes": stored.query.share,
        "words": rows,
        "found_in_all_runs": sum(found.values()),
        "expected_in_all_runs": repeats * sum(expected.values()),
        "standard_deviation": math.sqrt(variance),
        "runs": repeats,
    }


def vocabulary(draws: random.Random) -> list[str]:
    """Different words of 3 to `LONGEST` letters, made of syllables, so that many begin alike."""
    found: dict[str, None] = {}
    while len(found) < WORDS:
        syllables = "".join(draws.choice("bdfgklmnprst") + draws.choice("aeiou") for _ in range(draws.randrange(2, 5)))
        found[syllables[: draws.randrange(3, LONGEST + 1)]] = None
    return list(found)


def probabilities(of_device: Sequence[str], stored: StoredQuery) -> dict[str, float]:
    """That each word is found, exactly: in each round, enough of those that have its prefix vote."""
    prefixes = Counter((word + END)[:length] for word in of_device for length in range(1, len(word) + 2))
    return {
        word: probability_found(
            [prefixes[(word + END)[:length]] for length in range(1, len(word) + 2)],
            stored.query.share,
            stored.aims.votes,
        )
        for word in dict.fromkeys(of_device)
    }


if __name__ == "__main__":
    main()
