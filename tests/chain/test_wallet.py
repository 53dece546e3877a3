"""A key signs, and is found nowhere: in no text, error, copy, log or file but its own."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import pprint
import pty
import re
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import pytest
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from fillwright.chain.policy import check
from fillwright.chain.wallet import KEY, PASSPHRASE, create_keystore, import_keystore, open_wallet
from fillwright.core.accounts import Address, format_address
from fillwright.core.errors import InvalidWallet
from fillwright.core.units import base58
from fillwright.settings import SettingsError, read_settings
from tests.chain.transactions import an_honest_one
from tests.cli.terminal import Terminal

SEED: Final = sha256(b"a canary that must not sing").digest()
CANARY: Final = Keypair.from_seed(SEED)
ADDRESS: Final = str(CANARY.pubkey())
SECRET: Final = "correct horse battery staple"
AS_JSON: Final = CANARY.to_json()
AS_BASE58: Final = str(CANARY)


def songs() -> list[bytes]:
    """Return every way to write the key, or enough of it, and the passphrase."""
    texts = [AS_BASE58, base58(SEED), SEED.hex(), SEED.hex().upper(), base64.b64encode(SEED).decode()[:42], SECRET]
    texts += [base64.b64encode(bytes(CANARY)).decode()[:42], base64.urlsafe_b64encode(SEED).decode()[:42]]
    texts += [separator.join(map(str, SEED)) for separator in (",", ", ", "\n ", " ")]
    texts += [repr(SEED)[2:-1], repr(bytes(CANARY))[2:-1], repr(SEED[:16])[2:-1]]
    return [SEED, *(text.encode() for text in texts)]


def sung(heard: bytes | str) -> list[bytes]:
    data = heard.encode("utf-8", "surrogateescape") if isinstance(heard, str) else heard
    return [song for song in songs() if song in data]


def all_of(error: BaseException) -> Iterator[str]:
    """Yield all that anybody could print of an error, with the local variables of each frame below the test's."""
    yield from (str(error), repr(error), repr(error.args), pprint.pformat(vars(error)))
    assert error.__cause__ is None
    assert error.__context__ is None
    frames = traceback.TracebackException.from_exception(error, capture_locals=True, lookup_lines=False)
    for frame in frames.stack[1:]:
        yield f"{frame.name}: {frame.locals}"
    with_frames: Any = pickle.dumps(error)
    yield with_frames.decode("latin-1")


@dataclass(frozen=True, slots=True)
class Place:
    """Files, and an environment, in which a wallet is looked for."""

    folder: Path
    environ: dict[str, str]

    def file(self, name: str, text: str | bytes, mode: int = 0o600) -> str:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return str(path)

    def refusal(self, source: str, *, passphrase_file: str = "") -> InvalidWallet:
        environ = dict(self.environ)
        with pytest.raises(InvalidWallet) as caught:
            open_wallet(source, environ, passphrase_file=passphrase_file)
        assert not {KEY, PASSPHRASE} & environ.keys()
        for text in all_of(caught.value):
            assert sung(text) == []
        return caught.value


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, {})


@pytest.fixture(scope="module")
def keystore(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of a keystore with the canary in it."""
    path = tmp_path_factory.mktemp("keystore") / "wallet.json"
    address = import_keystore(path, lambda: AS_JSON, {PASSPHRASE: SECRET})
    assert format_address(address) == ADDRESS
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert sung(text) == []
    return text


def sources(place: Place, keystore: str) -> Iterator[tuple[str, dict[str, str]]]:
    yield f"keystore:{place.file('wallet.json', keystore)}", {PASSPHRASE: SECRET}
    yield f"file:{place.file('id.json', AS_JSON)}", {}
    yield f"file:{place.file('id.txt', AS_BASE58 + chr(10), 0o400)}", {}
    yield "env:", {KEY: AS_BASE58}
    yield "env:", {KEY: f" {AS_JSON}\n"}


async def test_a_key_from_every_source_signs_what_the_chain_accepts(place: Place, keystore: str) -> None:
    for source, environ in sources(place, keystore):
        wallet = open_wallet(source, environ)
        assert environ == {}, "no child inherits it"
        assert format_address(wallet.address) == ADDRESS
        built = an_honest_one(Random(source))
        message = MessageV0.try_compile(CANARY.pubkey(), [], [], built_blockhash(built.message))
        raw = b"\x80" + bytes(message)
        signature = Signature.from_bytes(await wallet.sign(raw))
        assert signature.verify(Pubkey.from_bytes(wallet.address), raw)
        assert VersionedTransaction.populate(message, [signature]).verify_with_results() == [True]


def built_blockhash(message: bytes) -> Any:
    return MessageV0.from_bytes(message[1:]).recent_blockhash


def test_no_representation_shows_a_key(place: Place, keystore: str) -> None:
    for source, environ in sources(place, keystore):
        wallet = open_wallet(source, environ)
        members = [(name, getattr(wallet, name)) for name in dir(wallet)]
        texts = [repr(wallet), str(wallet), f"{wallet}", f"{wallet!r:>90}", pprint.pformat(members)]
        texts += [repr(wallet.sign), repr(wallet.__class__.__dict__), pprint.pformat([wallet, {"wallet": wallet}])]
        assert ADDRESS in texts[0]
        for text in texts:
            assert sung(text) == []
        assert not hasattr(wallet, "__dict__")
        pickles = [partial(pickle.dumps, protocol=protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
        ways: list[Callable[[object], object]] = [copy.copy, copy.deepcopy, *pickles]
        for copying in ways:
            with pytest.raises(TypeError, match="cannot be copied or pickled") as caught:
                copying(wallet)
            assert sung("".join(traceback.TracebackException.from_exception(
                caught.value, capture_locals=True).format())) == []  # fmt: skip
        for encode in (json.dumps, msgspec.json.encode, msgspec.msgpack.encode):
            with pytest.raises(TypeError) as caught:
                encode(wallet)
            assert sung(str(caught.value)) == []


def test_what_is_no_key_is_refused_and_not_repeated(place: Place) -> None:
    numbers = json.loads(AS_JSON)
    of_another = [*numbers[:32], *bytes(Keypair.from_seed(bytes(32)).pubkey())]
    for text in (
        "", "[]", AS_JSON[:-1], AS_JSON + "]", json.dumps(numbers[:32]), json.dumps(numbers[:63]), AS_BASE58[:-1],
        json.dumps([*numbers, 0]), json.dumps([*numbers[:-1], 256]), json.dumps([*numbers[:-1], -1]), AS_BASE58 + "1",
        json.dumps([str(each) for each in numbers]), json.dumps(of_another), f'{{"key": {AS_JSON}}}', SEED.hex(),
        base58(SEED), AS_BASE58.replace(AS_BASE58[5], "0"), AS_BASE58 + "é", AS_BASE58 * 1000, "1" * 88,
    ):  # fmt: skip
        path = place.file("id.json", text)
        assert "private key" in str(place.refusal(f"file:{path}")) or len(text) > 16_384
        place.environ[KEY] = text
        assert re.search("is not a private key|is not set", str(place.refusal("env:")))
    for raw in (SEED, bytes(CANARY), b"\xff" + AS_JSON.encode()):
        assert re.search("is not text|private key", str(place.refusal(f"file:{place.file('id.json', raw)}")))
    assert "more than 16384 bytes" in str(place.refusal(f"file:{place.file('id.json', AS_JSON * 99)}"))


def test_a_key_in_the_wrong_variable_is_not_repeated_either(place: Place) -> None:
    for wrong in (AS_BASE58, f"env:{AS_BASE58}", f"ledger:{AS_BASE58}", AS_JSON):
        with pytest.raises(InvalidWallet) as caught:
            open_wallet(wrong, {})
        assert sung(str(caught.value)) == []
        with pytest.raises(SettingsError) as refused:
            read_settings({"FILLWRIGHT_WALLET": wrong}, place.folder / "none")
        assert sung(str(refused.value)) == []
    for wrong in (f"file:{AS_BASE58}", f"keystore:{AS_BASE58}", f"file:{AS_JSON}"):
        with pytest.raises(InvalidWallet, match="cannot be read") as caught:
            open_wallet(wrong, {})
        assert sung(str(caught.value)) == []


def test_settings_never_hold_a_key(place: Place) -> None:
    environ = {"FILLWRIGHT_WALLET": "env:", KEY: AS_BASE58, PASSPHRASE: SECRET}
    settings = read_settings(environ, place.folder / "none")
    assert sung(pprint.pformat(settings) + repr(msgspec.to_builtins(settings))) == []
    for name, text in ((KEY, AS_BASE58), (PASSPHRASE, SECRET)):
        env_file = Path(place.file(".env", f"{name}='{text}'\n"))
        with pytest.raises(SettingsError, match=f"{name} .* set it in the environment") as caught:
            read_settings({}, env_file)
        assert sung(str(caught.value)) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o666, 0o601])
def test_a_file_that_others_may_open_is_refused(place: Place, keystore: str, mode: int) -> None:
    place.environ[PASSPHRASE] = SECRET
    assert "chmod 600" in str(place.refusal(f"file:{place.file('id.json', AS_JSON, mode)}"))
    assert "chmod 600" in str(place.refusal(f"keystore:{place.file('wallet.json', keystore, mode)}"))
    place.environ.clear()
    path = place.file("wallet.json", keystore)
    secret = place.file("passphrase", SECRET, mode)
    assert "chmod 600" in str(place.refusal(f"keystore:{path}", passphrase_file=secret))


def test_a_keystore_opens_with_its_passphrase_alone(place: Place, keystore: str) -> None:
    source = f"keystore:{place.file('wallet.json', keystore)}"
    for ending in ("", "\n", "\r\n"):
        wallet = open_wallet(source, {}, passphrase_file=place.file("passphrase", SECRET + ending))
        assert format_address(wallet.address) == ADDRESS
    for wrong in (SECRET[:-1], SECRET.upper(), "x\udcff"):
        place.environ[PASSPHRASE] = wrong
        assert re.search("passphrase is wrong|UnicodeEncodeError", str(place.refusal(source)))
    place.environ[PASSPHRASE] = SECRET
    assert "unset one" in str(place.refusal(source, passphrase_file=place.file("passphrase", SECRET)))
    place.environ.clear()
    assert "needs its passphrase" in str(place.refusal(source))
    assert "needs its passphrase" in str(place.refusal(source, passphrase_file=place.file("passphrase", "\n")))
    assert "No such file" in str(place.refusal(source, passphrase_file="nowhere"))


def test_a_keystore_that_was_changed_does_not_open(place: Place, keystore: str) -> None:
    place.environ[PASSPHRASE] = SECRET
    stranger = str(Keypair.from_seed(bytes(32)).pubkey())
    whole = json.loads(keystore)

    def refusal(**changes: object) -> str:
        return str(place.refusal(f"keystore:{place.file('wallet.json', json.dumps({**whole, **changes}))}"))

    flipped = {name: f"{int(whole[name][0], 16) ^ 1:x}{whole[name][1:]}" for name in ("salt", "nonce", "ciphertext")}
    changed: list[tuple[str, object]] = [("address", stranger), ("p", 2), ("n", 2**18), *flipped.items()]
    for name, value in changed:
        assert "the file was changed" in refusal(**{name: value})
    weak: list[tuple[str, object]] = [("n", 2**16), ("n", 2**17 + 1), ("n", 2**21), ("n", -1), ("n", "131072")]
    for name, value in (*weak, ("r", 1), ("p", 0), ("p", 99)):
        assert "weaker than allowed" in refusal(**{name: value})
    odd: list[tuple[str, object]] = [("version", 2), ("kdf", "none"), ("cipher", "none"), ("salt", ""), ("nonce", "00")]
    odd += [("ciphertext", SEED.hex()), ("ciphertext", "zz" * 48), ("note", AS_BASE58), ("address", None)]
    for name, value in odd:
        assert "damaged" in refusal(**{name: value})
    for length in range(0, len(keystore) - 2, 37):
        assert "damaged" in str(place.refusal(f"keystore:{place.file('wallet.json', keystore[:length])}"))
    assert "damaged" in str(place.refusal(f"keystore:{place.file('wallet.json', AS_JSON)}"))


def test_a_keystore_never_takes_the_place_of_another_file(place: Place) -> None:
    path = Path(place.file("wallet.json", "what was there"))
    with pytest.raises(InvalidWallet, match="gone for ever"):
        create_keystore(path, {PASSPHRASE: SECRET})
    assert path.read_text() == "what was there"
    with pytest.raises(InvalidWallet, match="No such file"):
        create_keystore(place.folder / "nowhere" / "wallet.json", {PASSPHRASE: SECRET})
    with pytest.raises(InvalidWallet, match="12 characters or more"):
        create_keystore(place.folder / "new.json", {PASSPHRASE: "short"})
    with pytest.raises(InvalidWallet, match="is not a private key") as caught:
        import_keystore(place.folder / "new.json", lambda: AS_BASE58[:-1], {PASSPHRASE: SECRET})
    assert [text for text in all_of(caught.value) if sung(text)] == []
    assert not (place.folder / "new.json").exists()


async def test_what_the_policy_lets_pass_is_what_is_signed(place: Place) -> None:
    wallet = open_wallet("env:", {KEY: AS_BASE58})
    assert wallet.address == Address(bytes(CANARY.pubkey()))
    built = an_honest_one(Random(7))
    check(built.message, built.rules, built.known)
    signature = Signature.from_bytes(await wallet.sign(built.message))
    assert signature.verify(CANARY.pubkey(), built.message)


CHILD: Final = """
    import ctypes, os, resource, subprocess, sys
    import structlog
    from fillwright.chain.wallet import open_wallet
    from fillwright.core.errors import InvalidWallet
    from fillwright.telemetry import configure_logs

    configure_logs("debug", sys.argv[1])
    log = structlog.get_logger()
    for source, name in (("env:", ""), ("file:id.json", ""), ("keystore:wallet.json", "passphrase")):
        wallet = open_wallet(source, os.environ, passphrase_file=name)
        log.info("wallet.opened", wallet=wallet, members=[getattr(wallet, name) for name in dir(wallet)])
    for source, name in (("env:", ""), ("file:half.json", ""), ("keystore:id.json", "passphrase"),
                         ("keystore:wallet.json", "id.json")):
        try:
            open_wallet(source, os.environ, passphrase_file=name)
        except InvalidWallet as error:
            log.exception("wallet.refused", error=error)
    log.info("wallet.shielded", dumpable=ctypes.CDLL(None).prctl(3), core=resource.getrlimit(resource.RLIMIT_CORE))
    log.info("wallet.inherited", by=subprocess.run(["env"], capture_output=True, text=True).stdout)
    raise SystemExit(open_wallet("file:half.json", os.environ))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_logs_of_a_process_that_opens_and_fails_to_open_wallets_hold_no_key(
    place: Place, keystore: str, log_format: str
) -> None:
    place.file("wallet.json", keystore)
    place.file("id.json", AS_JSON)
    place.file("half.json", AS_JSON[:-1])
    place.file("passphrase", SECRET)
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), log_format],
        cwd=place.folder,
        env={**os.environ, KEY: AS_BASE58},
        capture_output=True,
        check=False,
    )
    heard = ended.stdout + ended.stderr
    assert (ended.returncode, sung(heard)) == (1, [])
    assert heard.count(ADDRESS.encode()) >= 3
    assert heard.count(b"wallet.refused") == 4
    assert re.search(rb'"dumpable":\s?0' if log_format == "json" else rb"dumpable.{0,20}=.{0,20}0", heard)
    assert re.search(rb"\[0,\s?0\]|\(0,\s?0\)", heard)


# ---- the command line


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, **{PASSPHRASE: SECRET})


def fed(terminal: Terminal, line: str, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fillwright", *line.split()],
        cwd=terminal.folder,
        env=terminal.settings,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_keystore_is_created_and_its_address_shown(terminal: Terminal) -> None:
    created = terminal.run("wallet create wallet.json")
    assert created.code == 0, created.err
    assert "keep a copy" in created.err
    there = Terminal(terminal.folder, **{PASSPHRASE: SECRET, "FILLWRIGHT_WALLET": "keystore:wallet.json"})
    assert there.run("wallet show").out == created.out
    assert there.run("wallet show --json").json == {"address": created.out.strip()}
    again = terminal.run("wallet create wallet.json")
    assert (again.code, "gone for ever" in again.err) == (1, True)
    wrong = Terminal(terminal.folder, **{PASSPHRASE: "another passphrase", "FILLWRIGHT_WALLET": "keystore:wallet.json"})
    assert json.loads(wrong.run("wallet show --json").err)["code"] == "invalid_wallet"
    assert "set FILLWRIGHT_WALLET" in terminal.run("wallet show").err


def test_a_key_is_imported_from_standard_input_and_never_from_an_argument(terminal: Terminal) -> None:
    for name, text in (("a.json", AS_JSON), ("b.json", AS_BASE58 + "\n")):
        imported = fed(terminal, f"wallet import {name}", text)
        assert (imported.returncode, imported.stdout) == (0, ADDRESS + "\n")
        assert sung(imported.stdout + imported.stderr + (terminal.folder / name).read_text()) == []
    for line in (
        f"wallet import {AS_BASE58}",
        f"wallet import c.json {AS_BASE58}",
        f"wallet create {AS_BASE58}",
        f"wallet create c.json {AS_BASE58}",
        f"wallet import c.json --key {AS_BASE58}",
    ):
        refused = fed(terminal, line, "")
        assert refused.returncode == 2
        assert sung(refused.stdout + refused.stderr) == []
    half = fed(terminal, "wallet import c.json --json", AS_JSON[:-1])
    assert json.loads(half.stderr)["code"] == "invalid_wallet"
    assert sung(half.stdout + half.stderr) == []
    assert sorted(path.name for path in terminal.folder.iterdir()) == ["a.json", "b.json"]


def test_on_a_terminal_key_and_passphrase_are_asked_for_and_not_shown(terminal: Terminal) -> None:
    """A pseudo-terminal shows what is typed unless it is told not to."""
    for typed, code in (((AS_BASE58, SECRET, SECRET), 0), ((AS_BASE58, SECRET, "something else"), 1)):
        (terminal.folder / "typed.json").unlink(missing_ok=True)
        ours, theirs = pty.openpty()
        settings = {name: text for name, text in terminal.settings.items() if name != PASSPHRASE}
        with subprocess.Popen(
            [sys.executable, "-m", "fillwright", "wallet", "import", "typed.json"],
            cwd=terminal.folder,
            env=settings,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            heard = b""
            for prompt, line in zip((b"Private key: ", b"of the wallet: ", b"again: "), typed, strict=True):
                heard = _until(ours, heard, prompt)
                os.write(ours, line.encode() + b"\n")
            heard = _until(ours, heard, None)
            assert process.wait(30) == code
        os.close(ours)
        assert sung(heard) == []
        assert (ADDRESS.encode() in heard) == (code == 0)


def _until(terminal: int, heard: bytes, text: bytes | None) -> bytes:
    """Read on until a text comes, or to the end."""
    while text is None or not heard.endswith(text):
        try:
            more = os.read(terminal, 4096)
        except OSError:  # what Linux says when the other side is closed
            break
        if not more:
            break
        heard += more
    return heard


def test_an_engine_with_a_key_in_its_environment_tells_nobody(tmp_path: Path) -> None:
    settings = {"FILLWRIGHT_WALLET": "env:", KEY: AS_BASE58, "LOG_LEVEL": "debug"}
    with Terminal(tmp_path, **settings).serve() as (terminal, engine):
        submitted = terminal.run("order submit SOL USDC 1 --watch")
        assert submitted.code == 0, submitted.err
        ended = engine.end(15)  # type: ignore[arg-type] # SIGTERM
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert sung(submitted.out + submitted.err + ended.out + ended.err) == []
    assert sung(files) == []
