// Webhooks: the addresses that are told of orders, and what they did not take.

import { ask, canSpare, every, get, isOperator, keyId } from "./api.js";
import { confirmation, showSecret } from "./dialog.js";
import { count, h, keyed, problemBox, redraw, shortId, table, time, when } from "./dom.js";
import { blame, field, textField } from "./form.js";

const REFRESH_MS = 5_000;
const READ_MAX = 200; // how many deliveries an answer has at most
const SHOWN = 10;

export async function showWebhooks({ main, signal }) {
  const said = h("div", { role: "status" });
  const failed = h("div");
  const list = h("div");
  main.append(
    h("p", { class: "hint" }, "An address is told every event of its account's new orders, signed, in order, until it takes them."),
    said,
    failed,
    list,
  );
  const may = isOperator(await get("/api/limits", signal));
  const done = (...told) => said.replaceChildren(h("p", { class: "done" }, ...told));

  const remove = (hook) =>
    confirmation(
      signal,
      "Remove this webhook?",
      h("p", null, h("code", { class: "break" }, hook.url), ` of account ${hook.account} is told nothing any more within a second. What it did not take yet is forgotten.`),
      "Remove webhook",
      async () => {
        await ask("DELETE", `/api/webhooks/${encodeURIComponent(hook.webhookId)}`, { signal });
        done("The webhook is removed.");
        refresh();
      },
    );
  const replay = async (hook, orderId, button) => {
    button.disabled = true;
    try {
      const { replayed } = await ask("POST", `/api/webhooks/${encodeURIComponent(hook.webhookId)}/replay${orderId ? `?orderId=${orderId}` : ""}`, { signal });
      done(replayed === 1 ? "1 delivery is tried again." : `${count(replayed)} deliveries are tried again.`);
      refresh();
    } catch (error) {
      if (!signal.aborted && error.status !== 401) said.replaceChildren(problemBox(error));
    } finally {
      button.disabled = false;
    }
  };

  const makeCard = (hook) =>
    h(
      "section",
      { class: "card", "aria-label": hook.url },
      h("h2", { class: "break" }, hook.url),
      h("p", { class: "hint" }, `account ${hook.account}, ${hook.keyId ? `key ${hook.keyId}, ` : ""}added `, time(hook.addedAt), ", ", h("code", null, hook.webhookId)),
      h("div", { "data-part": "state" }, h("p", { class: "hint" }, "\u2026")),
      may
        ? h(
            "div",
            { class: "row" },
            h("button", { type: "button", "data-part": "all", hidden: true, onclick: (event) => replay(hook, "", event.currentTarget) }, "Try all again"),
            h("button", { type: "button", class: "danger", onclick: () => remove(hook) }, "Remove\u2026"),
          )
        : null,
    );
  const fillCard = async (card, hook) => {
    if (!canSpare()) return;
    const { deliveries } = await get(`/api/webhooks/${encodeURIComponent(hook.webhookId)}/deliveries`, signal);
    const dead = deliveries.filter((each) => each.givenUpAt !== null).length;
    const state = JSON.stringify(deliveries);
    if (card.dataset.state === state) return;
    card.dataset.state = state;
    const all = card.querySelector("[data-part=all]");
    if (all) all.hidden = dead === 0;
    redraw(card.querySelector("[data-part=state]"), told(deliveries, dead, may ? (each, button) => replay(hook, each.orderId, button) : null));
  };

  const refresh = every(REFRESH_MS, signal, async () => {
    try {
      const { webhooks } = await get("/api/webhooks", signal);
      keyed(list, webhooks, (hook) => hook.webhookId, makeCard, () => {});
      for (const hook of webhooks) await fillCard([...list.children].find((card) => card.dataset.key === hook.webhookId), hook);
      failed.replaceChildren(webhooks.length ? "" : h("p", { class: "empty" }, "No address is told of orders."));
    } catch (error) {
      if (!signal.aborted && error.status !== 401) failed.replaceChildren(problemBox(error));
    }
  });
  if (may) said.before(await addForm(signal, refresh));
  else said.before(h("p", { class: "hint" }, "A key with the scope admin can add and remove them."));
}

async function addForm(signal, refresh) {
  const { keys } = await get("/api/keys", signal);
  const active = keys.filter((key) => key.revokedAt === null);
  const fields = {
    url: textField("url", { type: "url", required: true }),
    keyId: h("select", { id: "keyId" }, active.map((key) => h("option", { value: key.keyId, selected: key.keyId === keyId() }, `${key.name} (account ${key.account})`))),
  };
  const said = h("div");
  const add = async (event) => {
    event.preventDefault();
    const button = event.submitter;
    button.disabled = true;
    said.replaceChildren();
    blame(fields, null);
    try {
      const hook = await ask("POST", "/api/webhooks", { body: { url: fields.url.value.trim(), ...(active.length ? { keyId: fields.keyId.value } : {}) }, signal });
      fields.url.value = "";
      showSecret(signal, "The secret of this webhook", hook.secret, "With it, ", h("code", { class: "break" }, hook.url), " verifies what it is told.");
      refresh();
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      if (blame(fields, error)) fields[error.field].focus();
      else said.replaceChildren(problemBox(error));
    } finally {
      button.disabled = false;
    }
  };
  return h(
    "form",
    { class: "card form narrow", onsubmit: add },
    h("h2", null, "Add a webhook"),
    field(fields.url, "Address", "https, and where others can reach it"),
    active.length ? field(fields.keyId, "Key", "it is told of the orders of the key's account, and ends with the key") : null,
    said,
    h("div", { class: "row" }, h("button", { type: "submit", class: "main" }, "Add webhook")),
  );
}

function told(deliveries, dead, again) {
  if (deliveries.length === 0) return h("p", null, "Everything was taken.");
  const more = deliveries.length === READ_MAX ? " or more" : "";
  return [
    h("p", { class: dead ? "problem" : null }, h("strong", null, `${count(dead)}${more} given up`), `, ${count(deliveries.length - dead)}${more} not taken yet and tried again.`),
    table(
      "Deliveries that were not taken",
      ["Order", "Why", again ? ["", "end"] : ["", "wide"]],
      h(
        "tbody",
        null,
        deliveries.slice(0, SHOWN).map((each) =>
          h(
            "tr",
            null,
            h(
              "td",
              null,
              h("a", { class: "mono nowrap", href: `#/orders/${each.orderId}`, title: each.orderId }, shortId(each.orderId)),
              h("div", { class: "hint" }, `event ${each.seq}, ${each.tries === 1 ? "1 try" : `${each.tries} tries`}`),
            ),
            h("td", { class: "break" }, each.error, h("div", { class: "hint" }, each.givenUpAt === null ? ["tried again ", when(each.nextTryAt)] : ["given up ", when(each.givenUpAt)])),
            h("td", { class: "end" }, again && each.givenUpAt !== null ? h("button", { type: "button", class: "quiet nowrap", "aria-label": `Try ${each.orderId} again`, onclick: (event) => again(each, event.currentTarget) }, "Try again") : ""),
          ),
        ),
      ),
    ),
    deliveries.length > SHOWN ? h("p", { class: "hint" }, `and ${count(deliveries.length - SHOWN)}${more} others`) : null,
  ];
}
