"""The command line. Each command is the `command` of the module of its name in `cli`, imported when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

import click
from click.shell_completion import CompletionItem

from fillwright import __version__
from fillwright.cli.exits import EXIT_CODES, INTERRUPTED

COMMANDS: Final = {
    "serve": "Run the engine: the API, and a worker.",
    "worker": "Run one more worker.",
    "all": "Run several API and worker processes together.",
    "migrate": "Bring the database's schema up to date.",
    "localnet": "Run a local chain with pools and money to rehearse on.",
    "demo": "Start an engine, submit some orders and show their lives.",
    "order": "Submit, follow, explain and cancel orders.",
    "quote": "Show the route that an order would take now.",
    "pools": "Import snapshots of real pools, and verify quotes against recorded swaps.",
    "wallet": "Create a keystore, import a key, show the wallet's address.",
    "stats": "Count what waits, runs and is done.",
    "top": "Show what the engine does, live.",
    "halt": "Stop taking and signing orders, at once and everywhere.",
    "resume": "Go on after a halt.",
    "limits": "Show and set how far orders may go.",
    "keys": "Create, list and revoke API keys.",
    "webhooks": "Have addresses told what becomes of orders.",
    "audit": "Show or verify who did what.",
    "reconcile": "Compare every order with the chain's own record.",
    "doctor": "Say whether everything that trading needs is in order.",
    "bullmq": "Take orders from a BullMQ queue.",
    "completion": "Print what makes a shell complete these commands.",
}


class Commands(click.Group):
    """Knows its commands by name, so that `serve` does not carry what only the others need."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"fillwright.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name without importing them all: the user waits for this between two keys."""
        names = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return names or click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands, epilog=EXIT_CODES, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="fillwright")
def cli() -> None:
    """Fillwright executes orders on Solana DEXs, each exactly once.

    `fillwright demo` shows it; `fillwright serve` runs it.
    """


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    try:
        sys.exit(cli.main(prog_name="fillwright", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
