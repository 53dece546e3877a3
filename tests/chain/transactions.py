"""Transactions as an honest builder would make them, written with solders alone, and the rules that they keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Final

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import MessageV0
from solders.pubkey import Pubkey

from fillwright.chain.policy import SigningRules
from fillwright.core.accounts import Address
from fillwright.core.units import OrderId

SYSTEM: Final = Pubkey.from_string("11111111111111111111111111111111")
BUDGET: Final = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
MEMOS: Final = (
    Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"),
    Pubkey.from_string("Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo"),
)
ATA: Final = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
TOKEN: Final = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
TOKEN_2022: Final = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
SOL: Final = Pubkey.from_string("So11111111111111111111111111111111111111112")
VAULT: Final = Pubkey.from_string("24Uqj9JCLxUeoC3hGfh5W3s9FM9uCHDS2SG3LYwBpyTi")
PROGRAMS: Final = {
    "cpmm": Pubkey.from_string("CPMMoo8L3F4NbTegBCKVNunggL7H1ZpdTHKxQB5qKP1C"),
    "amm_v4": Pubkey.from_string("675kPX9MHTjS2zt1qfr1NYHuzeLXfQM9H24wFSUt1Mp8"),
    "amm_v4_v2": Pubkey.from_string("675kPX9MHTjS2zt1qfr1NYHuzeLXfQM9H24wFSUt1Mp8"),
    "clmm": Pubkey.from_string("CAMMCzo5YL8w4VFF8KVHrK22GGUsp5VTaW7grrKgrWqK"),
    "damm_v2": Pubkey.from_string("cpamdpZCGKUy5JxQXB4dcpGPiikHawvSWAd6mEn1sGG"),
    "dlmm": Pubkey.from_string("LBUZKhRxPF3XUpBCjp4YzTKgLccjZhTSDM9YuVaPwxo"),
    "damm_v1": Pubkey.from_string("Eo7WjKq67rjJQSZxS6z3YkapzY3eMj6Xy8X5EQVn5UaB"),
}
SPL_ONLY: Final = ("amm_v4", "amm_v4_v2", "damm_v1")
SHAPES: Final = ("direct", "split", "two_hops")
ORDER: Final = OrderId("ord_01JDZZZZZZZZZZZZZZZZZZZZZZ")
FEE_MAX: Final = 2_000_000
TIP_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Coin:
    mint: Pubkey
    program: Pubkey = TOKEN

    def account_of(self, wallet: Pubkey) -> Pubkey:
        return Pubkey.find_program_address([bytes(wallet), bytes(self.program), bytes(self.mint)], ATA)[0]


@dataclass(frozen=True, slots=True)
class Swap:
    venue: str
    pool: Pubkey
    given: Coin
    taken: Coin
    in_amount: int
    min_out: int


@dataclass(frozen=True)
class Built:
    """A transaction before it is compiled, and what it is checked against."""

    wallet: Pubkey
    instructions: tuple[Instruction, ...]
    swaps_at: tuple[int, ...]
    swaps: tuple[Swap, ...]
    rules: SigningRules
    tables: tuple[AddressLookupTableAccount, ...] = ()

    @cached_property
    def message(self) -> bytes:
        compiled = MessageV0.try_compile(self.wallet, self.instructions, self.tables, Hash(b"\x07" * 32))
        return b"\x80" + bytes(compiled)

    @property
    def known(self) -> Mapping[Address, Sequence[Address]]:
        return {address(table.key): [address(each) for each in table.addresses] for table in self.tables}

    def with_instruction(self, at: int, instruction: Instruction) -> Built:
        return replace(self, instructions=(*self.instructions[:at], instruction, *self.instructions[at + 1 :]))

    def with_more(self, *instructions: Instruction) -> Built:
        return replace(self, instructions=(*self.instructions, *instructions))

    def without(self, program: Pubkey) -> Built:
        return replace(self, instructions=tuple(each for each in self.instructions if each.program_id != program))

    def in_a_table(self, chance: Random) -> Built:
        """Move every account that may be into a lookup table, among others that are not used."""
        called = {each.program_id for each in self.instructions}
        named = {meta.pubkey for each in self.instructions for meta in each.accounts} - called - {self.wallet}
        listed = [*sorted(named, key=bytes), *(key(chance) for _ in range(5))]
        chance.shuffle(listed)
        half = len(listed) // 2
        return replace(
            self, tables=tuple(AddressLookupTableAccount(key(chance), part) for part in (listed[:half], listed[half:]))
        )


def key(chance: Random) -> Pubkey:
    return Pubkey.from_bytes(chance.randbytes(32))


def address(pubkey: Pubkey) -> Address:
    return Address(bytes(pubkey))


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def call(program: Pubkey, data: bytes, *accounts: Pubkey, signer: Pubkey | None = None) -> Instruction:
    """Return an instruction that may write to all its accounts but programs."""
    fixed = {*PROGRAMS.values(), *MEMOS, TOKEN, TOKEN_2022, SYSTEM, ATA, VAULT}
    return Instruction(program, data, [AccountMeta(each, each == signer, each not in fixed) for each in accounts])


def limit(units: int) -> Instruction:
    return call(BUDGET, b"\x02" + units.to_bytes(4, "little"))


def price(micro_lamports: int) -> Instruction:
    return call(BUDGET, b"\x03" + u64(micro_lamports))


def memo(text: str, program: Pubkey = MEMOS[0]) -> Instruction:
    return call(program, text.encode())


def create(wallet: Pubkey, coin: Coin) -> Instruction:
    return call(ATA, b"\x01", wallet, coin.account_of(wallet), wallet, coin.mint, SYSTEM, coin.program, signer=wallet)


def transfer(source: Pubkey, destination: Pubkey, lamports: int) -> Instruction:
    return call(SYSTEM, b"\x02\0\0\0" + u64(lamports), source, destination, signer=source)


def sync(account: Pubkey) -> Instruction:
    return call(TOKEN, b"\x11", account)


def close(account: Pubkey, destination: Pubkey, owner: Pubkey, program: Pubkey = TOKEN) -> Instruction:
    return call(program, b"\x09", account, destination, owner, signer=owner)


def swap(wallet: Pubkey, swap: Swap, chance: Random) -> Instruction:
    """Return the instruction of a swap, as VENUES.md has it; keys that nobody checks before the chain are random."""

    def some(count: int) -> list[Pubkey]:
        return [key(chance) for _ in range(count)]

    source, destination = swap.given.account_of(wallet), swap.taken.account_of(wallet)
    amounts = u64(swap.in_amount) + u64(swap.min_out)
    program, given, taken = PROGRAMS[swap.venue], swap.given, swap.taken
    first, second = (given, taken) if chance.random() < 0.5 else (taken, given)
    match swap.venue:
        case "cpmm":
            data = bytes.fromhex("8fbe5adac41e33de") + amounts
            accounts = [wallet, *some(2), swap.pool, source, destination, *some(2), given.program, taken.program]
            accounts += [given.mint, taken.mint, *some(1)]
        case "amm_v4":
            data = b"\x09" + amounts
            accounts = [TOKEN, swap.pool, *some(12), source, destination, wallet]
        case "amm_v4_v2":
            data = b"\x10" + amounts
            accounts = [TOKEN, swap.pool, *some(3), source, destination, wallet]
        case "clmm":
            data = bytes.fromhex("2b04ed0b1ac91e62") + amounts + bytes(16) + b"\x01"
            accounts = [wallet, *some(1), swap.pool, source, destination, *some(3), TOKEN, TOKEN_2022, MEMOS[0]]
            accounts += [given.mint, taken.mint, *some(chance.randrange(1, 4))]
        case "damm_v2":
            data = bytes.fromhex("414b3f4ceb5b5b88") + amounts + b"\0"
            accounts = [*some(1), swap.pool, source, destination, *some(2), first.mint, second.mint, wallet]
            accounts += [first.program, second.program, program, *some(1), program]
        case "dlmm":
            data = bytes.fromhex("414b3f4ceb5b5b88") + amounts + bytes(4)
            accounts = [swap.pool, program, *some(2), source, destination, first.mint, second.mint, *some(1), program]
            accounts += [wallet, first.program, second.program, MEMOS[0], *some(1), program]
            accounts += some(chance.randrange(1, 4))
        case _:
            data = bytes.fromhex("f8c69e91e17587c8") + amounts
            accounts = [swap.pool, source, destination, *some(9), wallet, VAULT, TOKEN]
            accounts += some(chance.randrange(2))
    return call(program, data, *accounts, signer=wallet)


def an_honest_one(
    chance: Random, *, shape: str = "", venues: Sequence[str] = (), in_table: bool | None = None, sells: str = ""
) -> Built:
    """Return what an honest builder makes of a random order; `sells` is "sol", "token", or either."""
    shape = shape or chance.choice(SHAPES)
    legs = 1 if shape == "direct" else chance.choice((2, 2, 3)) if shape == "split" else 2
    venues = venues or [chance.choice(tuple(PROGRAMS)) for _ in range(legs)]
    spl_only = any(venue in SPL_ONLY for venue in venues)
    wallet = key(chance)
    given, between, taken = (
        Coin(key(chance), TOKEN if spl_only else chance.choice((TOKEN, TOKEN_2022))) for _ in range(3)
    )
    sells = sells or chance.choice(("sol", "token"))
    if sells == "sol":
        given = Coin(SOL)
    elif chance.random() < 0.5:
        taken = Coin(SOL)
    elif shape == "two_hops" and chance.random() < 0.5:
        between = Coin(SOL)
    in_amount, min_out = chance.randrange(10, 2 ** chance.randrange(5, 64)), chance.randrange(2**63)
    swaps = _legs(chance, shape, venues, (given, between, taken), in_amount, min_out)
    coins = dict.fromkeys(coin for each in swaps for coin in (each.given, each.taken))
    before = [create(wallet, coin) for coin in coins]
    if given.mint == SOL:
        before += [transfer(wallet, given.account_of(wallet), in_amount), sync(given.account_of(wallet))]
    after = [close(coin.account_of(wallet), wallet, wallet) for coin in coins if coin.mint == SOL]
    tipped = key(chance)
    if chance.random() < 0.5:
        after.append(transfer(wallet, tipped, chance.randrange(TIP_MAX + 1)))
    attempt = chance.randrange(1, 4)
    text = memo(f"fillwright:{ORDER}:{attempt}", chance.choice(MEMOS))
    budget = [limit(chance.randrange(1, 1_400_001)), price(chance.randrange(1_400_000))]
    head = [*budget, text, *before] if chance.random() < 0.5 else [*budget[::-1], *before, text]
    instructions = (*head, *(swap(wallet, each, chance) for each in swaps), *after)
    built = Built(
        wallet,
        instructions,
        tuple(range(len(head), len(head) + len(swaps))),
        tuple(swaps),
        SigningRules(
            wallet=address(wallet),
            order_id=ORDER,
            attempt=attempt,
            mint_in=address(given.mint),
            mint_out=address(taken.mint),
            in_amount_max=in_amount,
            min_out_amount=min_out,
            pools={address(each.pool) for each in swaps},
            mints={address(coin.mint) for coin in coins},
            programs={address(program) for program in PROGRAMS.values()},
            fee_lamports_max=FEE_MAX,
            tip_lamports_max=TIP_MAX,
            tip_accounts={address(tipped)},
        ),
    )
    in_table = chance.random() < 0.5 if in_table is None else in_table
    return built.in_a_table(chance) if in_table or len(built.message) > 1167 else built


def _legs(
    chance: Random, shape: str, venues: Sequence[str], coins: tuple[Coin, Coin, Coin], in_amount: int, min_out: int
) -> list[Swap]:
    given, between, taken = coins
    if shape == "two_hops":
        promised = chance.randrange(1, 2**63)
        return [
            Swap(venues[0], key(chance), given, between, in_amount, promised),
            Swap(venues[1], key(chance), between, taken, promised, min_out),
        ]
    count = len(venues)
    least = [share - 1 for share in _shares(chance, min_out + count, count)]
    return [
        Swap(venue, key(chance), given, taken, share, promised)
        for venue, share, promised in zip(venues, _shares(chance, in_amount, count), least, strict=True)
    ]


def _shares(chance: Random, amount: int, count: int) -> list[int]:
    """Return parts of an amount, each at least 1."""
    shares = []
    for left in range(count - 1, 0, -1):
        share = chance.randrange(1, amount - left + 1)
        shares.append(share)
        amount -= share
    return [*shares, amount]
