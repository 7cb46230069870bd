"""The ingest benchmark on a small load: every update is receipted, and the last line has the agreed keys."""

import json
import sys

from benchmarks import ingest


def test_ingest_reports_the_agreed_keys(monkeypatch, capsys) -> None:
    monkeypatch.setattr(ingest, "VERIFY_SECONDS", 0.05)
    arguments = ["--devices", "20", "--updates", "100", "--half-load-seconds", "0.2", "--soak-seconds", "0.5"]
    monkeypatch.setattr(sys, "argv", ["ingest", *arguments])
    ingest.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    for key in ("updates_per_second", "verify_only_per_second", "p50_ms", "p99_ms", "peak_rss_mb"):
        assert found[key] > 0
    assert len(found["soak_rss_mb"]) == 10
