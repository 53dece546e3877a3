"""Transactions that nobody may sign: each an honest one with one change, and a pattern of what must be said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from fillwright.chain.policy import SigningRules
from fillwright.core.accounts import Address
from tests.chain.transactions import (
    ATA,
    BUDGET,
    FEE_MAX,
    MEMOS,
    ORDER,
    PROGRAMS,
    SHAPES,
    SOL,
    SPL_ONLY,
    SYSTEM,
    TIP_MAX,
    TOKEN,
    TOKEN_2022,
    Built,
    Coin,
    address,
    an_honest_one,
    call,
    close,
    create,
    key,
    limit,
    memo,
    price,
    swap,
    sync,
    transfer,
    u64,
)


@dataclass(frozen=True, slots=True)
class Hostile:
    name: str
    message: bytes
    rules: SigningRules
    tables: Mapping[Address, Sequence[Address]]
    reason: str


def hostile(seed: int) -> Iterator[Hostile]:
    """Yield every change of every base: each swap form directly, splits and hops, selling SOL and tokens."""
    chance = Random(seed)
    bases = [
        (f"{venue}, {sells}", an_honest_one(chance, shape="direct", venues=[venue], in_table=False, sells=sells))
        for venue in PROGRAMS
        for sells in ("sol", "token")
    ]
    bases += [
        (shape, an_honest_one(chance, shape=shape, venues=["amm_v4_v2", "cpmm"], in_table=True)) for shape in SHAPES[1:]
    ]
    for base, built in bases:
        for name, (reason, change) in {**ADDED, **CHANGED}.items():
            changed = change(built, chance)
            if changed is not None:
                yield Hostile(f"{base}: {name}", changed.message, changed.rules, changed.known, reason)
        for number, at in enumerate(built.swaps_at):
            for name, reason, instruction in swaps_gone_wrong(built, built.instructions[at], number, chance):
                changed = built.with_instruction(at, instruction)
                yield Hostile(f"{base}: {name}", changed.message, changed.rules, changed.known, reason)
        yield from messages(base, built)
        yield from attempts_at_tables(base, built, chance)


Change = Callable[[Built, Random], Built | None]
ONLY_TWO: Final = "only SyncNative and CloseAccount"
ONLY_PLAIN: Final = "only a plain transfer"


def _more(make: Callable[[Built, Random], Instruction]) -> Change:
    return lambda built, chance: built.with_more(make(built, chance))


def _token(data: bytes, accounts: int, program: Pubkey = TOKEN) -> tuple[str, Change]:
    """Return a token instruction on the wallet's own account, for somebody else's benefit."""

    def make(built: Built, chance: Random) -> Instruction:
        own = built.swaps[0].given.account_of(built.wallet)
        others = [key(chance) for _ in range(accounts - 2)]
        return call(program, data, own, *others, built.wallet, signer=built.wallet)

    return ONLY_TWO, _more(make)


def _system(data: bytes) -> tuple[str, Change]:
    return ONLY_PLAIN, _more(lambda b, c: call(SYSTEM, data, b.wallet, key(c), signer=b.wallet))


def _tip(built: Built) -> Pubkey:
    (account,) = built.rules.tip_accounts
    return Pubkey.from_bytes(account)


def _own(built: Built) -> Pubkey:
    return built.swaps[0].given.account_of(built.wallet)


AMOUNT: Final = u64(1)
ADDED: Final[Mapping[str, tuple[str, Change]]] = {
    "Transfer": _token(b"\x03" + AMOUNT, 3),
    "Transfer of Token-2022": _token(b"\x03" + AMOUNT, 3, TOKEN_2022),
    "TransferChecked": _token(b"\x0c" + AMOUNT + b"\x06", 4),
    "TransferChecked of Token-2022": _token(b"\x0c" + AMOUNT + b"\x06", 4, TOKEN_2022),
    "TransferCheckedWithFee": _token(b"\x1a\x01" + AMOUNT + b"\x06" + AMOUNT, 4, TOKEN_2022),
    "Approve": _token(b"\x04" + u64(2**64 - 1), 3),
    "Approve of Token-2022": _token(b"\x04" + u64(2**64 - 1), 3, TOKEN_2022),
    "ApproveChecked": _token(b"\x0d" + u64(2**64 - 1) + b"\x06", 4),
    "Revoke": _token(b"\x05", 2),
    "SetAuthority of the owner": _token(b"\x06\x02\x01" + b"\x09" * 32, 2),
    "SetAuthority to close": _token(b"\x06\x03\x01" + b"\x09" * 32, 2),
    "SetAuthority of Token-2022": _token(b"\x06\x02\x01" + b"\x09" * 32, 2, TOKEN_2022),
    "MintTo": _token(b"\x07" + AMOUNT, 3),
    "Burn": _token(b"\x08" + AMOUNT, 3),
    "BurnChecked": _token(b"\x0f" + AMOUNT + b"\x06", 3),
    "FreezeAccount": _token(b"\x0a", 3),
    "ThawAccount": _token(b"\x0b", 3),
    "InitializeAccount": _token(b"\x01", 4),
    "InitializeAccount3": _token(b"\x12" + b"\x09" * 32, 2),
    "InitializeMultisig": _token(b"\x02\x01", 3),
    "InitializeMint2": _token(b"\x14\x06" + b"\x09" * 32 + b"\0", 2),
    "CpiGuard off": _token(b"\x22\x01", 2, TOKEN_2022),
    "WithdrawExcessLamports": _token(b"\x26", 3, TOKEN_2022),
    "no token instruction": _token(b"", 2),
    "CloseAccount with a byte more": _token(b"\x09\0", 3),
    "CloseAccount by several owners": _token(b"\x09", 4),
    "CloseAccount of a stranger's account": (
        "not the wallet's own",
        _more(lambda b, c: close(key(c), b.wallet, b.wallet)),
    ),
    "CloseAccount to a stranger": ("go to somebody else", _more(lambda b, c: close(
        _own(b), key(c), b.wallet, b.swaps[0].given.program))),
    "CloseAccount by the wrong token program": ("not the wallet's own", _more(lambda b, c: close(
        _own(b), b.wallet, b.wallet, TOKEN_2022 if b.swaps[0].given.program == TOKEN else TOKEN))),
    "SyncNative of a stranger's account": ("may be synced", _more(lambda b, c: sync(key(c)))),
    "SyncNative of Token-2022": ("may be synced", _more(lambda b, c: call(TOKEN_2022, b"\x11", _own(b)))),
    "SyncNative with a byte more": (ONLY_TWO, _more(lambda b, c: call(TOKEN, b"\x11\0", _own(b)))),
    "SOL for a stranger": ("SOL would go to somebody else", _more(lambda b, c: transfer(b.wallet, key(c), 1))),
    "SOL for the pool": ("SOL would go to somebody else", _more(lambda b, c: transfer(b.wallet, b.swaps[0].pool, 1))),
    "a transfer that its payer does not sign": ("not be from the wallet", _more(lambda b, c: call(
        SYSTEM, b"\x02\0\0\0" + u64(1), key(c), _tip(b)))),
    "a transfer of two lengths": (ONLY_PLAIN, _more(lambda b, c: call(
        SYSTEM, b"\x02\0\0\0" + u64(1) + b"\0", b.wallet, _tip(b), signer=b.wallet))),
    "a transfer cut short": (ONLY_PLAIN, _more(lambda b, c: call(
        SYSTEM, b"\x02\0\0\0\x01", b.wallet, _tip(b), signer=b.wallet))),
    "a transfer with three accounts": (ONLY_PLAIN, _more(lambda b, c: call(
        SYSTEM, b"\x02\0\0\0" + u64(1), b.wallet, _tip(b), key(c), signer=b.wallet))),
    "too large a tip": ("the tip is", lambda b, c: _untipped(b).with_more(transfer(b.wallet, _tip(b), TIP_MAX + 1))),
    "two tips": ("two tips", lambda b, c: _untipped(b).with_more(
        *(transfer(b.wallet, _tip(b), lamports) for lamports in (1, 2)))),
    "a tip where none is allowed": ("SOL would go", lambda b, c: replace(
        _untipped(b).with_more(transfer(b.wallet, _tip(b), 1)), rules=replace(b.rules, tip_accounts=()))),
    "CreateAccount": _system(b"\0\0\0\0" + u64(1) + u64(165) + b"\x09" * 32),
    "Assign": _system(b"\x01\0\0\0" + b"\x09" * 32),
    "CreateAccountWithSeed": _system(b"\x03\0\0\0" + b"\x09" * 60),
    "AdvanceNonceAccount": _system(b"\x04\0\0\0"),
    "WithdrawNonceAccount": _system(b"\x05\0\0\0" + u64(1)),
    "AuthorizeNonceAccount": _system(b"\x07\0\0\0" + b"\x09" * 32),
    "Allocate": _system(b"\x08\0\0\0" + u64(10)),
    "TransferWithSeed": _system(b"\x0b\0\0\0" + u64(1) + b"\x09" * 40),
    "a token account by Create": ("only be created idempotently", _more(lambda b, c: _creation(b, b""))),
    "a token account by Create, spelled out": ("created idempotently", _more(lambda b, c: _creation(b, b"\0"))),
    "RecoverNested": ("created idempotently", _more(lambda b, c: _creation(b, b"\x02"))),
    "a token account of another mint": (
        "not the wallet's own", _more(lambda b, c: create(b.wallet, Coin(key(c), TOKEN)))),
    "a token account for a stranger": ("somebody else", _more(lambda b, c: _creation(b, b"\x01", {2: key(c)}))),
    "a token account elsewhere": ("not the wallet's own", _more(lambda b, c: _creation(b, b"\x01", {1: key(c)}))),
    "a token account by another system": ("somebody else", _more(lambda b, c: _creation(b, b"\x01", {4: key(c)}))),
    "a token account of another program": (
        "not the wallet's own", _more(lambda b, c: _creation(b, b"\x01", {5: key(c)}))),
    "a token account with a rent sysvar": ("takes 6 accounts", _more(lambda b, c: call(
        ATA, b"\x01", *(meta.pubkey for meta in _creation(b, b"\x01").accounts), key(c), signer=b.wallet))),
    "a second memo": ("two memos", _more(lambda b, c: memo(f"fillwright:{ORDER}:{b.rules.attempt}"))),
    "a second memo of the other program": (
        "two memos", _more(lambda b, c: memo(f"fillwright:{ORDER}:{b.rules.attempt}", MEMOS[1]))),
    "another unit limit": ("two compute unit limits", _more(lambda b, c: limit(1))),
    "another unit price": ("two compute unit prices", _more(lambda b, c: price(1))),
    "a heap frame": ("only one unit limit", _more(lambda b, c: call(BUDGET, b"\x01\0\0\x01\0"))),
    "a limit of loaded data": ("only one unit limit", _more(lambda b, c: call(BUDGET, b"\x04\0\0\x01\0"))),
    "an old request for units": ("only one unit limit", _more(lambda b, c: call(BUDGET, b"\0" + bytes(8)))),
    "a budget with an account": ("takes no accounts", _more(lambda b, c: call(BUDGET, b"\x02" + bytes(4), key(c)))),
    "a program that is not known": ("may not be called", _more(lambda b, c: call(key(c), b"", b.wallet))),
    "a loader's program": ("may not be called", _more(lambda b, c: call(
        Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111"), b"\x04\0\0\0", b.wallet, signer=b.wallet))),
    "the stake program": ("may not be called", _more(lambda b, c: call(
        Pubkey.from_string("Stake11111111111111111111111111111111111111"), b"\0", b.wallet, signer=b.wallet))),
    "the lookup table program": ("may not be called", _more(lambda b, c: call(
        Pubkey.from_string("AddressLookupTab1e1111111111111111111111111"), b"\0", b.wallet, signer=b.wallet))),
    "a second signer": ("2 signatures are required", _more(lambda b, c: transfer(key(c), _tip(b), 1))),
    "a memo by a second signer": ("2 signatures are required", lambda b, c: _with_memo(
        b, lambda text: call(MEMOS[0], text, other := key(c), signer=other))),
    "a memo with a stranger": ("somebody else's signature", lambda b, c: _with_memo(
        b, lambda text: call(MEMOS[0], text, key(c)))),
}  # fmt: skip


def _untipped(built: Built) -> Built:
    kept = (each for each in built.instructions if _tip(built) not in [meta.pubkey for meta in each.accounts])
    return replace(built, instructions=tuple(kept), tables=())


def _creation(built: Built, data: bytes, changed: Mapping[int, Pubkey] | None = None) -> Instruction:
    accounts = list(create(built.wallet, built.swaps[0].given).accounts)
    for at, pubkey in (changed or {}).items():
        accounts[at] = AccountMeta(pubkey, False, accounts[at].is_writable)
    return Instruction(ATA, data, accounts)


def _with_memo(built: Built, change: Callable[[bytes], Instruction]) -> Built:
    (at,) = (at for at, each in enumerate(built.instructions) if each.program_id in MEMOS)
    return built.with_instruction(at, change(bytes(built.instructions[at].data)))


def _with_text(change: Callable[[bytes], bytes]) -> Change:
    return lambda built, _: _with_memo(built, lambda text: call(MEMOS[0], change(text)))


def _other_wallet(built: Built, chance: Random) -> Built:
    return replace(built, rules=replace(built.rules, wallet=address(key(chance))))


def _wraps(built: Built) -> int | None:
    """Return where SOL is wrapped."""
    wrapped = Coin(SOL).account_of(built.wallet)
    for at, each in enumerate(built.instructions):
        if each.program_id == SYSTEM and each.accounts[1].pubkey == wrapped:
            return at
    return None


def _wrap_more(built: Built, _: Random) -> Built | None:
    at, wrapped = _wraps(built), Coin(SOL).account_of(built.wallet)
    return (
        None
        if at is None
        else built.with_instruction(at, transfer(built.wallet, wrapped, built.rules.in_amount_max + 1))
    )


def _wrap_twice(built: Built, _: Random) -> Built | None:
    if _wraps(built) is None:
        return None
    return built.with_more(transfer(built.wallet, Coin(SOL).account_of(built.wallet), 1))


def _wrap_for_nothing(built: Built, _: Random) -> Built | None:
    if _wraps(built) is not None:
        return None
    return built.with_more(transfer(built.wallet, Coin(SOL).account_of(built.wallet), 1))


def _swap_again(built: Built, _: Random) -> Built:
    return built.with_more(built.instructions[built.swaps_at[0]])


def _swap_back(built: Built, chance: Random) -> Built:
    """Sell again what was bought."""
    last = built.swaps[-1]
    back = replace(last, given=last.taken, taken=last.given, in_amount=1, min_out=0)
    return built.with_more(swap(built.wallet, back, chance))


def _hops_turned(built: Built, _: Random) -> Built | None:
    if built.swaps[0].taken == built.swaps[-1].taken:
        return None
    first, second = built.swaps_at
    turned = built.with_instruction(first, built.instructions[second])
    return turned.with_instruction(second, built.instructions[first])


def _rules(**changes: object) -> Change:
    return lambda built, _: replace(built, rules=replace(built.rules, **changes))  # type: ignore[arg-type] # by name


CHANGED: Final[Mapping[str, tuple[str, Change]]] = {
    "no memo": ("there is no memo", lambda b, c: b.without(MEMOS[0]).without(MEMOS[1])),
    "the memo of another attempt": ("does not name this order", _with_text(lambda text: text[:-1] + b"9")),
    "the memo of another order": ("does not name this order", _with_text(lambda text: text.replace(b"1JD", b"1JE"))),
    "a memo that says more": ("does not name this order", _with_text(lambda text: text + b"0")),
    "an empty memo": ("does not name this order", _with_text(lambda text: b"")),
    "a memo that is no text": ("does not name this order", _with_text(lambda text: b"\xff" + text)),
    "another wallet's": ("would sign and pay the fee", _other_wallet),
    "a huge fee": ("the fee is", lambda b, c: _with_fee(b, 1_400_000, 10**12)),
    "the greatest fee": ("the fee is", lambda b, c: _with_fee(b, 2**32 - 1, 2**64 - 1)),
    "a fee of one lamport too much": ("the fee is", lambda b, c: _with_fee(b, 1_000_000, FEE_MAX - 5_000 + 1)),
    "a price without a limit": ("without a limit", lambda b, c: b.without(BUDGET).with_more(price(1))),
    "more SOL wrapped than sold": ("more SOL would be wrapped", _wrap_more),
    "SOL wrapped twice": ("more SOL would be wrapped", _wrap_twice),
    "SOL wrapped though none is sold": ("SOL would go to somebody else", _wrap_for_nothing),
    "no swap": ("there is no swap", lambda b, c: replace(b, instructions=tuple(
        each for at, each in enumerate(b.instructions) if at not in b.swaps_at))),
    "the first swap twice": ("the swap takes", _swap_again),
    "a swap back": ("the wrong way|1232", _swap_back),
    "the second hop first": ("the swap takes", _hops_turned),
    "no program allowed": ("may not be called", _rules(programs=())),
    "no pool allowed": ("is not one of the route", _rules(pools=())),
    "a mint that the rules do not list": ("do not list the order's own mints", _rules(mints=())),
    "an order for one mint": ("one mint for both sides", lambda b, c: replace(
        b, rules=replace(b.rules, mint_out=b.rules.mint_in))),
}  # fmt: skip


def _with_fee(built: Built, units: int, micro_lamports: int) -> Built:
    return built.without(BUDGET).with_more(limit(units), price(micro_lamports))


# Where each form has its accounts, counted from 0: pool, source, destination, user; and what else must be as it is.
PLACES: Final[Mapping[str, tuple[int, int, int, int]]] = {
    "cpmm": (3, 4, 5, 0),
    "amm_v4": (1, 14, 15, 16),
    "amm_v4_v2": (1, 5, 6, 7),
    "clmm": (2, 3, 4, 0),
    "damm_v2": (1, 2, 3, 8),
    "dlmm": (0, 4, 5, 10),
    "damm_v1": (0, 1, 2, 12),
}
KEPT: Final[Mapping[str, tuple[int, ...]]] = {
    "cpmm": (8, 9, 10, 11),
    "amm_v4": (0,),
    "amm_v4_v2": (0,),
    "clmm": (8, 9, 10, 11, 12),
    "damm_v2": (6, 7, 9, 10, 11, 13),
    "dlmm": (6, 7, 9, 11, 12, 13, 15),
    "damm_v1": (13, 14),
}


def swaps_gone_wrong(
    built: Built, instruction: Instruction, number: int, chance: Random
) -> Iterator[tuple[str, str, Instruction]]:
    meant = built.swaps[number]
    data, accounts = bytes(instruction.data), list(instruction.accounts)
    pool, source, destination, user = PLACES[meant.venue]

    def other(at: int, pubkey: Pubkey | None = None) -> Instruction:
        changed = [*accounts]
        changed[at] = AccountMeta(pubkey or key(chance), False, accounts[at].is_writable)
        return Instruction(instruction.program_id, data, changed)

    def saying(changed: bytes) -> Instruction:
        return Instruction(instruction.program_id, changed, accounts)

    at = 1 if meant.venue.startswith("amm_v4") else 8
    amounts, tail = data[at : at + 16], data[at + 16 :]
    yield "a foreign destination", "paid into", other(destination)
    yield "a foreign source", "taken from", other(source)
    yield "another pool", "is not one of the route", other(pool)
    yield "another user", "another user's", other(user)
    yield "both sides the source", "wrong way|names mints", other(destination, accounts[source].pubkey)
    yield "both sides the destination", "wrong way|names mints", other(source, accounts[destination].pubkey)
    if meant.venue in SPL_ONLY:
        impossible = Coin(meant.taken.mint, TOKEN_2022).account_of(built.wallet)
        yield "an account of Token-2022", "paid into", other(destination, impossible)
    for each in KEPT[meant.venue]:
        yield f"another account in place {each}", "names", other(each)
    yield "one unit more in", "the swap takes", saying(data[:at] + u64(meant.in_amount + 1) + data[at + 8 :])
    yield "all that fits in", "the swap takes", saying(data[:at] + u64(2**64 - 1) + data[at + 8 :])
    yield "nothing in", "the swap takes", saying(data[:at] + u64(0) + data[at + 8 :])
    if meant.min_out:
        yield "one unit less out", "content with|the swap takes", saying(data[: at + 8] + u64(meant.min_out - 1) + tail)
        yield "content with nothing", "content with|the swap takes", saying(data[: at + 8] + u64(0) + tail)
    yield "a byte behind", "and nothing else", saying(data + b"\0")
    yield "the last byte lost", "and nothing else", saying(data[:-1])
    yield "no data", "not a swap", saying(b"")
    yield "another instruction", "not a swap", saying(b"\xee" + data[1:])
    yield "exact out", "not a swap", saying({1: b"\x0b"}.get(at, bytes.fromhex("37d96256a34ab4ad")) + amounts + tail)
    if tail:
        yield "another tail", "and nothing else", saying(data[:at] + amounts + b"\x02" + tail[1:])
        yield "another end", "and nothing else", saying(data[:-1] + bytes([data[-1] ^ 1]))
    if meant.venue in ("cpmm", "amm_v4", "amm_v4_v2", "damm_v2"):
        more = [*accounts, AccountMeta(key(chance), False, True)]
        yield "an account more", "does not take", Instruction(instruction.program_id, data, more)
    cut = accounts[: max(PLACES[meant.venue]) - 3]
    yield "accounts cut off", "does not take", Instruction(instruction.program_id, data, cut)
    yield "no accounts", "does not take", Instruction(instruction.program_id, data, [])
    for name, program in PROGRAMS.items():
        if program != instruction.program_id:
            yield f"sent to {name}", "not a swap|and nothing else", Instruction(program, data, accounts)


def messages(base: str, built: Built) -> Iterator[Hostile]:
    """Yield messages whose form is wrong."""
    message = built.message

    def made(name: str, changed: bytes, reason: str) -> Hostile:
        return Hostile(f"{base}: {name}", changed, built.rules, built.known, reason)

    yield made("nothing", b"", "ends too early")
    yield made("a legacy message", message[1:], "not a message of version 0")
    yield made("another version", b"\x81" + message[1:], "not a message of version 0")
    yield made("a byte behind", message + b"\0", "behind the message's end")
    yield made("a message behind", (message * 9)[:1167], "behind the message's end")
    yield made("too many bytes", message + bytes(1168 - len(message)), "more than 1232 bytes")
    yield made("no signer", message[:1] + b"\0" + message[2:], "0 signatures")
    yield made("two signers", message[:1] + b"\x02" + message[2:], "2 signatures")
    yield made("a payer who cannot pay", message[:2] + b"\x01" + message[3:], "not writable")
    yield made("more readonly accounts than there are", message[:3] + b"\xff" + message[4:], "header")
    yield made("a length in two bytes", message[:4] + bytes([message[4] | 0x80, 0]) + message[5:], "as lengths are")
    yield made("a length of no end", message[:4] + b"\xff\xff\xff" + message[5:], "as lengths are")
    yield made("a length too great", message[:4] + b"\xff\xff\x7f" + message[5:], "as lengths are")
    yield made("no accounts", message[:4] + b"\0" + message[5:], "header")
    yield made("the wallet twice", message[:37] + message[5:37] + message[69:], "named twice")
    for length in range(1, len(message), 97):
        yield made(f"cut after {length} bytes", message[:length], "ends too early")


def attempts_at_tables(base: str, built: Built, chance: Random) -> Iterator[Hostile]:
    listed = built if built.tables else built.in_a_table(chance)

    def made(name: str, tables: Mapping[Address, Sequence[Address]], reason: str) -> Hostile:
        return Hostile(f"{base}: {name}", listed.message, listed.rules, tables, reason)

    first, *_ = used = [table for table in listed.known if bytes(table) in listed.message]
    yield made("no table is known", {}, "is not known")
    yield made("one table is not known", {at: listed.known[at] for at in used[1:]}, "is not known")
    yield made("an empty table", {**listed.known, first: ()}, "has no such entry")
    strangers = {at: [address(key(chance)) for _ in entries] for at, entries in listed.known.items()}
    yield made("tables of others' accounts", strangers, "token account")
    yield made("tables of one account", {at: [listed.rules.wallet] * 99 for at in used}, "named twice")
