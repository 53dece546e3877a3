"""The quotes beside what the programs on the chain really paid."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from fillwright.core.accounts import Account, PoolAccounts
from fillwright.core.errors import QuoteRefused
from fillwright.venues.pool_types import BY_NAME, identify
from fillwright.venues.recordings import Recording, quote, read_recordings, replay
from tests.venues.mutations import mutated

FOLDER: Final = Path(__file__).parent / "recordings"
CASES: Final = {"amm_v4": 41, "cpmm": 51, "clmm": 42, "damm_v1": 40, "damm_v2": 50, "dlmm": 29}
MUTATIONS: Final = 10_000


@cache
def recordings() -> list[Recording]:
    return [each for path in sorted(FOLDER.glob("*.json.gz")) for each in read_recordings(path)]


@pytest.mark.parametrize("name", BY_NAME)
def test_every_recorded_swap_is_quoted_to_the_last_unit(name: str) -> None:
    tally = replay(each for each in recordings() if each.type == name)[name]
    assert not tally.mismatched
    assert not tally.refused
    assert tally.equal == CASES[name]


@pytest.mark.parametrize("name", BY_NAME)
def test_a_recorded_pool_is_known_for_what_it_is_and_names_the_accounts_that_it_needs(name: str) -> None:
    for each in recordings():
        if each.type == name:
            accounts = each.pool.accounts
            assert identify(accounts[each.pool.address]) is BY_NAME[name]
            known = closure(each.pool, name)
            assert quote_with(each, known) == each.paid


@pytest.mark.parametrize("name", BY_NAME)
def test_damaged_accounts_give_a_quote_or_a_reason_and_nothing_else(name: str) -> None:
    seed = 20_261_128
    print(f"seed {seed}")
    of_type = [each for each in recordings() if each.type == name]
    for recording in mutated(of_type, MUTATIONS, seed):
        with suppress(QuoteRefused):
            assert quote(recording) > 0


def closure(pool: PoolAccounts, name: str) -> PoolAccounts:
    """Return only those accounts that the pool type asks for, asked as often as it names new ones."""
    have = {pool.address: pool.accounts[pool.address]}
    asked = set(have)
    while new := set(BY_NAME[name].wanted(pool.address, have)) - asked:
        asked |= new
        have |= {address: pool.accounts[address] for address in new if address in pool.accounts}
    return PoolAccounts(pool.address, pool.slot, pool.time, have)


def quote_with(recording: Recording, pool: PoolAccounts) -> int:
    return (
        BY_NAME[recording.type]
        .decode(pool.address, pool.accounts, recording.policy)
        .quote(recording.amount, recording.a_to_b, pool.time)
        .out_amount
    )


def test_an_account_of_another_program_is_no_pool() -> None:
    account = next(each.pool.accounts[each.pool.address] for each in recordings())
    assert identify(Account(recordings()[0].pool.address, account.data)) is None
