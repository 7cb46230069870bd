"""Debian's Chromium on a coordinator's dashboard: what it shows, and whether everybody can use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

AXE = Path(__file__).parent / "axe" / "axe.min.js"
CHROMIUM = "/usr/bin/chromium"
ALONE = ("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--disable-background-networking")
"""No name but this machine's address is found, and it asks nobody by itself."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser."""
    with sync_playwright() as playwright:
        # Its sandbox needs namespaces, which root in a container has not.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *ALONE])
        yield browser
        browser.close()


class Looker:
    """One person with a browser; `requests` are all that it has asked for, `complaints` what it complains of."""

    def __init__(self, browser: Browser, address: str, token: str | None = None, **options: Any) -> None:
        self.address = address
        self.context: BrowserContext = browser.new_context(locale="en-GB", **options)
        self.page: Page = self.context.new_page()
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request))  # noqa: PLW0108 - it notes on what it is given
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        self.page.goto(address)
        if token is not None:
            self.page.get_by_label("Token").fill(token)
            self.page.get_by_role("button", name="Log in").click()
            self.page.get_by_role("heading", name="Tasks", level=1).wait_for()
            self.complaints = [each for each in self.complaints if "401" not in each]

    def open(self, name: str, heading: str) -> None:
        """Open a page by its hash, and wait for its heading."""
        self.page.goto(f"{self.address}/#/{name}")
        self.page.get_by_role("heading", name=heading, level=1, exact=True).wait_for()

    def barriers(self) -> list[str]:
        """What axe-core finds that keeps somebody from using the page as it is now."""
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})")
        return [
            f"{each['id']}: {each['help']}: {[place['html'][:200] for place in each['nodes']]}"
            for each in found["violations"]
        ]

    def strangers(self) -> list[str]:
        """Addresses of other servers that it has asked for."""
        return [each.url for each in self.requests if not each.url.startswith(self.address)]
