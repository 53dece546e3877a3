"""What may be signed: all that an honest builder makes, and nothing else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.message import MessageV0

from fillwright.chain.policy import SWAP_FORMS, SigningRules, SwapForm, check
from fillwright.core.accounts import Address
from fillwright.core.errors import SigningRefused
from tests.chain.hostile import hostile
from tests.chain.transactions import PROGRAMS, SHAPES, an_honest_one

SEED: Final = 20_261_128
HONEST: Final = 1_200
FLIPS: Final = 12_000


def refused(message: bytes, rules: SigningRules, tables: Mapping[Address, Sequence[Address]]) -> str:
    """Return why a message is refused; empty if it is not. Nothing but a refusal may be raised."""
    try:
        check(message, rules, tables)
    except SigningRefused as error:
        return str(error)
    return ""


def test_honest_transactions_of_every_venue_and_shape_are_signed() -> None:
    print(f"seed {SEED}")
    chance, seen, shapes = Random(SEED), Counter[str](), Counter[tuple[bool, bool]]()
    messages = set()
    for at in range(HONEST):
        built = an_honest_one(chance, shape=SHAPES[at % 3])
        assert refused(built.message, built.rules, built.known) == ""
        messages.add(built.message)
        seen.update(each.venue for each in built.swaps)
        shapes[bool(built.tables), b"\x11" in [bytes(each.data) for each in built.instructions]] += 1
    assert len(messages) == HONEST
    assert set(seen) == set(PROGRAMS)
    assert min(seen.values()) > 100
    assert len(shapes) == 4, "with and without tables, with and without wrapping"


def test_hostile_transactions_are_refused_and_told_why() -> None:
    print(f"seed {SEED}")
    cases = list(hostile(SEED))
    passed = [case.name for case in cases if not refused(case.message, case.rules, case.tables)]
    assert passed == []
    misnamed = [
        case.name for case in cases if not re.search(case.reason, refused(case.message, case.rules, case.tables))
    ]
    assert misnamed == []
    assert len({case.message for case in cases}) > 2_000
    assert len({case.name.partition(": ")[2] for case in cases}) > 150


def test_a_refusal_says_that_nothing_was_signed_and_which_instruction_is_at_fault() -> None:
    built = an_honest_one(Random(1), shape="direct", venues=["cpmm"], sells="token")
    stranger = replace(built.rules, pools=())
    at = built.swaps_at[0] + 1
    assert refused(built.message, stranger, built.known).startswith(
        f"the transaction is not signed; instruction {at}: the pool {built.swaps[0].pool} is not one of the route"
    )


def test_bytes_that_are_flipped_are_refused_or_change_nothing_that_the_order_fixes() -> None:
    print(f"seed {SEED}")
    chance, accepted = Random(SEED), 0
    honest = [an_honest_one(chance) for _ in range(60)]
    for _ in range(FLIPS):
        built = chance.choice(honest)
        message = bytearray(built.message)
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            message[chance.randrange(len(message))] ^= 1 << chance.randrange(8)
        if refused(bytes(message), built.rules, built.known) == "":
            accepted += 1
            # The chain reads what we let pass as we do: never do we see a message where it would see another.
            assert b"\x80" + bytes(MessageV0.from_bytes(bytes(message[1:]))) == bytes(message)
            MessageV0.from_bytes(bytes(message[1:])).sanitize()
    print(f"{accepted} of {FLIPS} pass: other blockhashes, lower fees, accounts that the programs themselves compare")
    assert accepted < FLIPS / 2


def test_bytes_that_matter_cannot_be_flipped() -> None:
    """Every bit of the amounts, the discriminator, the pool, and the wallet's accounts, in every form."""
    for venue in PROGRAMS:
        built = an_honest_one(Random(venue), shape="direct", venues=[venue], in_table=False)
        leg = built.swaps[0]
        data = bytes(built.instructions[built.swaps_at[0]].data)
        own = [bytes(coin.account_of(built.wallet)) for coin in (leg.given, leg.taken)]
        for part in (bytes(leg.pool), bytes(built.wallet), *own, bytes(PROGRAMS[venue])):
            at = built.message.index(part)
            for bit in range(len(part) * 8):
                assert refused(_flipped(built.message, at * 8 + bit), built.rules, built.known), (venue, at, bit)
        at, amount_at = built.message.index(data), len(data) - len(_tail(venue)) - 16
        for bit in range(len(data) * 8):
            amount = _amounts_after(data, bit, amount_at)
            harmless = amount is not None and 0 < amount[0] <= leg.in_amount and amount[1] >= leg.min_out
            why = refused(_flipped(built.message, at * 8 + bit), built.rules, built.known)
            assert (why == "") == harmless, (venue, bit, why)


def test_a_route_may_promise_more_and_take_less_but_not_the_other_way_round() -> None:
    built = an_honest_one(Random(3), shape="split", venues=["cpmm", "dlmm"], sells="token")
    rules, total = built.rules, sum(each.min_out for each in built.swaps)
    assert refused(built.message, replace(rules, min_out_amount=total), built.known) == ""
    assert "content with" in refused(built.message, replace(rules, min_out_amount=total + 1), built.known)
    assert refused(built.message, replace(rules, in_amount_max=rules.in_amount_max + 1), built.known) == ""
    assert "the swap takes" in refused(
        built.message, replace(rules, in_amount_max=rules.in_amount_max - 1), built.known
    )


def test_a_second_hop_never_takes_more_than_the_first_one_guarantees() -> None:
    """Or it would sell what the wallet held of the token between, which is no part of the order."""
    built = an_honest_one(Random(4), shape="two_hops", venues=["cpmm", "cpmm"], sells="token")
    second = bytearray(built.instructions[built.swaps_at[1]].data)
    second[8:16] = (built.swaps[0].min_out + 1).to_bytes(8, "little")
    instruction = built.instructions[built.swaps_at[1]]
    greedy = built.with_instruction(built.swaps_at[1], type(instruction)(
        instruction.program_id, bytes(second), instruction.accounts))  # fmt: skip
    assert "the order gives it" in refused(greedy.message, greedy.rules, greedy.known)


@given(st.binary(max_size=1300))
def test_noise_is_refused(noise: bytes) -> None:
    built = an_honest_one(Random(5))
    assert refused(noise, built.rules, built.known)
    assert refused(b"\x80\x01\0\0" + noise, built.rules, built.known)


@pytest.mark.parametrize("form", SWAP_FORMS, ids=lambda form: form.name)
def test_no_place_of_a_form_lies_beyond_its_accounts(form: SwapForm) -> None:
    places = {form.pool, form.source, form.destination, form.user, *form.fixed, *(form.mints or ())}
    places |= set(form.token_programs or ())
    assert max(places) < form.accounts_min <= form.accounts_max
    assert len({form.pool, form.source, form.destination, form.user}) == 4


def _flipped(message: bytes, bit: int) -> bytes:
    changed = bytearray(message)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _tail(venue: str) -> bytes:
    return {"clmm": bytes(17), "damm_v2": bytes(1), "dlmm": bytes(4)}.get(venue, b"")


def _amounts_after(data: bytes, bit: int, at: int) -> tuple[int, int] | None:
    """Return the amounts in data with one bit flipped, if that bit belongs to them."""
    if not at * 8 <= bit < (at + 16) * 8:
        return None
    changed = _flipped(data, bit)
    return int.from_bytes(changed[at : at + 8], "little"), int.from_bytes(changed[at + 8 : at + 16], "little")
