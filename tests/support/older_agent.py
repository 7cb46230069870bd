"""`edge-agent` as a release before this one: it reads no bundle of today's format."""

from fleet_protocol import bundle

bundle.BUNDLE_FORMAT -= 1

from edge_agent.cli import main  # noqa: E402 - what it imports takes the format from there

if __name__ == "__main__":
    main()
