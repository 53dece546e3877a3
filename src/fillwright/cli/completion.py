"""`fillwright completion`: what makes a shell complete the commands and their options."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from fillwright.cli.exits import EXIT_CODES

SHELLS: Final = ("bash", "zsh", "fish")
NAME: Final = "fillwright"
VARIABLE: Final = "_FILLWRIGHT_COMPLETE"  # click's name for it


@click.command(epilog=EXIT_CODES)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete `fillwright`.

    \b
    bash   eval "$(fillwright completion bash)"          in ~/.bashrc
    zsh    eval "$(fillwright completion zsh)"           in ~/.zshrc
    fish   fillwright completion fish | source           in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    completion = kind(context.find_root().command, {}, NAME, VARIABLE)
    click.echo(completion.source_template % completion.source_vars())
