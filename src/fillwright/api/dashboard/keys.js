// The keys: who may come in, and with what scopes.

import { ask, every, get, keyId } from "./api.js";
import { confirmation, showSecret } from "./dialog.js";
import { badge, count, h, keyed, problemBox, table, time, when } from "./dom.js";
import { blame, field, textField } from "./form.js";

const REFRESH_MS = 5_000;
const SCOPES = [
  ["read", "orders, quotes and streams of its account"],
  ["trade", "submits and cancels orders of its account"],
  ["admin", "halts, sets limits, makes and revokes keys, adds webhooks: for all accounts"],
];

export async function showKeys({ main, signal }) {
  const fields = {
    name: textField("name", { maxlength: "100", placeholder: "bot" }),
    account: textField("account", { maxlength: "100", placeholder: "as the name" }),
    scopes: h("fieldset", { id: "scopes" }, h("legend", null, "Scopes"), SCOPES.map(([scope, told]) =>
      h("label", { class: "check" }, h("input", { type: "checkbox", name: "scope", value: scope, checked: scope !== "admin" }), h("span", null, h("strong", null, scope), h("span", { class: "hint" }, ` ${told}`))),
    )),
  };
  const said = h("div");
  const rows = h("tbody");
  const list = h("div");
  const shown = table("Keys", ["Key", "Scopes", ["Made", "wide"], ["", "end"]], rows);
  let keys = [];

  const make = async (event) => {
    event.preventDefault();
    const button = event.submitter;
    button.disabled = true;
    said.replaceChildren();
    blame(fields, null);
    const scopes = [...form.querySelectorAll("input[name=scope]:checked")].map((box) => box.value);
    try {
      const made = await ask("POST", "/api/keys", { body: { name: fields.name.value.trim(), account: fields.account.value.trim(), scopes }, signal });
      form.reset();
      showSecret(signal, `The key ${made.name}`, made.key, `Of account ${made.account}, it may ${made.scopes.join(", ")}. The engine keeps only its hash.`);
      refresh();
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      if (!blame(fields, error)) said.replaceChildren(problemBox(error));
      else (fields[error.field].querySelector("input") ?? fields[error.field]).focus();
      if (error.code === "unreachable") said.append(h("p", { class: "hint" }, "If a key of this name is in the list now, nobody has its secret: revoke it, and make another."));
    } finally {
      button.disabled = false;
    }
  };
  const form = h(
    "form",
    { class: "card form", onsubmit: make },
    h("h2", null, "Make a key"),
    field(fields.name, "Name"),
    field(fields.account, "Account", "whose orders it sees and makes; local: those from before the first key"),
    fields.scopes,
    h("span", { class: "wrong", id: "scopes-wrong" }),
    said,
    h("div", { class: "row" }, h("button", { type: "submit", class: "main" }, "Make key")),
  );

  const revoke = (key) => {
    const own = key.keyId === keyId();
    const isLast = key.scopes.includes("admin") && !keys.some((each) => each !== key && each.revokedAt === null && each.scopes.includes("admin"));
    confirmation(
      signal,
      `Revoke the key ${key.name}?`,
      [
        h("p", null, `The key ${key.keyId} of account ${key.account} (${key.scopes.join(", ")}) opens nothing any more within a second, in every process. Its streams are closed, and its webhooks are told nothing more. It cannot be brought back.`),
        own ? h("p", { class: "problem" }, "This is the key that this page uses: it will ask you for another one.") : null,
        isLast ? h("p", { class: "problem" }, "No other key has the scope admin: then only the command line can change keys and limits, and halt the engine.") : null,
      ],
      "Revoke key",
      async () => {
        await ask("DELETE", `/api/keys/${encodeURIComponent(key.keyId)}`, { signal });
        refresh();
      },
    );
  };
  const makeRow = (key) =>
    h(
      "tr",
      null,
      h(
        "th",
        { scope: "row", class: "break" },
        key.name,
        key.keyId === keyId() ? [" ", badge("this one")] : null,
        h("div", { class: "hint" }, h("code", null, key.keyId), ` of account ${key.account}`),
      ),
      h("td", null, key.scopes.join(", ")),
      h("td", { class: "wide nowrap" }, time(key.createdAt)),
      h("td", { class: "end" }),
    );
  const fillRow = (row, key) => {
    const state = key.revokedAt === null ? "valid" : "revoked";
    if (row.dataset.state === state) return;
    row.dataset.state = state;
    row.className = state;
    row.lastChild.replaceChildren(
      key.revokedAt === null
        ? h("button", { type: "button", class: "danger quiet", "aria-label": `Revoke ${key.name}`, onclick: () => revoke(key) }, "Revoke")
        : h("span", { class: "hint" }, "revoked ", when(key.revokedAt)),
    );
  };

  let isShown = false;
  const refresh = every(REFRESH_MS, signal, async () => {
    try {
      ({ keys } = await get("/api/keys", signal));
      const valid = keys.filter((key) => key.revokedAt === null).reverse();
      const revoked = keys.filter((key) => key.revokedAt !== null).reverse();
      keyed(rows, [...valid, ...revoked], (key) => key.keyId, makeRow, fillRow);
      if (keys.length === 0) list.replaceChildren(firstKey());
      else if (!isShown) {
        isShown = true;
        list.replaceChildren(h("div", { class: "two" }, form, h("section", { class: "card" }, h("h2", null, "Keys"), shown, h("p", { class: "hint", id: "how-many" }))));
      }
      if (isShown) document.getElementById("how-many").textContent = `${count(valid.length)} valid, ${count(revoked.length)} revoked. Who made them is in the audit log.`;
    } catch (error) {
      if (!signal.aborted && error.status !== 401) {
        isShown = false;
        list.replaceChildren(problemBox(error));
      }
    }
  });
  main.append(list);
}

function firstKey() {
  return h(
    "section",
    { class: "card" },
    h("p", null, "There are no keys. The engine listens on this machine only, and whoever is on it may do everything."),
    h("p", null, "The first key is made on the command line, by who can write to the database; from then on, nobody comes in without one:"),
    h("pre", { tabindex: "0" }, "fillwright keys create NAME --account local --scopes read,trade,admin"),
    h("p", { class: "hint" }, "With --account local it sees the orders from before."),
  );
}
