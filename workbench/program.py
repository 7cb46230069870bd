"""The command `edgeflock`. A gateway has no packages but the helper's: `edgeflock helper` needs no others."""

import sys

HELPER = "helper"


def main() -> None:
    """Run the helper's command, or any other of the workstation's."""
    if sys.argv[1:2] == [HELPER]:
        from session_relay.helper.cli import main as run_helper  # noqa: PLC0415 - only one of the two is needed

        run_helper(sys.argv[2:])
        return
    from workbench.cli import main as run_workbench  # noqa: PLC0415 - it needs the extra `demo`

    run_workbench()


if __name__ == "__main__":
    main()
