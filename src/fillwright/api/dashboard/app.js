// The frame around the pages: which one is shown, how the engine is, and the form for a key.

import { ask, every, forgetKey, get, hasKey, Problem, session, useKey } from "./api.js";
import { h, problemBox } from "./dom.js";
import { showAudit } from "./audit.js";
import { showKeys } from "./keys.js";
import { showNew } from "./new.js";
import { showOrder } from "./order.js";
import { showOrders } from "./orders.js";
import { showOverview } from "./overview.js";
import { showRisk } from "./risk.js";
import { showVenues } from "./venues.js";
import { showWebhooks } from "./webhooks.js";

const HEALTH_MS = 5_000;
const PAGES = [
  [/^\/overview$/, "Overview", showOverview],
  [/^\/orders$/, "Orders", showOrders],
  [/^\/orders\/(ord_[0-9A-Z]{26})$/, "Order", showOrder],
  [/^\/venues$/, "Venues", showVenues],
  [/^\/new$/, "New order", showNew],
  [/^\/risk$/, "Risk", showRisk],
  [/^\/webhooks$/, "Webhooks", showWebhooks],
  [/^\/keys$/, "Keys", showKeys],
  [/^\/audit$/, "Audit", showAudit],
];

const main = document.getElementById("main");
const forget = document.getElementById("forget");
let page = new AbortController();
let asking = false;

function blank(title) {
  page.abort();
  page = new AbortController();
  const heading = h("h1", { tabindex: "-1" }, title);
  main.replaceChildren(heading);
  document.title = `${title} \u2013 Fillwright`;
  return heading;
}

async function route() {
  const [path, query] = (location.hash.slice(1) || "/overview").split("?");
  const [pattern, title, show] = PAGES.find(([each]) => each.test(path)) ?? [null, "Not found", showNothing];
  for (const link of document.querySelectorAll("nav a")) {
    const here = `#${path}`.startsWith(link.getAttribute("href"));
    here ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  asking = false;
  const heading = blank(title);
  heading.focus({ preventScroll: true });
  scrollTo(0, 0);
  const signal = page.signal;
  try {
    await show({ main, heading, signal, argument: pattern?.exec(path)[1], query: new URLSearchParams(query) });
  } catch (error) {
    if (signal.aborted || error.name === "AbortError" || error.status === 401) return;
    if (!(error instanceof Problem)) console.error(error);
    main.append(problemBox(error));
  }
}

async function showNothing({ main }) {
  main.append(h("p", null, "There is no such page. ", h("a", { href: "#/overview" }, "Overview")));
}

function askForKey(sent) {
  if (asking) return;
  asking = true;
  forgetKey();
  forget.hidden = true;
  blank("A key is needed");
  const input = h("input", { id: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true, size: "60" });
  const refused = h("p", { class: "problem", role: "alert", hidden: sent === null }, "This key is not valid, or no longer.");
  const submit = async (event) => {
    event.preventDefault();
    refused.hidden = true;
    useKey(input.value.trim());
    try {
      await ask("GET", "/api/limits", { quiet: true });
    } catch (error) {
      if (error.status !== 403) {
        forgetKey();
        refused.textContent = error.status === 401 ? "This key is not valid, or no longer." : error.message;
        refused.hidden = false;
        input.select();
        return;
      }
    }
    forget.hidden = false;
    route();
  };
  main.append(
    h(
      "form",
      { class: "card narrow", onsubmit: submit },
      h("p", null, "This engine asks for an API key. It stays in this tab until the tab is closed, and goes nowhere but to the engine."),
      h("label", { for: "key" }, "API key"),
      input,
      refused,
      h("div", { class: "row" }, h("button", { type: "submit", class: "main" }, "Use this key")),
      h("p", { class: "hint" }, "An operator makes one with ", h("code", null, "fillwright keys create NAME --scopes read,trade"), "."),
    ),
  );
  input.focus();
}

export function showMode(mode) {
  const shown = document.getElementById("mode");
  shown.hidden = mode === undefined;
  shown.textContent = mode ?? "";
  shown.className = `badge mode-${mode}`;
}

async function look() {
  const engine = document.getElementById("engine");
  let status;
  try {
    const health = await get("/health");
    status = health.status;
    showMode(health.mode);
    engine.title = health.message ?? `up for ${Math.floor(health.uptime)} s`;
  } catch (error) {
    status = error.code === "unreachable" ? "unreachable" : "unavailable";
    engine.title = error.message;
    showMode(undefined);
  }
  if (engine.textContent !== `engine ${status}`) engine.textContent = `engine ${status}`;
  engine.className = `badge engine-${status}`;
}

session.addEventListener("unauthorized", (event) => askForKey(event.detail.sent));
session.addEventListener("mode", (event) => showMode(event.detail));
forget.addEventListener("click", () => {
  forgetKey();
  forget.hidden = true;
  route();
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is the page's route
  main.focus();
});
addEventListener("hashchange", route);
forget.hidden = !hasKey();
every(HEALTH_MS, new AbortController().signal, look);
route();
