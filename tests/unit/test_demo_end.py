"""However a demo ends, what it found is shown and written, and what went wrong is one line of words."""

import errno
from pathlib import Path

import msgspec
import pytest

from fleet_protocol.errors import ConfigurationError
from tests.unit.test_report import history
from workbench.demo import show
from workbench.demo.show import show_demo
from workbench.report.history import DrawnPictures, DrawnVariety, RunHistory

FAILED = "gateway ended with code 1; the end of helper.log:\n<no memory>"


def ending(monkeypatch: pytest.MonkeyPatch, found: RunHistory) -> None:
    async def run_demo(*_: object) -> RunHistory:
        return found

    monkeypatch.setattr(show, "run_demo", run_demo)


def test_with_a_program_that_ended_by_itself_there_is_a_report_and_its_last_words(tmp_path, monkeypatch) -> None:
    early = msgspec.structs.replace(history().summary, stopped_early=True)
    ending(monkeypatch, msgspec.structs.replace(history(), summary=early, failure=FAILED))
    with pytest.raises(ConfigurationError, match="gateway ended with code 1"):
        show_demo(4, 0, tmp_path / "run", "auto")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "&lt;no memory&gt;" in page
    assert "Ctrl-C" not in page
    assert (tmp_path / "run" / "summary.json").exists()


def test_on_a_full_disk_the_result_is_printed_all_the_same(tmp_path, monkeypatch, capsys) -> None:
    ending(monkeypatch, history())

    def full(_path: Path, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigurationError, match=r"the report can't be written: No space left.*make room"):
        show_demo(4, 0, tmp_path / "run", "auto")
    assert "96.4%" in capsys.readouterr().out


def test_pictures_of_a_cluster_stand_in_the_report_itself(tmp_path, monkeypatch) -> None:
    drawn = [
        DrawnPictures("cluster 1", ["<pi>"], 3, b"png", b"png", [0, 3], DrawnVariety(0.21, 0.25, 2, is_narrow=False)),
        DrawnPictures("cluster 2", ["pi"], 3, b"", variety=DrawnVariety(0.0, 0.25, 2, is_narrow=True)),
    ]
    ending(monkeypatch, msgspec.structs.replace(history(), drawn=drawn))
    show_demo(4, 0, tmp_path / "run", "auto")
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count('src="data:image/png;base64,cG5n"') == 2
    assert "&lt;pi&gt;; version 3; variety 0.21, the greatest 0.25 in version 2</p>" in page
    assert page.count("pictures of a class have become alike") == 1
    assert "nothing that is a finite number" in page
