"""Lay out what the documentation's site is made of: `python packaging/site/gather.py FOLDER`.

Every document of the repository, in the folder where it is, so that a link that works in a checkout works on the site;
and whatever else documents link to. A folder that is linked to gets a page that lists it, if it has no README.md.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import urldefrag

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s]+)(?=\))")
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def gather(out: Path) -> None:
    """Fill the folder `out`, which is emptied first.

    Raises:
        SystemExit: a document links to what is no file of the repository, and no folder with documents.
    """
    shutil.rmtree(out, ignore_errors=True)
    tracked = _tracked()
    wanted = {path for path in tracked if path.suffix == ".md"}
    folders: set[PurePosixPath] = set()
    for document in sorted(wanted):
        text = (ROOT / document).read_text(encoding="utf-8")
        for found in LINK.findall(text):
            path = _within(document.parent, urldefrag(found).url)
            if path in tracked:
                wanted.add(path)
            elif any(each.parent == path and each.suffix == ".md" for each in tracked):
                folders.add(path)
            else:
                raise SystemExit(f"{document}: links to {found}, which is no file here, and no folder with documents")
        _write(out / document, LINK.sub(lambda link, here=document.parent: _to_page(link[1], here), text))
    for path in wanted:
        if path.suffix != ".md":
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, out / path)
    for folder in folders - {path.parent for path in wanted if path.name == "README.md"}:
        _write(out / folder / "README.md", _listing(folder, tracked))


def _tracked() -> set[PurePosixPath]:
    """Files of the repository, and new ones that git does not ignore."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return {PurePosixPath(name) for name in names if name and (ROOT / name).is_file()}


def _within(folder: PurePosixPath, link: str) -> PurePosixPath:
    """What a link in a document of `folder` points to, from the repository's root."""
    parts: list[str] = []
    for part in (folder / link).parts:
        if part == "..":
            parts = parts[:-1]
        else:
            parts.append(part)
    return PurePosixPath(*parts)


def _to_page(link: str, folder: PurePosixPath) -> str:
    """The same link, or that of the page which lists the folder that it points to."""
    path, anchor = urldefrag(link)
    if not (ROOT / _within(folder, path)).is_dir():
        return link
    return f"{path.rstrip('/')}/README.md" + (f"#{anchor}" if anchor else "")


def _listing(folder: PurePosixPath, tracked: set[PurePosixPath]) -> str:
    documents = sorted(path for path in tracked if path.parent == folder and path.suffix == ".md")
    titles = {path: TITLE.search((ROOT / path).read_text(encoding="utf-8")) for path in documents}
    lines = [f"- [{title[1] if title else path.stem}]({path.name})" for path, title in titles.items()]
    return "\n".join([f"# {folder.name.capitalize()}", "", *lines, ""])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    gather(Path(sys.argv[1]))
