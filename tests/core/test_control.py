"""Who may do what: a key opens what it was made for, and the audit log cannot be changed unseen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fillwright.core.control import (
    GENESIS,
    KEY_ID_BYTES,
    LOCAL_ACCOUNT,
    TEXT_MAX,
    Action,
    Control,
    Entry,
    KeyCreated,
    KeyRevoked,
    LimitsSet,
    Mode,
    ModeSet,
    Scope,
    Webhook,
    WebhookAdded,
    WebhookRemoved,
    apply,
    asked_scopes,
    digest_of,
    entry,
    find_key,
    key_made_by,
    key_revoked,
    limits_set,
    mode_set,
    new_key,
    new_ticket,
    new_webhook_id,
    plain,
    replay,
    webhook_added,
    webhook_removed,
)
from fillwright.core.errors import (
    AuditBroken,
    Denied,
    Forbidden,
    InvalidName,
    InvalidRequest,
    InvalidScope,
    InvalidWebhook,
    KeyNotFound,
    TooManyWebhooks,
    Unauthorized,
    WebhookNotFound,
)
from fillwright.core.lifecycle import Accepted
from fillwright.core.limits import LOCAL, Limits, TokenLimit
from fillwright.core.units import base58
from tests.builders import SOL, some_terms

RANDOM = bytes(range(1, 41))
KEY_ID, SECRET = base58(RANDOM[:KEY_ID_BYTES]), base58(RANDOM[KEY_ID_BYTES:])
TEXT = f"fw_{KEY_ID}_{SECRET}"
KEY = KeyCreated(KEY_ID, "acme", "the bot", (Scope.READ, Scope.TRADE), sha256(SECRET.encode()).hexdigest())
OTHER, _ = new_key("other", "another bot", frozenset(Scope), RANDOM[::-1])
ACTIONS: list[Action] = [
    KEY,
    ModeSet(Mode.REDUCE, "prices look wrong"),
    ModeSet(Mode.HALTED, "they are wrong"),
    KeyRevoked(KEY.key_id),
    ModeSet(Mode.ACTIVE, ""),
    LimitsSet("everybody", Limits(order_usd=5, amounts=(TokenLimit(SOL.mint, 1, 2),), tokens=(SOL.mint,))),
    WebhookAdded("wh_1", "", "acme", "https://desk.example.com/fills", "digest"),
    WebhookRemoved("wh_1"),
    LimitsSet("everybody", Limits()),
]


def a_log(*actions: Action) -> list[Entry]:
    entries: list[Entry] = []
    control = Control()
    for at, action in enumerate(actions, 1):
        entries.append(entry(control, 1_000 * at, "alice", action))
        control = apply(control, entries[-1])
    return entries


def after(*actions: Action) -> Control:
    return replay(a_log(*actions))


def test_a_key_s_text_has_its_id_and_its_secret_and_the_log_only_the_digest() -> None:
    assert new_key("acme", "the bot", frozenset({Scope.TRADE, Scope.READ}), RANDOM) == (KEY, TEXT)


@pytest.mark.parametrize(("account", "expected"), [("acme", "acme"), ("", "the bot"), (LOCAL, LOCAL_ACCOUNT)])
def test_a_key_without_an_account_has_that_of_its_name_and_one_can_be_made_for_the_local_account(
    account: str, expected: str
) -> None:
    created, _ = new_key(account, "the bot", frozenset({Scope.READ}), RANDOM)
    assert created.account == expected


def test_names_and_reasons_are_kept_as_what_can_be_shown_and_not_at_any_length() -> None:
    created, _ = new_key("ac\nme", "the\0bot", frozenset(), RANDOM)
    assert (created.account, created.name) == ("ac?me", "the?bot")
    assert mode_set(Mode.HALTED, "prix é\x1b[2J\udcff") == ModeSet(Mode.HALTED, "prix é?[2J?")
    assert plain("x" * (TEXT_MAX + 1)) == "x" * TEXT_MAX


def test_a_secret_of_fewer_than_32_random_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a secret takes 32 random bytes$"):
        new_key("acme", "the bot", frozenset(), bytes(KEY_ID_BYTES + 31))


def test_a_key_opens_what_it_was_made_for() -> None:
    key = find_key(after(KEY), TEXT)
    assert key is not None
    assert (key.key_id, key.account, key.name, key.scopes) == (KEY_ID, "acme", "the bot", frozenset(KEY.scopes))
    assert (key.digest, key.created_at_ms, key.revoked_at_ms) == (KEY.digest, 1_000, None)


@pytest.mark.parametrize(
    "text",
    ["", "fw", "fw__", f"fw_{KEY_ID}", f"fw_{KEY_ID}_", SECRET, f"{KEY_ID}_{SECRET}", f"xx_{KEY_ID}_{SECRET}",
     f"FW_{KEY_ID}_{SECRET}", f"fw_{KEY_ID}_{SECRET}_", f"fw_{KEY_ID}_x_{SECRET}", f"fw_nobody_{SECRET}",
     f"fw_{KEY_ID}_{SECRET[:-1]}", f"fw_{KEY_ID}_{SECRET}x", f"fw_{KEY_ID}_{KEY.digest}", "fw_\udcff_\udcff"],
)  # fmt: skip
def test_what_is_not_exactly_a_key_opens_nothing(text: str) -> None:
    assert find_key(after(KEY), text) is None


def test_a_secret_opens_only_the_key_that_it_belongs_to() -> None:
    other, text = new_key("other", "another bot", frozenset(Scope), RANDOM[::-1])
    control = after(KEY, other)
    assert find_key(control, f"fw_{other.key_id}_{SECRET}") is None
    assert [key.account for key in (find_key(control, TEXT), find_key(control, text)) if key] == ["acme", "other"]


def test_a_revoked_key_opens_nothing_and_says_since_when_first() -> None:
    control = after(KEY, KeyRevoked(KEY_ID), KeyRevoked(KEY_ID))
    assert find_key(control, TEXT) is None
    assert control.keys[KEY_ID].revoked_at_ms == 2_000
    assert control.keys[KEY_ID].is_revoked


def test_a_log_that_revokes_a_key_which_nobody_made_is_broken() -> None:
    with pytest.raises(AuditBroken, match=r"^entry 2 revokes the key nobody, which"):
        apply(after(KEY), entry(after(KEY), 2_000, "alice", KeyRevoked("nobody")))


def test_other_keys_stay_as_they_are_when_one_is_made_or_revoked() -> None:
    other, text = new_key("other", "another bot", frozenset(Scope), RANDOM[::-1])
    assert find_key(after(other, KEY, KeyRevoked(KEY_ID)), text) == find_key(after(other), text)


def test_once_a_key_was_made_nobody_comes_in_without_one() -> None:
    assert not Control().demands_keys
    assert not after(ModeSet(Mode.HALTED, "")).demands_keys
    assert after(KEY).demands_keys
    assert after(KEY, KeyRevoked(KEY_ID)).demands_keys


def test_a_key_gets_the_scopes_that_were_asked_for() -> None:
    assert asked_scopes("acme", "the bot", ["trade", "read"]) == {Scope.READ, Scope.TRADE}
    assert asked_scopes("acme", LOCAL, ["read"]) == asked_scopes("", "acme", ["read"]) == {Scope.READ}


@pytest.mark.parametrize(
    ("account", "name", "scopes", "error", "field", "message"),
    [
        ("acme", "", ["read"], InvalidName, "name", "a key needs a name"),
        ("", LOCAL, ["read"], InvalidName, "account", "a key named 'local' needs an account of its own"),
        ("", "x", [], InvalidScope, "scopes", "a key needs a scope at least: any of read, trade, admin"),
        (
            "",
            "x",
            ["read", "y" * 65],
            InvalidScope,
            "scopes",
            f"there is no scope '{'y' * 64}'; there are read, trade, admin",
        ),
    ],
)
def test_a_key_that_cannot_be_like_that_is_refused(
    account: str, name: str, scopes: list[str], error: type[Denied], field: str, message: str
) -> None:
    with pytest.raises(error) as refused:
        asked_scopes(account, name, scopes)
    assert (refused.value.field, str(refused.value)) == (field, message)


def test_a_key_makes_another_with_no_scope_but_its_own() -> None:
    less = replace(OTHER, scopes=(Scope.READ,))
    assert key_made_by(after(KEY), KEY_ID, less) is less
    with pytest.raises(Forbidden) as refused:
        key_made_by(after(KEY), KEY_ID, OTHER)
    assert (refused.value.field, str(refused.value)) == (
        "scopes",
        "this key may not give the scope admin: it lacks it itself",
    )


def test_a_key_that_was_revoked_makes_none_and_the_first_is_made_by_who_can_write_to_the_database() -> None:
    with pytest.raises(Unauthorized, match=r"^the key was revoked$"):
        key_made_by(after(KEY, KeyRevoked(KEY_ID)), KEY_ID, replace(OTHER, scopes=(Scope.READ,)))
    with pytest.raises(Forbidden) as refused:
        key_made_by(Control(), "", KEY)
    assert str(refused.value) == (
        "the first key is made on the command line: fillwright keys create NAME --scopes read,trade,admin"
    )


def test_only_a_key_that_there_is_can_be_revoked() -> None:
    assert key_revoked(after(KEY), KEY_ID) == KeyRevoked(KEY_ID)
    with pytest.raises(KeyNotFound, match=r"^there is no key with this id$"):
        key_revoked(after(KEY), "another")


def test_the_newest_mode_is_in_force_with_its_reason() -> None:
    assert (Control().mode, Control().mode_reason) == (Mode.ACTIVE, "")
    control = after(ModeSet(Mode.REDUCE, "first"), ModeSet(Mode.HALTED, "second"))
    assert (control.mode, control.mode_reason) == (Mode.HALTED, "second")


def test_a_ticket_is_kept_as_its_digest() -> None:
    assert new_ticket(RANDOM) == (base58(RANDOM), sha256(base58(RANDOM).encode()).hexdigest())


def test_whatever_a_client_sends_as_a_secret_has_a_digest() -> None:
    assert digest_of("é\udcff") == sha256("é?".encode()).hexdigest()


def test_the_words_that_are_kept_in_the_log_and_in_orders_never_change() -> None:
    assert {str(scope) for scope in Scope} == {"read", "trade", "admin"}
    assert {str(mode) for mode in Mode} == {"active", "reduce", "halted"}
    assert (LOCAL, LOCAL_ACCOUNT) == ("local", Accepted(some_terms()).account) == ("local", "")


def test_an_entry_s_hash_is_the_same_in_every_version() -> None:
    first = entry(Control(), 1_000, "alice", ModeSet(Mode.HALTED, "é"))
    document = (
        '{"actor":"alice","at_ms":1000,"before":"' + "0" * 64 + '","data":{"mode":"halted","reason":"\\u00e9"},'
        '"seq":1,"type":"ModeSet"}'
    )
    assert first == Entry(1, 1_000, "alice", ModeSet(Mode.HALTED, "é"), sha256(document.encode()).hexdigest())
    second = entry(apply(Control(), first), 2_000, "bob", KeyRevoked("k"))
    document = (
        f'{{"actor":"bob","at_ms":2000,"before":"{first.hash}","data":{{"key_id":"k"}},"seq":2,"type":"KeyRevoked"}}'
    )
    assert second.hash == sha256(document.encode()).hexdigest()


def test_a_log_is_what_is_in_force_and_can_be_read_on_from_any_point() -> None:
    log = a_log(*ACTIONS)
    whole = replay(log)
    assert (whole.seq, whole.head, whole.mode) == (len(log), log[-1].hash, Mode.ACTIVE)
    assert all(replay(log[seq:], replay(log[:seq])) == whole for seq in range(len(log) + 1))
    assert replay([]) == Control()
    assert Control().head == GENESIS


EDITS: list[Callable[[Entry], Entry]] = [
    lambda it: replace(it, at_ms=it.at_ms + 1),
    lambda it: replace(it, actor="mallory"),
    lambda it: replace(it, action=ModeSet(Mode.ACTIVE, "nothing happened")),
    lambda it: replace(it, hash="0" * 64),
]


@given(st.integers(0, len(ACTIONS) - 1), st.sampled_from(EDITS))
def test_an_entry_that_was_edited_is_found_at_its_place(at: int, edit: Callable[[Entry], Entry]) -> None:
    log = a_log(*ACTIONS)
    log[at] = edit(log[at])
    with pytest.raises(AuditBroken, match=f"^entry {at + 1} is not what was written"):
        replay(log)


@given(st.integers(0, len(ACTIONS) - 2))
def test_an_entry_that_was_dropped_or_numbered_anew_is_found_at_its_place(at: int) -> None:
    log = a_log(*ACTIONS)
    rest = log[at + 1 :]
    with pytest.raises(AuditBroken, match=f"^entry {at + 1} is missing: {at + 2} follows {at}$"):
        replay([*log[:at], *rest])
    with pytest.raises(AuditBroken, match=f"^entry {at + 1} is not what was written"):
        replay([*log[:at], *(replace(it, seq=it.seq - 1) for it in rest)])


def test_an_end_that_was_cut_off_shows_against_a_head_that_was_written_down() -> None:
    log = a_log(*ACTIONS)
    heads = {replay(log[:seq]).head for seq in range(len(log) + 1)}
    assert len(heads) == len(log) + 1


# ---- limits

LOW, HIGH = Limits(order_usd=1), Limits(order_usd=2)


def test_the_newest_limits_of_each_are_in_force_and_none_are_no_limits() -> None:
    control = after(LimitsSet("everybody", LOW), LimitsSet("account acme", LOW), LimitsSet("everybody", HIGH))
    assert control.limits == {"everybody": HIGH, "account acme": LOW}
    assert control.limits_seq == 3
    control = after(LimitsSet("everybody", LOW), LimitsSet("account acme", LOW), LimitsSet("everybody", Limits()), KEY)
    assert control.limits == {"account acme": LOW}
    assert (control.limits_seq, control.seq) == (3, 4)
    assert (Control().limits, Control().limits_seq) == ({}, 0)


@pytest.mark.parametrize("of", ["everybody", "account acme", "account local", f"key {KEY_ID}"])
def test_limits_are_set_of_whom_there_is(of: str) -> None:
    assert limits_set(after(KEY), of, LOW) == LimitsSet(of, LOW)


@pytest.mark.parametrize("of", ["", "account", "account ", "account other", "key", "key x", "Everybody", "acme"])
def test_limits_of_nobody_are_refused(of: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        limits_set(after(KEY), of, LOW)
    assert error.value.field == "of"
    assert str(error.value) == (
        f"there is no {of!r}: write 'everybody', 'account' and the name of one that has a key, or 'key' and a key's id"
    )
    with pytest.raises(InvalidRequest, match=f"'{'x' * 100}'"):
        limits_set(Control(), "x" * 101, LOW)


# ---- webhooks

URL = "https://desk.example.com/fills"


def test_a_webhook_is_its_key_s_account_s_until_it_or_the_key_is_taken_away() -> None:
    added = webhook_added(after(KEY, OTHER), "wh_1", KEY_ID, URL, b"secret")
    assert added == WebhookAdded("wh_1", KEY_ID, "acme", URL, sha256(b"secret").hexdigest())
    control = after(KEY, OTHER, added, WebhookAdded("wh_2", OTHER.key_id, "other", URL, "digest"))
    webhook = Webhook("wh_1", KEY_ID, "acme", URL, added.digest, 3_000)
    assert [each.webhook_id for each in control.webhooks_of(None)] == ["wh_1", "wh_2"]
    assert control.webhooks_of("acme") == [webhook]
    assert control.is_active(webhook)
    revoked = apply(control, entry(control, 9_000, "alice", KeyRevoked(KEY_ID)))
    assert revoked.webhooks_of("acme") == []
    assert not revoked.is_active(webhook)
    assert [each.webhook_id for each in revoked.webhooks_of("other")] == ["wh_2"]
    removed = apply(control, entry(control, 9_000, "alice", webhook_removed(control, added.webhook_id)))
    assert (removed.webhooks_of("acme"), removed.gone_webhooks) == ([], (added.webhook_id,))
    assert list(removed.webhooks) == ["wh_2"]


def test_without_keys_a_webhook_is_the_local_account_s() -> None:
    assert webhook_added(Control(), "wh_1", "", URL, b"x").account == LOCAL_ACCOUNT
    assert new_webhook_id(b"twelve bytes") == f"wh_{base58(b'twelve bytes')}"


@pytest.mark.parametrize(
    ("control", "key_id"),
    [(after(KEY), ""), (after(KEY), "nobody"), (after(KEY, KeyRevoked(KEY_ID)), KEY_ID), (Control(), "nobody")],
)
def test_a_webhook_needs_a_key_that_opens_something(control: Control, key_id: str) -> None:
    with pytest.raises(InvalidWebhook) as error:
        webhook_added(control, "wh_1", key_id, URL, b"x")
    assert str(error.value) == f"there is no valid key {key_id!r}: name the id of the key whose webhook it is"
    assert error.value.field == "keyId"


def test_of_a_key_that_there_is_not_no_more_is_repeated_than_a_key_can_be() -> None:
    with pytest.raises(InvalidWebhook, match=f"'{'x' * 64}'"):
        webhook_added(Control(), "wh_1", "x" * 65, URL, b"x")


def test_an_account_has_so_many_webhooks_and_no_more() -> None:
    many = [WebhookAdded(f"wh_{number}", "", "", f"{URL}/{number}", "") for number in range(10)]
    webhook_added(after(*many[:9]), "wh_x", "", URL, b"x")
    with pytest.raises(TooManyWebhooks, match=r"^an account may have 10 webhooks; remove one first$"):
        webhook_added(after(*many), "wh_x", "", URL, b"x")
    webhook_added(after(*many, WebhookRemoved("wh_3")), "wh_x", "", URL, b"x")


def test_an_account_has_an_address_once() -> None:
    control = after(KEY, OTHER, WebhookAdded("wh_1", KEY_ID, "acme", URL, ""))
    with pytest.raises(InvalidWebhook, match=r"^the account has this address already: wh_1$") as error:
        webhook_added(control, "wh_2", KEY_ID, URL, b"x")
    assert error.value.field == "url"
    webhook_added(control, "wh_2", KEY_ID, f"{URL}/other", b"x")
    webhook_added(control, "wh_2", OTHER.key_id, URL, b"x")


def test_a_webhook_that_there_is_not_cannot_be_removed() -> None:
    with pytest.raises(WebhookNotFound, match=r"^there is no webhook 'wh_1'$"):
        webhook_removed(Control(), "wh_1")
    with pytest.raises(WebhookNotFound, match=f"'{'x' * 64}'"):
        webhook_removed(Control(), "x" * 65)
    with pytest.raises(AuditBroken, match=r"^entry 2 removes the webhook wh_1, which nobody added$"):
        apply(after(KEY), entry(after(KEY), 2_000, "alice", WebhookRemoved("wh_1")))


def test_the_webhooks_that_were_removed_last_are_known_for_a_while() -> None:
    control = after(WebhookAdded("wh_x", "", "", URL, ""), WebhookRemoved("wh_x"))
    control = replace(control, gone_webhooks=tuple(f"wh_{number}" for number in range(1_000)))
    control = apply(control, entry(control, 1, "alice", WebhookAdded("wh_y", "", "", URL, "")))
    control = apply(control, entry(control, 2, "alice", WebhookRemoved("wh_y")))
    assert control.gone_webhooks == (*(f"wh_{number}" for number in range(1, 1_000)), "wh_y")
