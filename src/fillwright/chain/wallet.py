"""The only file that sees a private key.

A key comes in through one of three doors, becomes something that signs, and is not seen again: no text, error, copy or
pickle of anything here shows it. What was read is never repeated, not even the name of the file, for people put keys
into the wrong variable; and errors leave this file without the frames and causes that could hold a key (`_untraced`).

A keystore is JSON. Its key is encrypted by AES-256-GCM with a key that scrypt (RFC 7914) makes of a passphrase; all
other fields are authenticated along with it, so that nobody can make it show another address or a weaker scrypt.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import os
import stat
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Annotated, Final, Literal, NoReturn, ParamSpec, Protocol, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from solders.keypair import Keypair

from fillwright.core.accounts import Address, format_address
from fillwright.core.errors import InvalidWallet
from fillwright.core.units import BASE58

P = ParamSpec("P")
T = TypeVar("T")

KEY: Final = "FILLWRIGHT_WALLET_KEY"
PASSPHRASE: Final = "FILLWRIGHT_WALLET_PASSPHRASE"  # noqa: S105 - the name of a variable
PASSPHRASE_FILE: Final = "FILLWRIGHT_WALLET_PASSPHRASE_FILE"  # noqa: S105

SEED_BYTES: Final = 32
KEY_BYTES: Final = 64  # the seed and, behind it, the address
KEY_CHARACTERS_MAX: Final = 88  # of base 58
FILE_BYTES_MAX: Final = 16_384
PASSPHRASE_CHARACTERS_MIN: Final = 12

SCRYPT_P_MAX: Final = 4
SALT_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16

PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


class Wallet(Protocol):
    @property
    def address(self) -> Address: ...

    async def sign(self, message: bytes) -> bytes:
        """Return the ed25519 signature, 64 bytes, of a serialized message. What may be signed was decided before."""


class LocalWallet:
    """A wallet whose key is in this process's memory. It can be neither copied nor pickled."""

    __slots__ = ("_sign", "address")

    def __init__(self, keypair: Keypair) -> None:
        self.address = Address(bytes(keypair.pubkey()))
        self._sign = keypair.sign_message

    async def sign(self, message: bytes) -> bytes:
        return bytes(self._sign(message))

    def __repr__(self) -> str:
        return f"<wallet {format_address(self.address)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a wallet cannot be copied or pickled: that would copy its key")


def open_wallet(source: str, environ: MutableMapping[str, str], *, passphrase_file: str = "") -> LocalWallet:
    """Return the wallet that `source` names: `keystore:PATH`, `file:PATH`, or `env:`.

    What `environ` holds of keys and passphrases is taken out of it, so that no child process inherits it. Raise
    InvalidWallet, which says what to do and shows nothing of what was read.
    """
    shield_memory()
    return LocalWallet(_untraced(_open, source, environ, passphrase_file))


def create_keystore(path: Path, environ: MutableMapping[str, str], *, passphrase_file: str = "") -> Address:
    """Write a keystore with a new key, and return its address once it is on the disk and was read back.

    Raise InvalidWallet if there is such a file already, or no passphrase, or too short a one.
    """
    return import_keystore(path, lambda: str(Keypair()), environ, passphrase_file=passphrase_file)


def import_keystore(
    path: Path, read: Callable[[], str], environ: MutableMapping[str, str], *, passphrase_file: str = ""
) -> Address:
    """Write a keystore with the key that `read` returns: base58, or the JSON array of Solana's command line.

    Raise InvalidWallet if that is no key, and as `create_keystore` does.
    """
    shield_memory()
    return _untraced(_import, path, read, environ, passphrase_file)


def is_private_key(text: str) -> bool:
    """Return whether text is a private key, wherever it was put by mistake."""
    try:
        _keypair(text, "")
    except InvalidWallet:
        return False
    return True


def shield_memory() -> None:
    """Keep this process's memory out of core dumps, and from other processes of its user, where the system can."""
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def _untraced(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `work` does. Raise its error anew: the first one's frames, arguments and causes may hold a key."""
    try:
        return work(*args, **kwargs)
    except InvalidWallet as error:
        why = str(error)
    except Exception as error:
        why = f"the wallet cannot be opened: {type(error).__name__}"
    raise InvalidWallet(why)


def _open(source: str, environ: MutableMapping[str, str], passphrase_file: str) -> Keypair:
    secret, passphrase = environ.pop(KEY, ""), environ.pop(PASSPHRASE, "")
    scheme, _, path = source.partition(":")
    match scheme:
        case "keystore" if path:
            return _from_keystore(Path(path), passphrase, passphrase_file)
        case "file" if path:
            return _keypair(_read_private(Path(path), "the file with the key"), "the file that FILLWRIGHT_WALLET names")
        case "env" if not path:
            if not secret:
                raise InvalidWallet(f"{KEY} is not set, and FILLWRIGHT_WALLET says that the key is there")
            return _keypair(secret, KEY)
    raise InvalidWallet("FILLWRIGHT_WALLET must be keystore:PATH, file:PATH or env:")


def _import(path: Path, read: Callable[[], str], environ: MutableMapping[str, str], passphrase_file: str) -> Address:
    passphrase = environ.pop(PASSPHRASE, "")
    keypair = _keypair(read(), "what was given")
    passphrase = _passphrase(passphrase, passphrase_file, is_new=True)
    _write_private(path, _encrypted(keypair, passphrase))
    if _from_keystore(path, passphrase, "") != keypair:
        raise InvalidWallet("the keystore was written, but what was read back is not the same: do not use it")
    return Address(bytes(keypair.pubkey()))


# ---- keys as text


def _keypair(text: str, what: str) -> Keypair:
    text = text.strip()
    data = _from_json(text) if text.startswith("[") else _from_base58(text)
    if len(data) == KEY_BYTES:
        keypair = Keypair.from_seed(data[:SEED_BYTES])
        if bytes(keypair.pubkey()) == data[SEED_BYTES:]:
            return keypair
    raise InvalidWallet(f"{what} is not a private key: 64 bytes in base58, or a JSON array of 64 numbers")


def _from_json(text: str) -> bytes:
    try:
        return bytes(msgspec.json.decode(text, type=list[int]))
    except (msgspec.MsgspecError, ValueError):
        return b""


def _from_base58(text: str) -> bytes:
    if len(text) > KEY_CHARACTERS_MAX or not set(text) <= set(BASE58):
        return b""
    value = 0
    for letter in text:
        value = value * 58 + BASE58.index(letter)
    leading = len(text) - len(text.lstrip("1"))
    return bytes(leading) + value.to_bytes((value.bit_length() + 7) // 8)


# ---- files


def _read_private(path: Path, what: str) -> str:
    """Return the text of a file that only its owner may read."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        # The path is not told: people have put the key itself where its file should stand.
        where = "" if path.is_absolute() else f"; it was looked for from {Path.cwd()} on"
        raise InvalidWallet(f"{what} cannot be read: {error.strerror}{where}") from error
    if mode & 0o077 and os.name == "posix":
        raise InvalidWallet(
            f"{what} is open to others (mode {stat.S_IMODE(mode):04o}): `chmod 600` it, and if others may have read it,"
            " move the funds to a new key"
        )
    if len(data) > FILE_BYTES_MAX:
        raise InvalidWallet(f"{what} has more than {FILE_BYTES_MAX} bytes: it is another file")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidWallet(f"{what} is not text") from error


def _write_private(path: Path, data: bytes) -> None:
    """Write a new file, which only its owner may read."""
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except FileExistsError as error:
        raise InvalidWallet(
            "there is a file of this name already, and a key that is overwritten is gone for ever: take another name"
        ) from error
    except OSError as error:
        raise InvalidWallet(f"the keystore cannot be written: {error.strerror}") from error
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except OSError as error:
        path.unlink()
        raise InvalidWallet(f"the keystore cannot be written: {error.strerror}") from error


# ---- the passphrase


def _passphrase(given: str, passphrase_file: str, *, is_new: bool) -> str:
    if given and passphrase_file:
        raise InvalidWallet(f"both {PASSPHRASE} and {PASSPHRASE_FILE} are set: unset one")
    if passphrase_file:
        given = _read_private(Path(passphrase_file), "the file with the passphrase").rstrip("\r\n")
    elif not given and sys.stdin.isatty():
        given = getpass.getpass("Passphrase of the wallet: ")
        if is_new and getpass.getpass("The same again: ") != given:
            raise InvalidWallet("the two passphrases differ")
    if not given:
        raise InvalidWallet(
            f"the keystore needs its passphrase: set {PASSPHRASE} or {PASSPHRASE_FILE}, or start on a terminal"
        )
    if is_new and len(given) < PASSPHRASE_CHARACTERS_MIN:
        raise InvalidWallet(f"a passphrase needs {PASSPHRASE_CHARACTERS_MIN} characters or more")
    return given


# ---- the keystore


class Keystore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. Bytes are hexadecimal, the address is base58.

    The least `n` and `r` take 128 MiB of memory for each guess, what OWASP's Password Storage Cheat Sheet asks of
    scrypt at least. The greatest keep a file that somebody else wrote from taking all memory there is.
    """

    version: Literal[1]
    address: str
    kdf: Literal["scrypt"]
    n: Literal[131_072, 262_144, 524_288, 1_048_576]
    r: Literal[8]
    p: Annotated[int, msgspec.Meta(ge=1, le=SCRYPT_P_MAX)]
    salt: Annotated[str, msgspec.Meta(pattern=f"^[0-9a-f]{{{2 * SALT_BYTES}}}$")]
    cipher: Literal["aes-256-gcm"]
    nonce: Annotated[str, msgspec.Meta(pattern=f"^[0-9a-f]{{{2 * NONCE_BYTES}}}$")]
    ciphertext: Annotated[str, msgspec.Meta(pattern=f"^[0-9a-f]{{{2 * (SEED_BYTES + TAG_BYTES)}}}$")]

    def header(self) -> bytes:
        """Return what is authenticated along with the ciphertext: all the rest."""
        return msgspec.json.encode([getattr(self, name) for name in self.__struct_fields__[:-1]])

    def cipher_by(self, passphrase: str) -> AESGCM:
        salt = bytes.fromhex(self.salt)
        return AESGCM(Scrypt(salt=salt, length=32, n=self.n, r=self.r, p=self.p).derive(passphrase.encode()))


def _encrypted(keypair: Keypair, passphrase: str) -> bytes:
    keystore = Keystore(
        version=1,
        address=str(keypair.pubkey()),
        kdf="scrypt",
        n=131_072,
        r=8,
        p=1,
        salt=os.urandom(SALT_BYTES).hex(),
        cipher="aes-256-gcm",
        nonce=os.urandom(NONCE_BYTES).hex(),
        ciphertext="",
    )
    cipher = keystore.cipher_by(passphrase)
    ciphertext = cipher.encrypt(bytes.fromhex(keystore.nonce), keypair.secret(), keystore.header()).hex()
    return msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(keystore, ciphertext=ciphertext))) + b"\n"


def _from_keystore(path: Path, given: str, passphrase_file: str) -> Keypair:
    try:
        keystore = msgspec.json.decode(_read_private(path, "the keystore"), type=Keystore)
    except msgspec.MsgspecError as error:
        raise InvalidWallet(
            "the file is no keystore of this version, or it is damaged, or weaker than allowed: scrypt takes an n from"
            f" 131072 to 1048576, r 8, p to {SCRYPT_P_MAX} and {SALT_BYTES} bytes of salt"
        ) from error
    cipher = keystore.cipher_by(_passphrase(given, passphrase_file, is_new=False))
    try:
        nonce, ciphertext = bytes.fromhex(keystore.nonce), bytes.fromhex(keystore.ciphertext)
        keypair = Keypair.from_seed(cipher.decrypt(nonce, ciphertext, keystore.header()))
    except InvalidTag as error:
        raise InvalidWallet("the keystore does not open: the passphrase is wrong, or the file was changed") from error
    if str(keypair.pubkey()) != keystore.address:
        raise InvalidWallet("the keystore holds another key than its address says")
    return keypair
