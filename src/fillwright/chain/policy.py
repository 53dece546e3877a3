"""What may be signed, decided on the bytes that would be signed.

Whoever builds transactions may be wrong, or not ours any more. So nothing here trusts or shares a line with a builder:
the message is read anew, and every instruction must be one of the few that an order needs, in exactly the form that is
written down here. What is not known is refused.

The money is followed with a **purse**. It begins with what the order may spend of its in token. Each swap takes its
exact in amount out of the purse, and puts into it no more than the least that it guarantees. So a route of any shape,
direct, split or in hops, can spend nothing of the wallet's that the order does not give it, and what is in the purse of
the out token at the end is what the transaction is sure to pay, or else it fails as a whole.

Sources: the layout of messages is Solana's "Versioned transactions"; instructions are those of the public interfaces of
the programs named below.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from solders.pubkey import Pubkey

from fillwright.core.accounts import Address, format_address, parse_address
from fillwright.core.errors import SigningRefused
from fillwright.core.units import BaseUnits, OrderId

PACKET_BYTES: Final = 1232
SIGNATURE_BYTES: Final = 64
LAMPORTS_PER_SIGNATURE: Final = 5_000
ACCOUNTS_MAX: Final = 256  # an index into them is one byte

SYSTEM: Final = parse_address("11111111111111111111111111111111")
COMPUTE_BUDGET: Final = parse_address("ComputeBudget111111111111111111111111111111")
MEMO_V3: Final = parse_address("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
MEMO_V1: Final = parse_address("Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo")
ASSOCIATED_TOKEN: Final = parse_address("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
TOKEN: Final = parse_address("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
TOKEN_2022: Final = parse_address("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
SOL_MINT: Final = parse_address("So11111111111111111111111111111111111111112")

CPMM: Final = parse_address("CPMMoo8L3F4NbTegBCKVNunggL7H1ZpdTHKxQB5qKP1C")
AMM_V4: Final = parse_address("675kPX9MHTjS2zt1qfr1NYHuzeLXfQM9H24wFSUt1Mp8")
CLMM: Final = parse_address("CAMMCzo5YL8w4VFF8KVHrK22GGUsp5VTaW7grrKgrWqK")
DAMM_V2: Final = parse_address("cpamdpZCGKUy5JxQXB4dcpGPiikHawvSWAd6mEn1sGG")
DLMM: Final = parse_address("LBUZKhRxPF3XUpBCjp4YzTKgLccjZhTSDM9YuVaPwxo")
DAMM_V1: Final = parse_address("Eo7WjKq67rjJQSZxS6z3YkapzY3eMj6Xy8X5EQVn5UaB")
DYNAMIC_VAULT: Final = parse_address("24Uqj9JCLxUeoC3hGfh5W3s9FM9uCHDS2SG3LYwBpyTi")

CREATE_IDEMPOTENT: Final = b"\x01"
CLOSE_ACCOUNT: Final = b"\x09"
SYNC_NATIVE: Final = b"\x11"
SYSTEM_TRANSFER: Final = b"\x02\0\0\0"
UNIT_LIMIT: Final = b"\x02"
UNIT_PRICE: Final = b"\x03"


@dataclass(frozen=True, slots=True)
class SigningRules:
    """What one attempt of an order may do. `mints` are all that its route touches, the order's two among them.

    `fee_lamports_max` bounds the signature's fee and the priority fee together. `pools` are those of the route that was
    recorded, and `programs` the swap programs that may be called at all.
    """

    wallet: Address
    order_id: OrderId
    attempt: int
    mint_in: Address
    mint_out: Address
    in_amount_max: BaseUnits
    min_out_amount: BaseUnits
    pools: Collection[Address]
    mints: Collection[Address]
    programs: Collection[Address]
    fee_lamports_max: int
    tip_lamports_max: int = 0
    tip_accounts: Collection[Address] = ()


@dataclass(frozen=True, slots=True)
class SwapForm:
    """How one swap instruction looks: `prefix`, in amount, least out amount (u64 each), `tail`, and not a byte more.

    Numbers are places in the instruction's accounts. `mints` and `token_programs` are two places each: of what goes in
    and of what comes out, or, if `is_in_pool_order`, of the pool's two sides. `fixed` accounts are always the same.
    """

    name: str
    program: Address
    prefix: bytes
    tail: bytes
    accounts_min: int
    accounts_max: int
    pool: int
    source: int
    destination: int
    user: int
    fixed: Mapping[int, Address] = field(default_factory=dict)
    mints: tuple[int, int] | None = None
    token_programs: tuple[int, int] | None = None
    is_in_pool_order: bool = False


SWAP_FORMS: Final = (
    SwapForm(
        "Raydium CPMM swap_base_input", CPMM, bytes.fromhex("8fbe5adac41e33de"), b"", 13, 13,
        pool=3, source=4, destination=5, user=0, mints=(10, 11), token_programs=(8, 9),
    ),
    SwapForm(
        "Raydium AMM v4 swap_base_in", AMM_V4, b"\x09", b"", 17, 17,
        pool=1, source=14, destination=15, user=16, fixed={0: TOKEN},
    ),
    SwapForm(
        "Raydium AMM v4 swap_base_in_v2", AMM_V4, b"\x10", b"", 8, 8,
        pool=1, source=5, destination=6, user=7, fixed={0: TOKEN},
    ),
    SwapForm(  # its tail: no price limit (a u128 of 0), exact in (1); after the 13th: extension and tick arrays
        "Raydium CLMM swap_v2", CLMM, bytes.fromhex("2b04ed0b1ac91e62"), bytes(16) + b"\x01", 13, ACCOUNTS_MAX,
        pool=2, source=3, destination=4, user=0, fixed={8: TOKEN, 9: TOKEN_2022, 10: MEMO_V3}, mints=(11, 12),
    ),
    SwapForm(  # its tail: exact in (0); the program's own id stands for a referrer's account: none
        "Meteora DAMM v2 swap2", DAMM_V2, bytes.fromhex("414b3f4ceb5b5b88"), b"\0", 14, 14,
        pool=1, source=2, destination=3, user=8, fixed={11: DAMM_V2, 13: DAMM_V2},
        mints=(6, 7), token_programs=(9, 10), is_in_pool_order=True,
    ),
    SwapForm(  # its tail: no accounts for transfer hooks; no host's fee account; after the 16th: bin arrays
        "Meteora DLMM swap2", DLMM, bytes.fromhex("414b3f4ceb5b5b88"), bytes(4), 16, ACCOUNTS_MAX,
        pool=0, source=4, destination=5, user=10, fixed={9: DLMM, 13: MEMO_V3, 15: DLMM},
        mints=(6, 7), token_programs=(11, 12), is_in_pool_order=True,
    ),
    SwapForm(  # a 16th account is the stake that a depegging pool reads
        "Meteora DAMM v1 swap", DAMM_V1, bytes.fromhex("f8c69e91e17587c8"), b"", 15, 16,
        pool=0, source=1, destination=2, user=12, fixed={13: DYNAMIC_VAULT, 14: TOKEN},
    ),
)  # fmt: skip
SWAP_PROGRAMS: Final = frozenset(form.program for form in SWAP_FORMS)
# These know no accounts but those of the first token program.
TOKEN_ONLY: Final = frozenset({AMM_V4, DAMM_V1})


def check(message: bytes, rules: SigningRules, tables: Mapping[Address, Sequence[Address]]) -> None:
    """Return if a serialized v0 message may be signed for the attempt that the rules are for.

    `tables` are the address lookup tables that may be used, as read from the chain. Raise SigningRefused with the rule
    that is broken.
    """
    if len(message) > PACKET_BYTES - 1 - SIGNATURE_BYTES:
        raise _refused(f"with its signature the transaction has more than {PACKET_BYTES} bytes")
    payer, instructions = _read(message, tables)
    if payer != rules.wallet:
        raise _refused(
            f"{format_address(payer)} would sign and pay the fee, not the wallet {format_address(rules.wallet)}"
        )
    _Verdict(rules).on(instructions)


@lru_cache(maxsize=4096)
def token_account(wallet: Address, token_program: Address, mint: Address) -> Address:
    """Return the wallet's associated token account of a mint (Associated Token program's `get_address`)."""
    seeds = [wallet, token_program, mint]
    return Address(bytes(Pubkey.find_program_address(seeds, Pubkey.from_bytes(ASSOCIATED_TOKEN))[0]))


class Instruction(NamedTuple):
    number: int
    program: Address
    accounts: Sequence[Address]
    data: bytes


class Held(NamedTuple):
    """What one of the wallet's token accounts is of."""

    mint: Address
    token_program: Address


class _Verdict:
    """What the instructions read so far amount to."""

    def __init__(self, rules: SigningRules) -> None:
        self._rules = rules
        self._ours = {
            token_account(rules.wallet, program, mint): Held(mint, program)
            for mint in rules.mints
            for program in (TOKEN, TOKEN_2022)
        }
        self._wrapped_sol = token_account(rules.wallet, TOKEN, SOL_MINT)
        self._purse = {rules.mint_in: rules.in_amount_max}
        self._is_swapping = False
        self._unit_limit: int | None = None
        self._unit_price: int | None = None
        self._wrapped_lamports = 0
        self._is_tipped = False
        self._memo: bytes | None = None

    def on(self, instructions: Sequence[Instruction]) -> None:
        if not {self._rules.mint_in, self._rules.mint_out} <= set(self._rules.mints):
            raise _refused("the rules do not list the order's own mints")
        if self._rules.mint_in == self._rules.mint_out:
            raise _refused("the rules name one mint for both sides of the order")
        readers = {
            COMPUTE_BUDGET: self._budget,
            MEMO_V3: self._remark,
            MEMO_V1: self._remark,
            ASSOCIATED_TOKEN: self._create,
            TOKEN: self._token,
            TOKEN_2022: self._token,
            SYSTEM: self._transfer,
            **{program: self._swap for program in self._rules.programs if program in SWAP_PROGRAMS},
        }
        for instruction in instructions:
            read = readers.get(instruction.program)
            if read is None:
                raise _refused(f"the program {format_address(instruction.program)} may not be called", instruction)
            read(instruction)
        self._end()

    def _budget(self, instruction: Instruction) -> None:
        data = instruction.data
        if instruction.accounts:
            raise _refused("a compute budget takes no accounts", instruction)
        if data[:1] == UNIT_LIMIT and len(data) == 5:
            if self._unit_limit is not None:
                raise _refused("there are two compute unit limits", instruction)
            self._unit_limit = int.from_bytes(data[1:], "little")
        elif data[:1] == UNIT_PRICE and len(data) == 9:
            if self._unit_price is not None:
                raise _refused("there are two compute unit prices", instruction)
            self._unit_price = int.from_bytes(data[1:], "little")
        else:
            raise _refused("of a compute budget, only one unit limit and one unit price are allowed", instruction)

    def _remark(self, instruction: Instruction) -> None:
        if self._memo is not None:
            raise _refused("there are two memos", instruction)
        if any(account != self._rules.wallet for account in instruction.accounts):
            raise _refused("the memo asks for somebody else's signature", instruction)
        self._memo = instruction.data
        if self._memo != f"fillwright:{self._rules.order_id}:{self._rules.attempt}".encode():
            raise _refused("the memo does not name this order and this attempt", instruction)

    def _create(self, instruction: Instruction) -> None:
        if instruction.data != CREATE_IDEMPOTENT:
            raise _refused("a token account may only be created idempotently", instruction)
        if len(instruction.accounts) != 6:
            raise _refused("the creation of a token account takes 6 accounts", instruction)
        payer, account, owner, mint, system, token_program = instruction.accounts
        if (payer, owner, system) != (self._rules.wallet, self._rules.wallet, SYSTEM):
            raise _refused("a token account would be created for, or paid by, somebody else", instruction)
        if self._ours.get(account) != Held(mint, token_program):
            raise _refused("the token account to create is not the wallet's own of a mint of the route", instruction)

    def _token(self, instruction: Instruction) -> None:
        match instruction.data, instruction.accounts:
            case data, [account] if data == SYNC_NATIVE:
                if (account, instruction.program) != (self._wrapped_sol, TOKEN):
                    raise _refused("only the wallet's own account of wrapped SOL may be synced", instruction)
            case data, [account, destination, owner] if data == CLOSE_ACCOUNT:
                held = self._ours.get(account)
                if held is None or held.token_program != instruction.program:
                    raise _refused("the account to close is not the wallet's own of a mint of the route", instruction)
                if (destination, owner) != (self._rules.wallet, self._rules.wallet):
                    raise _refused("what is left in a closed account would go to somebody else", instruction)
            case _:
                raise _refused("of a token program, only SyncNative and CloseAccount are allowed", instruction)

    def _transfer(self, instruction: Instruction) -> None:
        data, rules = instruction.data, self._rules
        if data[:4] != SYSTEM_TRANSFER or len(data) != 12 or len(instruction.accounts) != 2:
            raise _refused("of the system program, only a plain transfer is allowed", instruction)
        lamports = int.from_bytes(data[4:], "little")
        source, destination = instruction.accounts
        if source != rules.wallet:
            raise _refused("a transfer would not be from the wallet", instruction)
        if destination == self._wrapped_sol and rules.mint_in == SOL_MINT:
            self._wrapped_lamports += lamports
            if self._wrapped_lamports > rules.in_amount_max:
                raise _refused(
                    f"more SOL would be wrapped than the order sells ({rules.in_amount_max} lamports)", instruction
                )
        elif destination in rules.tip_accounts:
            if self._is_tipped:
                raise _refused("there are two tips", instruction)
            self._is_tipped = True
            if lamports > rules.tip_lamports_max:
                raise _refused(
                    f"the tip is {lamports} lamports; at most {rules.tip_lamports_max} are allowed", instruction
                )
        else:
            raise _refused("SOL would go to somebody else", instruction)

    def _swap(self, instruction: Instruction) -> None:
        form = _form_of(instruction)
        in_amount, min_out_amount = _amounts(instruction, form)
        accounts, rules = instruction.accounts, self._rules
        if not form.accounts_min <= len(accounts) <= form.accounts_max:
            raise _refused(f"{form.name} does not take {len(accounts)} accounts", instruction)
        if accounts[form.user] != rules.wallet:
            raise _refused("the swap would be another user's", instruction)
        if accounts[form.pool] not in rules.pools:
            raise _refused(f"the pool {format_address(accounts[form.pool])} is not one of the route that was recorded",
                    instruction)  # fmt: skip
        if any(accounts[at] != address for at, address in form.fixed.items()):
            raise _refused(f"{form.name} names a program or account that is not the one it must be", instruction)
        given = self._side(instruction, form, form.source, "taken from")
        taken = self._side(instruction, form, form.destination, "paid into")
        _check_sides(instruction, form, given, taken)
        if given.mint == rules.mint_out or taken.mint == rules.mint_in or given.mint == taken.mint:
            raise _refused("the swap goes the wrong way for the order", instruction)
        self._is_swapping = True
        left = self._purse.get(given.mint, 0) - in_amount
        if in_amount == 0 or left < 0:
            raise _refused(
                f"the swap takes {in_amount} of {format_address(given.mint)}; the order gives it {left + in_amount}",
                instruction,
            )
        self._purse[given.mint] = left
        self._purse[taken.mint] = self._purse.get(taken.mint, 0) + min_out_amount

    def _side(self, instruction: Instruction, form: SwapForm, at: int, verb: str) -> Held:
        held = self._ours.get(instruction.accounts[at])
        if held is None or (form.program in TOKEN_ONLY and held.token_program != TOKEN):
            raise _refused(f"the swap would be {verb} an account that is not the wallet's own of a mint of the route",
                    instruction)  # fmt: skip
        return held

    def _end(self) -> None:
        rules = self._rules
        if self._memo is None:
            raise _refused("there is no memo that names the order")
        if not self._is_swapping:
            raise _refused("there is no swap")
        if (promised := self._purse.get(rules.mint_out, 0)) < rules.min_out_amount:
            raise _refused(
                f"it would be content with {promised} of the out token; the order wants {rules.min_out_amount}"
            )
        if self._unit_price is not None and self._unit_limit is None:
            raise _refused("there is a compute unit price without a limit: what it costs is not known")
        priority = -(-(self._unit_limit or 0) * (self._unit_price or 0) // 1_000_000)
        if (fee := LAMPORTS_PER_SIGNATURE + priority) > rules.fee_lamports_max:
            raise _refused(f"the fee is {fee} lamports; at most {rules.fee_lamports_max} are allowed")


def _form_of(instruction: Instruction) -> SwapForm:
    for form in SWAP_FORMS:
        if form.program == instruction.program and instruction.data.startswith(form.prefix):
            return form
    raise _refused("it is not a swap of an exact in amount as this version knows it", instruction)


def _amounts(instruction: Instruction, form: SwapForm) -> tuple[BaseUnits, BaseUnits]:
    """Return what goes in and the least that must come out."""
    data, at = instruction.data, len(form.prefix)
    if len(data) != at + 16 + len(form.tail) or not data.endswith(form.tail):
        raise _refused(f"the data of {form.name} is not an amount, a least amount and nothing else", instruction)
    return int.from_bytes(data[at : at + 8], "little"), int.from_bytes(data[at + 8 : at + 16], "little")


def _check_sides(instruction: Instruction, form: SwapForm, given: Held, taken: Held) -> None:
    """Refuse if the mints and token programs that an instruction names are not those of the accounts that it uses."""
    named = [tuple(instruction.accounts[at] for at in places) for places in (form.mints, form.token_programs) if places]
    meant = [(given.mint, taken.mint), (given.token_program, taken.token_program)][: len(named)]
    if form.is_in_pool_order and named[0] != meant[0]:
        meant = [(second, first) for first, second in meant]
    if named != meant:
        raise _refused(
            "the swap names mints or token programs that are not those of the wallet's accounts", instruction
        )


# ---- the message


class _Reader:
    def __init__(self, message: bytes) -> None:
        self._message = message
        self._at = 0

    def take(self, length: int) -> bytes:
        taken = self._message[self._at : self._at + length]
        if len(taken) != length:
            raise _refused("the message ends too early")
        self._at += length
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def count(self) -> int:
        """Return a compact-u16, of which only the shortest form is one."""
        value = 0
        for shift in (0, 7, 14):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > 0xFFFF or (byte == 0 and shift):
                    break
                return value
        raise _refused("a length in the message is not written as lengths are")

    def address(self) -> Address:
        return Address(self.take(32))

    def check_end(self) -> None:
        if self._at != len(self._message):
            raise _refused("there are bytes behind the message's end")


def _read(message: bytes, tables: Mapping[Address, Sequence[Address]]) -> tuple[Address, list[Instruction]]:
    """Return who signs and pays, and the instructions with their accounts looked up."""
    reader = _Reader(message)
    if reader.byte() != 0x80:
        raise _refused("it is not a message of version 0")
    signers, readonly_signers, readonly_others = reader.take(3)
    if signers != 1:
        raise _refused(f"{signers} signatures are required; only the wallet's is allowed")
    if readonly_signers:
        raise _refused("the fee payer is not writable")
    written = [reader.address() for _ in range(reader.count())]
    if not written or signers + readonly_others > len(written):
        raise _refused("the message's header does not go with its accounts")
    reader.take(32)  # the recent blockhash
    calls = [(reader.byte(), reader.take(reader.count()), reader.take(reader.count())) for _ in range(reader.count())]
    accounts = written + _looked_up(reader, tables)
    reader.check_end()
    if len(accounts) > ACCOUNTS_MAX or len(set(accounts)) != len(accounts):
        raise _refused("an account is named twice, or there are too many")
    instructions = []
    for number, (program, places, data) in enumerate(calls, 1):
        if not 0 < program < len(written) or any(place >= len(accounts) for place in places):
            raise _refused(f"instruction {number} names an account that is not there, or a program that is looked up")
        instructions.append(Instruction(number, accounts[program], [accounts[place] for place in places], data))
    return written[0], instructions


def _looked_up(reader: _Reader, tables: Mapping[Address, Sequence[Address]]) -> list[Address]:
    """Return the accounts that come from tables, in the order in which the chain numbers them: writable ones first."""
    writable, readonly = list[Address](), list[Address]()
    for _ in range(reader.count()):
        address = reader.address()
        table = tables.get(address)
        if table is None:
            raise _refused(f"the lookup table {format_address(address)} is not known")
        for found in (writable, readonly):
            places = reader.take(reader.count())
            if any(place >= len(table) for place in places):
                raise _refused(f"the lookup table {format_address(address)} has no such entry")
            found += [table[place] for place in places]
    return writable + readonly


def _refused(rule: str, instruction: Instruction | None = None) -> SigningRefused:
    where = "" if instruction is None else f"instruction {instruction.number}: "
    return SigningRefused(f"the transaction is not signed; {where}{rule}")
