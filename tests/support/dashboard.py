"""A coordinator's dashboard, asked as a browser or a script asks it."""

import secrets
from pathlib import Path
from typing import Any

import httpx

from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until

TOKEN = secrets.token_hex(32)


class AskedDashboard:
    """The dashboard on a port of this machine; `headers` are sent with every request."""

    def __init__(self, port: int, headers: dict[str, str] | None = None) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(
            base_url=self.address, headers=headers, timeout=30.0, limits=httpx.Limits(max_connections=1000)
        )

    def answers(self) -> bool:
        """Whether it answers at all."""
        try:
            return self.client.get("/").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str, **query: object) -> Any:
        """What is at an address."""
        return self.client.get(path, params=query).raise_for_status().json()  # type: ignore[arg-type]

    def post(self, path: str, **body: object) -> httpx.Response:
        """Send a change."""
        return self.client.post(path, json=body)


def settings_of(folder: Path, port: int) -> str:
    """The table of coordinator.toml for a dashboard with `TOKEN`, which is written into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dashboard.token").touch(mode=0o600)
    (folder / "dashboard.token").write_text(TOKEN)
    return f'[dashboard]\nport = {port}\ntoken_file = "{folder / "dashboard.token"}"\n'


def asked_dashboard(coordinator: CoordinatorProcess, port: int) -> AskedDashboard:
    """That of a coordinator that was started; with its token."""
    dashboard = AskedDashboard(port, {"Authorization": f"Bearer {TOKEN}"})
    until(lambda: coordinator.exit_status() is None and dashboard.answers(), "the dashboard answers")
    return dashboard
