"""The venues write swaps, and the policy reads them, from the same documents but with no code in common."""

from __future__ import annotations

from collections import Counter
from random import Random

from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import MessageV0
from solders.pubkey import Pubkey

from fillwright.chain.policy import SigningRules, check
from fillwright.core.accounts import Address, Trader
from fillwright.venues.market import Listed, decode
from fillwright.venues.recordings import Recording, read_recordings
from tests.chain.transactions import ORDER, TOKEN, Coin, address, key, memo
from tests.venues.test_recordings import FOLDER


def test_the_swaps_of_every_pool_type_that_is_quoted_may_be_signed() -> None:
    seen = Counter[str]()
    for path in sorted(FOLDER.glob("*.json.gz")):
        for recording in read_recordings(path):
            listed = decode(recording.pool, recording.policy)
            if isinstance(listed, Listed):
                _check(recording, listed)
                seen[recording.type] += 1
    print(dict(seen))
    assert len(seen) >= 3
    assert min(seen.values()) >= 20


def _check(recording: Recording, listed: Listed) -> None:
    pool, wallet = listed.pool, key(Random(str(recording.pool.address)))
    coins = [_coin(recording, mint) for mint in (pool.mint_a, pool.mint_b)]
    given, taken = coins if recording.a_to_b else reversed(coins)
    in_account, out_account = (address(coin.account_of(wallet)) for coin in (given, taken))
    quote = pool.quote(recording.amount, recording.a_to_b, recording.pool.time)
    written = pool.swap(quote, quote.out_amount, Trader(address(wallet), in_account, out_account))
    instruction = Instruction(
        Pubkey.from_bytes(written.program),
        written.data,
        [AccountMeta(Pubkey.from_bytes(each.address), each.is_signer, each.is_writable) for each in written.accounts],
    )
    message = MessageV0.try_compile(wallet, [memo(f"fillwright:{ORDER}:1"), instruction], [], Hash.default())
    rules = SigningRules(
        wallet=address(wallet),
        order_id=ORDER,
        attempt=1,
        mint_in=address(given.mint),
        mint_out=address(taken.mint),
        in_amount_max=recording.amount,
        min_out_amount=quote.out_amount,
        pools={pool.address},
        mints={address(coin.mint) for coin in coins},
        programs={written.program},
        fee_lamports_max=5_000,
    )
    check(b"\x80" + bytes(message), rules, {})


def _coin(recording: Recording, mint: Address) -> Coin:
    account = recording.pool.accounts.get(mint)
    return Coin(Pubkey.from_bytes(mint), Pubkey.from_bytes(account.owner) if account else TOKEN)
