"""Recorded swaps: what a pool's accounts held before a swap, and what the program on the chain then paid.

They are the oracle of the quotes: a pool type is right if it says, for each of its recordings, the very amount that was
paid, or refuses. A file is JSON, also compressed with gzip: either an object of lists by pool type, or one list whose
cases bear their `type`. docs/venues.md describes the fields of each type.
"""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from struct import Struct
from typing import Any, Final, TypeAlias

from fillwright.core.accounts import Account, Address, ChainTime, PoolAccounts, parse_address
from fillwright.core.errors import InvalidRecording, QuoteRefused, UnknownToken
from fillwright.core.programs import (
    METEORA_DAMM_V1,
    METEORA_DAMM_V2,
    METEORA_DLMM,
    METEORA_VAULT,
    RAYDIUM_AMM_V4,
    RAYDIUM_CLMM,
    RAYDIUM_CPMM,
    SPL_TOKEN,
    TOKEN_2022,
)
from fillwright.core.units import BaseUnits
from fillwright.venues.addresses import derive
from fillwright.venues.pool import Policy
from fillwright.venues.pool_types import BY_NAME

Accounts: TypeAlias = dict[Address, Account]
Case: TypeAlias = Mapping[str, Any]

POOL: Final = Address(b"the pool of a recorded swap".ljust(32))
LONG_AFTER: Final = 2**62  # where a recording names no time: its amount does not depend on it, and the pool was open
LEGACY_SWAP: Final = 9  # AMM v4: the instruction of the builds that also charge the fee as they did then

_TOKEN_ACCOUNT: Final = Struct("<32s32xQ36xB56x")
_MINT: Final = Struct("<36xQBB36x")


@dataclass(frozen=True, slots=True)
class Recording:
    """One swap: the pool as it was, what went in and what came out. `source` is where it is written down."""

    type: str
    note: str
    pool: PoolAccounts
    amount: BaseUnits
    a_to_b: bool
    paid: BaseUnits
    policy: Policy
    source: str = ""


@dataclass(slots=True)
class Tally:
    """How the quotes of a pool type compare with what was paid. `refused` counts by code, with one message each."""

    cases: int = 0
    equal: int = 0
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    mismatched: list[tuple[Recording, BaseUnits]] = field(default_factory=list)


def read_recordings(path: Path) -> Iterator[Recording]:
    """Yield the recordings of a file, or of all JSON of a folder.

    Raise InvalidRecording, which says where, if one cannot be read or there is none.
    """
    files = sorted(each for each in path.iterdir() if each.suffix in {".json", ".gz"}) if path.is_dir() else [path]
    count = 0
    for file in files:
        for name, index, case in _cases(file):
            count += 1
            try:
                yield replace(_READERS[name](case), source=f"{file.name}, case {index}")
            except KeyError as error:
                raise InvalidRecording(f"{file}: case {index} ({name}) lacks {error}") from error
            except (TypeError, ValueError, AttributeError, OverflowError, struct.error, UnknownToken) as error:
                raise InvalidRecording(f"{file}: case {index} ({name}) cannot be read: {error}") from error
    if not count:
        raise InvalidRecording(f"{path} holds no recorded swap")


def replay(recordings: Iterable[Recording]) -> dict[str, Tally]:
    """Quote every recording, and compare."""
    tallies: dict[str, Tally] = {}
    for each in recordings:
        tally = tallies.setdefault(each.type, Tally())
        tally.cases += 1
        try:
            quoted = quote(each)
        except QuoteRefused as error:
            count, message = tally.refused.get(error.code, (0, str(error)))
            tally.refused[error.code] = count + 1, message
        else:
            if quoted == each.paid:
                tally.equal += 1
            else:
                tally.mismatched.append((each, quoted))
    return tallies


def quote(recording: Recording) -> BaseUnits:
    """Return what the pool would pay. Raise QuoteRefused."""
    pool = recording.pool
    decoded = BY_NAME[recording.type].decode(pool.address, pool.accounts, recording.policy)
    return decoded.quote(recording.amount, recording.a_to_b, pool.time).out_amount


def _cases(path: Path) -> Iterator[tuple[str, int, Case]]:
    try:
        packed = path.read_bytes()
        content = json.loads(gzip.decompress(packed) if packed.startswith(b"\x1f\x8b") else packed)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise InvalidRecording(f"{path} cannot be read: {error}") from error
    if isinstance(content, dict) and all(isinstance(cases, list | None) for cases in content.values()):
        listed = [(name, case) for name, cases in content.items() for case in cases or ()]
    elif isinstance(content, list):
        listed = [(case.get("type") if isinstance(case, dict) else None, case) for case in content]
    else:
        raise InvalidRecording(f"{path} is neither an object of lists nor a list")
    for index, (given, case) in enumerate(listed):
        name = str(given).replace("_", "")  # as this program's own names have it
        if name not in _READERS or not isinstance(case, dict):
            raise InvalidRecording(f"{path}: case {index} has the type {given!r}; known: {', '.join(_READERS)}")
        yield name, index, case


def _recording(name: str, case: Case, accounts: Accounts, a_to_b: str, pool: Address = POOL, **more: Any) -> Recording:
    point = case.get("now", case.get("point", LONG_AFTER))
    time = ChainTime(int(case.get("slot", point)), int(case.get("epoch", 0)), int(point))
    return Recording(
        name,
        str(case.get("note", case.get("name", ""))),
        PoolAccounts(pool, time.slot, time, accounts),
        int(case["amount"]),
        bool(case[a_to_b]),
        int(case["onchain"]),
        more.get("policy", Policy()),
    )


def _amm_v4(case: Case) -> Recording:
    amm = b64decode(case["amm"], validate=True)
    accounts = {
        POOL: Account(RAYDIUM_AMM_V4, amm),
        _at(amm, 336): _tokens(_at(amm, 400), case["coin"]),
        _at(amm, 368): _tokens(_at(amm, 432), case["pc"]),
    }
    is_legacy = int(case.get("ix", LEGACY_SWAP)) == LEGACY_SWAP
    policy = Policy(amm_v4_fee="legacy" if is_legacy else "current")
    return _recording("amm_v4", case, accounts, "coin2pc", policy=policy)


def _cpmm(case: Case) -> Recording:
    pool = b64decode(case["pool"], validate=True)
    accounts = {
        POOL: Account(RAYDIUM_CPMM, pool),
        _at(pool, 8): Account(RAYDIUM_CPMM, b64decode(case["cfg"], validate=True)),
        _at(pool, 72): _tokens(_at(pool, 168), case["v0"], _at(pool, 232)),
        _at(pool, 104): _tokens(_at(pool, 200), case["v1"], _at(pool, 264)),
        _at(pool, 168): _mint(case.get("mint_0")),
        _at(pool, 200): _mint(case.get("mint_1")),
    }
    return _recording("cpmm", case, accounts, "zeroForOne")


def _clmm(case: Case) -> Recording:
    address, pool = parse_address(case["pool_id"]), b64decode(case["pool"], validate=True)
    accounts = {
        address: Account(RAYDIUM_CLMM, pool),
        _at(pool, 9): Account(RAYDIUM_CLMM, b64decode(case["cfg"], validate=True)),
        _at(pool, 73): _mint(case.get("mint_0")),
        _at(pool, 105): _mint(case.get("mint_1")),
    }
    if case.get("ext"):
        extension = derive(RAYDIUM_CLMM, b"pool_tick_array_bitmap_extension", address)
        accounts[extension] = Account(RAYDIUM_CLMM, b64decode(case["ext"], validate=True))
    for array, data in case["tas"]:
        accounts[parse_address(array)] = Account(RAYDIUM_CLMM, b64decode(data, validate=True))
    return _recording("clmm", case, accounts, "z", address)


def _damm_v2(case: Case) -> Recording:
    pool = b64decode(case["pool"], validate=True)
    accounts = {
        POOL: Account(METEORA_DAMM_V2, pool),
        _at(pool, 168): _mint(case.get("mint_a")),
        _at(pool, 200): _mint(case.get("mint_b")),
    }
    return _recording("damm_v2", case, accounts, "a2b")


def _dlmm(case: Case) -> Recording:
    address, pair = parse_address(case["pair"]), b64decode(case["lb"], validate=True)
    accounts = {
        address: Account(METEORA_DLMM, pair),
        _at(pair, 88): _mint(case.get("mint_x")),
        _at(pair, 120): _mint(case.get("mint_y")),
    }
    if case.get("ext"):
        accounts[derive(METEORA_DLMM, b"bitmap", address)] = Account(
            METEORA_DLMM, b64decode(case["ext"], validate=True)
        )
    for array, index in case["arrays"].items():
        data = b64decode(case["arr_data"][str(index)], validate=True)
        accounts[parse_address(array)] = Account(METEORA_DLMM, data)
    return _recording("dlmm", case, accounts, "x2y", address)


def _damm_v1(case: Case) -> Recording:
    pool = b64decode(case["pool"], validate=True)
    accounts: Accounts = {POOL: Account(METEORA_DAMM_V1, pool), _at(pool, 40): _mint(), _at(pool, 72): _mint()}
    for side, vault_at, shares_at in (("a", 104, 168), ("b", 136, 200)):
        vault = b64decode(case[f"v{side}"], validate=True)
        accounts[_at(pool, vault_at)] = Account(METEORA_VAULT, vault)
        accounts[_at(vault, 19)] = _tokens(_at(vault, 83), case[f"r{side}"])
        accounts[_at(vault, 115)] = _mint(supply=case[f"s{side}"])
        accounts[_at(pool, shares_at)] = _tokens(_at(vault, 115), case[f"l{side}"])
    return _recording("damm_v1", case, accounts, "a2b")


def _at(data: bytes, offset: int) -> Address:
    if len(data) < offset + 32:
        raise ValueError(f"an account of {len(data)} bytes is too short")
    return Address(data[offset : offset + 32])


def _tokens(mint: Address, amount: str, program: Address = SPL_TOKEN) -> Account:
    return Account(program, _TOKEN_ACCOUNT.pack(mint, int(amount), 1))


def _mint(token_2022: str | None = None, *, supply: str = "0") -> Account:
    """Return the mint that was recorded, or the plain one that it then was."""
    if token_2022 is None:
        return Account(SPL_TOKEN, _MINT.pack(int(supply), 0, 1))
    data = b64decode(token_2022, validate=True)
    return Account(SPL_TOKEN if len(data) == _MINT.size else TOKEN_2022, data)


_READERS: Final[Mapping[str, Callable[[Case], Recording]]] = {
    "ammv4": _amm_v4,
    "cpmm": _cpmm,
    "clmm": _clmm,
    "dammv2": _damm_v2,
    "dlmm": _dlmm,
    "dammv1": _damm_v1,
}
