"""Who may do what, and how far: the audit log, and what follows from it.

Whoever changes a key, a limit or the mode appends an entry that says who, when and what; there is no other place where
these things are kept. So the audit log cannot differ from what is in force: `replay` of the one is the other.

Each entry carries the hash of the one before it. An entry that is edited, dropped or moved breaks the chain at its
place, and `verify` says where; an end that was cut off shows against a head that somebody has written down elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from fillwright.core.errors import (
    AuditBroken,
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
from fillwright.core.limits import EVERYBODY, LOCAL, NONE, Limits, of_account, of_key
from fillwright.core.units import Millis, base58

LOCAL_ACCOUNT: Final = ""
"""The account of orders that come without a key, while there are none."""

GENESIS: Final = "0" * 64
KEY_ID_BYTES: Final = 8
KEY_BYTES: Final = KEY_ID_BYTES + 32
WEBHOOK_ID_BYTES: Final = 12
WEBHOOKS_MAX: Final = 10
GONE_MAX: Final = 1_000
TEXT_MAX: Final = 500


class Scope(StrEnum):
    READ = "read"
    TRADE = "trade"
    ADMIN = "admin"


class Mode(StrEnum):
    """`REDUCE`: accept nothing new, finish what is open. `HALTED`: also sign nothing; what is signed may still land."""

    ACTIVE = "active"
    REDUCE = "reduce"
    HALTED = "halted"


@dataclass(frozen=True, slots=True)
class KeyCreated:
    """`digest` is the SHA-256 of the secret: what has 256 random bits needs no slow hash."""

    key_id: str
    account: str
    name: str
    scopes: tuple[Scope, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    key_id: str


@dataclass(frozen=True, slots=True)
class ModeSet:
    mode: Mode
    reason: str


@dataclass(frozen=True, slots=True)
class LimitsSet:
    """From now on these are all the limits `of` everybody, an account or a key (see `limits.whose`)."""

    of: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class WebhookAdded:
    """From now on `url` is told what becomes of the account's new orders; it belongs to a key, if there are any.

    `digest` is that of the secret that signs what it is told: whoever has another one must not sign.
    """

    webhook_id: str
    key_id: str
    account: str
    url: str
    digest: str


@dataclass(frozen=True, slots=True)
class WebhookRemoved:
    webhook_id: str


Action: TypeAlias = KeyCreated | KeyRevoked | ModeSet | LimitsSet | WebhookAdded | WebhookRemoved


@dataclass(frozen=True, slots=True)
class Entry:
    """The `seq`-th entry of the audit log, counted from 1. `actor` is a key's id, or who ran the command."""

    seq: int
    at_ms: Millis
    actor: str
    action: Action
    hash: str


@dataclass(frozen=True, slots=True)
class Key:
    key_id: str
    account: str
    name: str
    scopes: frozenset[Scope]
    digest: str
    created_at_ms: Millis
    revoked_at_ms: Millis | None = None

    @property
    def is_revoked(self) -> bool:
        return self.revoked_at_ms is not None


@dataclass(frozen=True, slots=True)
class Webhook:
    webhook_id: str
    key_id: str
    account: str
    url: str
    digest: str
    added_at_ms: Millis


@dataclass(frozen=True, slots=True)
class Control:
    """What is in force after the first `seq` entries.

    `limits_seq` is the last that changed a limit; `gone_webhooks` are those that were removed last.
    """

    seq: int = 0
    head: str = GENESIS
    mode: Mode = Mode.ACTIVE
    mode_reason: str = ""
    keys: Mapping[str, Key] = field(default_factory=lambda: MappingProxyType({}))
    limits: Mapping[str, Limits] = field(default_factory=lambda: MappingProxyType({}))
    limits_seq: int = 0
    webhooks: Mapping[str, Webhook] = field(default_factory=lambda: MappingProxyType({}))
    gone_webhooks: tuple[str, ...] = ()

    @property
    def demands_keys(self) -> bool:
        """Once a key was made, nobody comes in without one: not even after the last was revoked."""
        return bool(self.keys)

    def is_active(self, webhook: Webhook) -> bool:
        """Return whether a webhook is told anything: not once its key was revoked."""
        key = self.keys.get(webhook.key_id)
        return key is None or not key.is_revoked

    def webhooks_of(self, account: str | None) -> list[Webhook]:
        """Return the webhooks of an account that are told something; of all, if it is None."""
        return [each for each in self.webhooks.values() if account in (None, each.account) and self.is_active(each)]


def asked_scopes(account: str, name: str, scopes: Collection[str]) -> frozenset[Scope]:
    """Return the scopes of a key that somebody asks for. Raise InvalidName or InvalidScope if none can be like that."""
    if not name:
        raise InvalidName("a key needs a name", field="name")
    if not account and name == LOCAL:
        raise InvalidName(f"a key named {name!r} needs an account of its own", field="account")
    if unknown := sorted(set(scopes) - set(Scope)):
        raise InvalidScope(f"there is no scope {unknown[0][:64]!r}; there are {', '.join(Scope)}", field="scopes")
    if not scopes:
        raise InvalidScope(f"a key needs a scope at least: any of {', '.join(Scope)}", field="scopes")
    return frozenset(map(Scope, scopes))


def new_key(account: str, name: str, scopes: frozenset[Scope], random_bytes: bytes) -> tuple[KeyCreated, str]:
    """Return a new key, and its text, which is not kept anywhere: `fw_`, its id, `_`, and its secret.

    Without an account, it is that of the name. Of `random_bytes`, the first `KEY_ID_BYTES` make the id, the rest the
    secret: 32 of them at least.
    """
    if len(random_bytes) < KEY_BYTES:
        raise ValueError("a secret takes 32 random bytes")
    key_id = base58(random_bytes[:KEY_ID_BYTES])
    secret = base58(random_bytes[KEY_ID_BYTES:])
    account = LOCAL_ACCOUNT if account == LOCAL else plain(account or name)
    created = KeyCreated(key_id, account, plain(name), tuple(sorted(scopes)), digest_of(secret))
    return created, f"fw_{key_id}_{secret}"


def key_made_by(control: Control, maker_id: str, created: KeyCreated) -> KeyCreated:
    """Return the change, where a key makes another. Raise Forbidden, or Unauthorized if the maker was revoked.

    A key gives no scope that it has not itself. And the first is made by who can write to the database: if whoever is
    on the machine could make it, they would keep it when the engine is opened to others.
    """
    if not maker_id:
        raise Forbidden(
            "the first key is made on the command line: fillwright keys create NAME --scopes read,trade,admin"
        )
    maker = control.keys[maker_id]
    if maker.is_revoked:
        raise Unauthorized("the key was revoked")
    if more := sorted(set(created.scopes) - maker.scopes):
        raise Forbidden(f"this key may not give the scope {more[0]}: it lacks it itself", field="scopes")
    return created


def key_revoked(control: Control, key_id: str) -> KeyRevoked:
    """Return the change. Raise KeyNotFound if there is no such key; it is not repeated, lest it be a whole one."""
    if key_id not in control.keys:
        raise KeyNotFound("there is no key with this id")
    return KeyRevoked(key_id)


def find_key(control: Control, text: str) -> Key | None:
    """Return the key that `text` proves to have, None if it proves none, or one that was revoked."""
    parts = text.split("_")
    key = control.keys.get(parts[1]) if len(parts) == 3 and parts[0] == "fw" else None
    # The secret is compared even where there is no such key: how long the answer takes tells nothing.
    matches = compare_digest(digest_of(parts[-1]), key.digest if key else GENESIS)
    return key if key is not None and matches and not key.is_revoked else None


def new_ticket(random_bytes: bytes) -> tuple[str, str]:
    """Return a ticket's text, and the digest under which it is kept."""
    text = base58(random_bytes)
    return text, digest_of(text)


def mode_set(mode: Mode, reason: str) -> ModeSet:
    """Return the change; of the reason, what can be shown and kept. A halt must not fail for its wording."""
    return ModeSet(mode, plain(reason))


def new_webhook_id(random_bytes: bytes) -> str:
    return f"wh_{base58(random_bytes)}"


def webhook_added(control: Control, webhook_id: str, key_id: str, url: str, secret: bytes) -> WebhookAdded:
    """Return the change. Without keys, `key_id` is empty.

    Raise InvalidWebhook if there is no such key or its account has the address already, TooManyWebhooks if it has as
    many as it may.
    """
    key = control.keys.get(key_id)
    if key.is_revoked if key is not None else (control.demands_keys or key_id):
        raise InvalidWebhook(
            f"there is no valid key {key_id[:64]!r}: name the id of the key whose webhook it is", field="keyId"
        )
    account = LOCAL_ACCOUNT if key is None else key.account
    others = control.webhooks_of(account)
    if same := [each.webhook_id for each in others if each.url == url]:
        raise InvalidWebhook(f"the account has this address already: {same[0]}", field="url")
    if len(others) >= WEBHOOKS_MAX:
        raise TooManyWebhooks(f"an account may have {WEBHOOKS_MAX} webhooks; remove one first")
    return WebhookAdded(webhook_id, key_id, account, url, sha256(secret).hexdigest())


def webhook_removed(control: Control, webhook_id: str) -> WebhookRemoved:
    """Return the change. Raise WebhookNotFound if there is none."""
    webhook = control.webhooks.get(webhook_id)
    if webhook is None:
        raise WebhookNotFound(f"there is no webhook {webhook_id[:64]!r}")
    return WebhookRemoved(webhook_id)


def limits_set(control: Control, of: str, limits: Limits) -> LimitsSet:
    """Return the change. Raise InvalidRequest if there is nobody whose limits these would be."""
    accounts = {LOCAL_ACCOUNT, *(key.account for key in control.keys.values())}
    if of in {EVERYBODY, *map(of_account, accounts), *map(of_key, control.keys)}:
        return LimitsSet(of, limits)
    raise InvalidRequest(
        f"there is no {of[:100]!r}: write {EVERYBODY!r}, 'account' and the name of one that has a key, or 'key' and a"
        " key's id",
        field="of",
    )


def plain(text: str) -> str:
    """Return text without what cannot be shown or kept, cut to `TEXT_MAX` characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:TEXT_MAX])


def entry(control: Control, at_ms: Millis, actor: str, action: Action) -> Entry:
    """Return the entry that would follow on `control`."""
    seq = control.seq + 1
    return Entry(seq, at_ms, actor, action, _hash(control.head, seq, at_ms, actor, action))


def apply(control: Control, entry: Entry) -> Control:
    """Return what is in force after one more entry. Raise AuditBroken if it does not follow on what is there."""
    if entry.seq != control.seq + 1:
        raise AuditBroken(f"entry {control.seq + 1} is missing: {entry.seq} follows {control.seq}")
    if entry.hash != _hash(control.head, entry.seq, entry.at_ms, entry.actor, entry.action):
        raise AuditBroken(f"entry {entry.seq} is not what was written, or does not follow on what is before it")
    after = replace(control, seq=entry.seq, head=entry.hash)
    match entry.action:
        case KeyCreated(key_id, account, name, scopes, digest):
            key = Key(key_id, account, name, frozenset(scopes), digest, entry.at_ms)
            return replace(after, keys=MappingProxyType({**control.keys, key_id: key}))
        case KeyRevoked(key_id):
            if key_id not in control.keys:
                raise AuditBroken(f"entry {entry.seq} revokes the key {key_id}, which nobody made")
            key = control.keys[key_id]
            revoked = replace(key, revoked_at_ms=key.revoked_at_ms or entry.at_ms)
            return replace(after, keys=MappingProxyType({**control.keys, key_id: revoked}))
        case ModeSet(mode, reason):
            return replace(after, mode=mode, mode_reason=reason)
        case LimitsSet(of, limits):
            others = {each: kept for each, kept in control.limits.items() if each != of}
            now = others if limits == NONE else {**others, of: limits}
            return replace(after, limits=MappingProxyType(now), limits_seq=entry.seq)
        case WebhookAdded(webhook_id, key_id, account, url, digest):
            webhook = Webhook(webhook_id, key_id, account, url, digest, entry.at_ms)
            return replace(after, webhooks=MappingProxyType({**control.webhooks, webhook_id: webhook}))
        case WebhookRemoved(webhook_id):
            if webhook_id not in control.webhooks:
                raise AuditBroken(f"entry {entry.seq} removes the webhook {webhook_id}, which nobody added")
            left = {name: webhook for name, webhook in control.webhooks.items() if name != webhook_id}
            gone = (*control.gone_webhooks, webhook_id)[-GONE_MAX:]
            return replace(after, webhooks=MappingProxyType(left), gone_webhooks=gone)


def replay(entries: Sequence[Entry], control: Control | None = None) -> Control:
    """Return what is in force after all entries. Raise AuditBroken at the first that does not follow."""
    control = control or Control()
    for each in entries:
        control = apply(control, each)
    return control


def digest_of(secret: str) -> str:
    """Return what is kept of a secret: what has 256 random bits needs no slow hash."""
    return sha256(secret.encode("utf-8", "replace")).hexdigest()


def _hash(head: str, seq: int, at_ms: Millis, actor: str, action: Action) -> str:
    document: dict[str, Any] = {
        "before": head,
        "seq": seq,
        "at_ms": at_ms,
        "actor": actor,
        "type": type(action).__name__,
        "data": asdict(action),
    }
    return sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
