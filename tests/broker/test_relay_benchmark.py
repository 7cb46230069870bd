"""The relay's benchmark on a small load: nothing is lost, and the last line has the agreed keys."""

import json
import sys

from benchmarks import relay


def test_relay_reports_the_agreed_keys(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["relay", "--seconds", "0.3"])
    relay.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    for key in ("frames_per_second", "frames_per_cpu_second", "broker_frames_per_second", "peak_rss_mb"):
        assert found[key] > 0
    assert 0 < found["share_of_broker"] < 1
