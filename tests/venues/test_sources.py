"""Pools from files and from the chain: all accounts of one pool are of one moment."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import pytest

from fillwright.core.accounts import Account, Address, format_address
from fillwright.core.errors import InvalidSnapshot, VenueUnavailable
from fillwright.core.ports import PoolSource
from fillwright.core.programs import CLOCK
from fillwright.venues.live_pools import LivePools
from fillwright.venues.market import SOL, USDC
from fillwright.venues.snapshots import SnapshotPools, read_snapshots, tokens_of, write_snapshots
from tests import virtual
from tests.venues.model import SLOT, address, moved
from tests.venues.snapshot import OWN, FakeReader, a_snapshot, old_sol_usdc, own_usdc, sol_usdc, the_clock

VAULT = address("deep vault a")
THREE = [sol_usdc(), old_sol_usdc(), own_usdc()]


def live(reader: FakeReader, clock: virtual.VirtualClock, *, refresh_ms: int = 400) -> LivePools:
    return LivePools(reader, [pool.address for pool in THREE], clock, refresh_ms)


@pytest.fixture(params=["files", "chain"])
def source(request: pytest.FixtureRequest, clock: virtual.VirtualClock) -> PoolSource:
    snapshot = a_snapshot(THREE)
    return SnapshotPools([snapshot]) if request.param == "files" else live(FakeReader(snapshot), clock)


async def test_a_source_yields_the_pools_of_a_pair_whichever_way_round_with_all_their_accounts(
    source: PoolSource,
) -> None:
    for pair in ((SOL, USDC), (USDC, SOL)):
        pools = await source.pools(*pair)
        assert {pool.address for pool in pools} == {sol_usdc().address, old_sol_usdc().address}
        for pool in pools:
            (expected,) = (each for each in THREE if each.address == pool.address)
            assert {key: pool.accounts[key] for key in expected.accounts} == expected.accounts
            assert (pool.slot, pool.time) == (expected.slot, expected.time)
    assert not await source.pools(SOL, OWN.mint)
    assert source.newest_slot == SLOT


async def test_a_reading_is_shared_for_a_while_and_then_made_anew(clock: virtual.VirtualClock) -> None:
    reader = FakeReader(a_snapshot(THREE))
    source = live(reader, clock)
    await source.pools(SOL, USDC)
    calls = len(reader.calls)
    reader.accounts |= moved(sol_usdc(), VAULT, 7).accounts
    reader.slot += 1
    assert await source.pools(SOL, USDC) != []
    assert len(reader.calls) == calls
    await clock.sleep(400)
    pools = {pool.address: pool for pool in await source.pools(SOL, USDC)}
    assert len(reader.calls) > calls
    assert pools[sol_usdc().address].slot == SLOT + 1
    assert pools[sol_usdc().address].accounts[VAULT] != sol_usdc().accounts[VAULT]


async def test_a_pool_and_the_clock_come_with_one_call(clock: virtual.VirtualClock) -> None:
    """Every call moves the chain on, and gives each account the number of the call: no pool may hold two numbers."""
    numbered = Numbered(a_snapshot(THREE))
    for pool in await live(numbered, clock).pools(SOL, USDC):
        assert len({numbered.numbers[key, pool.slot] for key in pool.accounts}) == 1
        assert pool.time.slot == pool.slot


class Numbered(FakeReader):
    """Each call is of a slot of its own, the Clock says which."""

    numbers: dict[tuple[Address, int], int]

    async def read(self, addresses: list[Address]) -> tuple[int, list[Account | None]]:  # type: ignore[override]  # a test's
        self.slot += 1
        self.accounts[CLOCK] = Account(the_clock().owner, self.slot.to_bytes(8, "little") + the_clock().data[8:])
        self.numbers = getattr(self, "numbers", {}) | {(key, self.slot): len(self.calls) for key in addresses}
        return await super().read(addresses)


async def test_a_pool_that_could_not_be_read_at_first_is_looked_for_again(clock: virtual.VirtualClock) -> None:
    reader = FakeReader(a_snapshot([old_sol_usdc()]))
    source = live(reader, clock)
    assert [pool.address for pool in await source.pools(SOL, USDC)] == [old_sol_usdc().address]
    reader.accounts |= a_snapshot(THREE).accounts
    await clock.sleep(59_000)
    assert len(await source.pools(SOL, USDC)) == 1
    await clock.sleep(1_000)
    assert {pool.address for pool in await source.pools(SOL, USDC)} == {sol_usdc().address, old_sol_usdc().address}


async def test_a_node_that_does_not_answer_leaves_the_venue_unavailable_and_a_pool_that_is_gone_out(
    clock: virtual.VirtualClock,
) -> None:
    reader = FakeReader(a_snapshot(THREE))
    source = live(reader, clock)
    assert len(await source.pools(SOL, USDC)) == 2
    del reader.accounts[sol_usdc().address]
    await clock.sleep(400)
    assert [pool.address for pool in await source.pools(SOL, USDC)] == [old_sol_usdc().address]
    reader.is_silent = True
    await clock.sleep(400)
    with pytest.raises(VenueUnavailable):
        await source.pools(SOL, USDC)


@pytest.mark.parametrize("name", ["pools.json", "pools.json.gz"])
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    snapshots = [a_snapshot([sol_usdc()]), a_snapshot([own_usdc()], slot=SLOT + 5)]
    write_snapshots(tmp_path / name, snapshots)
    assert read_snapshots(tmp_path / name) == snapshots
    assert read_snapshots(tmp_path) == snapshots


async def test_a_pool_in_several_snapshots_is_taken_whole_from_the_newest() -> None:
    newer = replace(a_snapshot([moved(sol_usdc(), VAULT, 5)]), slot=SLOT + 9)
    (pool,) = await SnapshotPools([a_snapshot([sol_usdc()]), newer]).pools(SOL, USDC)
    assert pool.slot == SLOT + 9
    assert pool.accounts[VAULT] == newer.accounts[VAULT]


def test_what_solana_s_own_command_line_prints_can_be_read(tmp_path: Path) -> None:
    for index, (key, account) in enumerate(a_snapshot([sol_usdc()]).accounts.items()):
        told = {
            "pubkey": format_address(key),
            "account": {
                "lamports": 1,
                "data": [b64encode(account.data).decode(), "base64"],
                "owner": format_address(account.owner),
                "executable": False,
            },
        }
        (tmp_path / f"{index}.json").write_text(json.dumps(told))
    (read,) = read_snapshots(tmp_path)
    assert read.accounts == a_snapshot([sol_usdc()]).accounts
    assert read.slot == read.time.slot


def test_tokens_are_known_by_their_mints_with_the_decimals_that_these_have() -> None:
    tokens = {token.mint: token for token in tokens_of([a_snapshot(THREE)])}
    assert tokens[OWN.mint].decimals == 6
    assert tokens[SOL].decimals == 9
    assert all(token.symbol == token.mint for token in tokens.values())


async def test_the_chain_tells_of_the_same_tokens_as_files_do(clock: virtual.VirtualClock) -> None:
    tokens = await live(FakeReader(a_snapshot(THREE)), clock).tokens()
    assert {token.mint: token for token in tokens} == {token.mint: token for token in tokens_of([a_snapshot(THREE)])}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("no JSON", "cannot be read"),
        ("[1]", "holds no accounts"),
        ('{"slot": 1, "accounts": {}}', "lacks the Clock"),
        ('{"slot": 1, "accounts": {"xyz": {"owner": "a", "data": ""}}}', "holds no accounts"),
        ('{"slot": "x", "accounts": []}', "holds no accounts"),
        ("[" * 5_000, "cannot be read"),
    ],
)
def test_a_file_that_holds_no_pools_says_what_is_wrong_with_it(tmp_path: Path, content: str, why: str) -> None:
    file = tmp_path / "pools.json"
    file.write_text(content)
    with pytest.raises(InvalidSnapshot, match=why) as refused:
        read_snapshots(file)
    assert str(file) in str(refused.value)
    with pytest.raises(InvalidSnapshot, match="no such file"):
        read_snapshots(tmp_path / "nowhere")
