"""The benchmarks' last line is one JSON object with the agreed keys."""

import json
import sys

import numpy as np

from benchmarks import update_codec
from benchmarks.deltas import noise

CASE_KEYS = {
    "positions",
    "parameters",
    "keep_fraction",
    "bits_per_kept_entry",
    "entropy_bits",
    "overhead_ratio",
    "encode_mb_s",
    "decode_mb_s",
    "compression_ratio",
}


def test_update_codec_reports_every_case(monkeypatch, capsys):
    monkeypatch.setattr(update_codec, "PARAMETERS", (10_000,))
    monkeypatch.setattr(update_codec, "REPETITIONS", 1)
    monkeypatch.setattr(sys, "argv", ["update_codec"])
    update_codec.main()
    cases = json.loads(capsys.readouterr().out.splitlines()[-1])["cases"]
    assert [set(case) for case in cases] == [CASE_KEYS] * len(cases)
    assert {(case["positions"], case["keep_fraction"]) for case in cases} == {
        (positions, fraction) for positions in ("uniform", "real") for fraction in update_codec.KEEP_FRACTIONS
    }


def test_entropy_is_what_choosing_takes():
    assert np.isclose(update_codec.position_entropy(5, 2), np.log2(10))


def test_large_uniform_update_is_near_its_entropy():
    assert update_codec.measure(noise(100_000), 0.01).overhead_ratio <= 1.03
