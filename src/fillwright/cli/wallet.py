"""`fillwright wallet ...`."""

from __future__ import annotations

import getpass
import json
import os
import sys
from pathlib import Path
from typing import Final

import click

from fillwright.chain.wallet import create_keystore, import_keystore, is_private_key, open_wallet
from fillwright.cli.exits import EXIT_CODES, Misused, Refused, settings_or_fail
from fillwright.core.accounts import Address, format_address
from fillwright.core.errors import InvalidWallet

TARGET: Final = click.argument("path", type=click.Path(path_type=Path))
AS_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
# What is too much is not repeated by click then: it may be a key.
EXTRA: Final = click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="")


@click.group(epilog=EXIT_CODES)
def command() -> None:
    """Create a keystore, import a key, show the wallet's address.

    A keystore is a file with an encrypted key. Its passphrase comes from FILLWRIGHT_WALLET_PASSPHRASE, from the file
    that FILLWRIGHT_WALLET_PASSPHRASE_FILE names, or from the terminal. Keep a copy of both, apart from each other:
    without them, what the wallet holds is lost.
    """


@command.command(epilog=EXIT_CODES)
@TARGET
@EXTRA
@AS_JSON
def create(path: Path, extra: tuple[str, ...], as_json: bool) -> None:
    """Write a keystore with a new key to PATH, and print its address."""
    _check_arguments(path, extra)
    passphrase_file = settings_or_fail(os.environ).wallet_passphrase_file
    try:
        address = create_keystore(path, os.environ, passphrase_file=passphrase_file)
    except InvalidWallet as error:
        raise _refused(error, as_json) from error
    _written(address, path, as_json)


@command.command("import", epilog=EXIT_CODES)
@TARGET
@EXTRA
@AS_JSON
def import_(path: Path, extra: tuple[str, ...], as_json: bool) -> None:
    """Write a keystore with a key that there is to PATH, and print its address.

    The key comes from standard input, or is asked for: in base58, or as Solana's command line keeps it in id.json. It
    is never an argument: those are seen by everybody on the machine, and kept in the shell's history.
    """
    _check_arguments(path, extra)
    passphrase_file = settings_or_fail(os.environ).wallet_passphrase_file
    try:
        address = import_keystore(path, _read_key, os.environ, passphrase_file=passphrase_file)
    except InvalidWallet as error:
        raise _refused(error, as_json) from error
    _written(address, path, as_json)


@command.command(epilog=EXIT_CODES)
@AS_JSON
def show(as_json: bool) -> None:
    """Print the address of the wallet that FILLWRIGHT_WALLET names.

    A keystore is opened for it: the address that stands in the file is believed only if the key is that address's.
    """
    settings = settings_or_fail(os.environ)
    if not settings.wallet:
        raise Misused("there is no wallet: set FILLWRIGHT_WALLET", "invalid_wallet")
    try:
        wallet = open_wallet(settings.wallet, os.environ, passphrase_file=settings.wallet_passphrase_file)
    except InvalidWallet as error:
        raise _refused(error, as_json) from error
    _print(wallet.address, as_json)


def _check_arguments(path: Path, extra: tuple[str, ...]) -> None:
    if extra or is_private_key(str(path)):
        raise Misused(
            "there is one argument, the path of the keystore. If you gave a key: it is in your shell's history now, and"
            " others may have seen it; move the funds to a new one",
            "invalid_arguments",
        )


def _read_key() -> str:
    return getpass.getpass("Private key: ") if sys.stdin.isatty() else sys.stdin.read()


def _written(address: Address, path: Path, as_json: bool) -> None:
    _print(address, as_json)
    click.echo(
        f"The key is in {path}, encrypted. Set FILLWRIGHT_WALLET=keystore:{path.absolute()}, and keep a copy of the"
        " file and of its passphrase, apart from each other: without them, what the wallet holds is lost.",
        err=True,
    )


def _print(address: Address, as_json: bool) -> None:
    text = format_address(address)
    click.echo(json.dumps({"address": text}, separators=(",", ":")) if as_json else text)


def _refused(error: InvalidWallet, as_json: bool) -> Refused:
    refused = Refused(str(error), error.code)
    refused.as_json = as_json
    return refused
