// The orders, newest first, a page at a time; what is shown is kept as it is now.

import { atMostEvery, every, follow, get } from "./api.js";
import { badge, count, duration, h, keyed, millis, pair, price, problemBox, shortId, table, when } from "./dom.js";

export const OPEN = new Set(["pending", "routing", "building", "submitted"]);
export const STATUSES = ["pending", "routing", "building", "submitted", "confirmed", "failed", "cancelled", "expired"];
const PAGE = 50;
const REFRESH_MS = 15_000; // beside the stream, which tells of everything: after a gap in it, this heals
const NEWS_MS = 1_000;

export async function showOrders({ main, signal, query }) {
  const criteria = { status: query.get("status") ?? "", token: query.get("token") ?? "", find: query.get("find") ?? "" };
  const cursors = [""]; // of the pages up to this one
  let orders = [];
  let next = null;
  let isFollowing = false;

  const go = (event) => {
    event?.preventDefault();
    const chosen = new URLSearchParams();
    for (const field of [status, token, find]) if (field.value.trim()) chosen.set(field.name, field.value.trim());
    if (/^ord_[0-9A-Z]{26}$/.test(chosen.get("find") ?? "")) location.hash = `#/orders/${chosen.get("find")}`;
    else location.hash = `#/orders${chosen.size ? `?${chosen}` : ""}`;
  };
  const status = h(
    "select",
    { id: "status", name: "status", onchange: go },
    h("option", { value: "" }, "any"),
    STATUSES.map((each) => h("option", { value: each, selected: each === criteria.status }, each)),
  );
  const token = h("input", { id: "token", name: "token", value: criteria.token, placeholder: "any", size: "8", spellcheck: "false" });
  const find = h("input", { id: "find", name: "find", value: criteria.find, type: "search", placeholder: "order id or client order id", size: "28", spellcheck: "false" });
  const live = h("span", { class: "badge", role: "status" }, "connecting");
  const said = h("div");
  const rows = h("tbody");
  const where = h("span", { class: "hint" });
  const earlier = h("button", { type: "button", onclick: () => { cursors.pop(); refresh(); } }, "\u2190 Newer");
  const later = h("button", { type: "button", onclick: () => { cursors.push(next); refresh(); } }, "Older \u2192");

  main.append(
    h(
      "form",
      { class: "filters", onsubmit: go, role: "search" },
      h("label", { for: "status" }, "Status", status),
      h("label", { for: "token" }, "Token", token),
      h("label", { for: "find", class: "grow" }, "Find", find),
      h("button", { type: "submit" }, "Search"),
      live,
    ),
    said,
    table("Orders, newest first", ["Order", ["Created", "wide"], "Swap", "Status", ["Venue", "wide"], ["Received", "wide end"], ["Price", "wide end"], ["Attempt", "wide end"], ["Took", "end"]], rows),
    h("nav", { class: "row pages", "aria-label": "Pages of orders" }, earlier, later, where),
  );

  const draw = () => {
    keyed(rows, orders, (order) => order.orderId, makeRow, fillRow);
    earlier.disabled = cursors.length === 1;
    later.disabled = next === null;
    const from = (cursors.length - 1) * PAGE;
    where.textContent = orders.length ? `${count(from + 1)} to ${count(from + orders.length)}` : "";
  };

  const refresh = every(REFRESH_MS, signal, async () => {
    const asked = new URLSearchParams({ limit: PAGE });
    if (criteria.status) asked.set("status", criteria.status);
    if (criteria.token) asked.set("token", criteria.token);
    if (criteria.find) asked.set("clientOrderId", criteria.find);
    if (cursors.at(-1)) asked.set("cursor", cursors.at(-1));
    try {
      const answer = await get(`/api/orders?${asked}`, signal);
      orders = answer.orders;
      next = answer.nextCursor;
      said.replaceChildren(orders.length ? "" : nothing(criteria));
      draw();
      if (!isFollowing) listen(); // not before: a key may be asked for
      isFollowing = true;
    } catch (error) {
      if (!signal.aborted && error.status !== 401) said.replaceChildren(problemBox(error));
    }
  });

  const soon = atMostEvery(NEWS_MS, signal, refresh);
  const listen = () => follow(() => "/api/stream", signal, {
    opened: () => {
      live.textContent = "live";
      live.className = "badge live";
      soon(); // what happened before the stream was open
    },
    closed: () => {
      live.textContent = "not live";
      live.className = "badge";
    },
    heard: (update) => {
      const order = orders.find((each) => each.orderId === update.orderId);
      if (order === undefined) {
        if (cursors.length === 1 && (update.seq === 1 || criteria.status)) soon();
      } else if (update.seq > order.seq) {
        order.status = update.status;
        order.seq = update.seq;
        order.updatedAt = update.timestamp;
        order.attempt = update.data.attempt ?? order.attempt;
        order.selectedDex = update.data.selectedDex ?? order.selectedDex;
        const row = [...rows.children].find((each) => each.dataset.key === order.orderId);
        if (row !== undefined) fillRow(row, order);
        if (!OPEN.has(update.status) || criteria.status) soon();
      }
    },
  });
}

function nothing({ status, token, find }) {
  if (find) return h("p", { class: "empty" }, `There is no order with the client order id \u201c${find}\u201d.`);
  if (status || token) return h("p", { class: "empty" }, "No order is like that.");
  return h("p", { class: "empty" }, "There are no orders yet. ", h("a", { href: "#/new" }, "Submit one"), ".");
}

function makeRow(order) {
  const cell = (name, kind = "") => h("td", { class: kind, "data-cell": name });
  return h(
    "tr",
    null,
    h(
      "td",
      null,
      h("a", { class: "mono nowrap", href: `#/orders/${order.orderId}`, title: order.orderId }, shortId(order.orderId)),
      order.clientOrderId ? h("div", { class: "hint clip", title: order.clientOrderId }, order.clientOrderId) : null,
    ),
    h("td", { class: "wide nowrap" }, when(order.createdAt)),
    h("td", null, pair(order)),
    cell("status"),
    cell("venue", "wide"),
    cell("received", "wide end"),
    cell("price", "wide end"),
    cell("attempt", "wide end"),
    cell("took", "end nowrap"),
  );
}

function fillRow(row, order) {
  const put = (name, text) => {
    const cell = row.querySelector(`[data-cell="${name}"]`);
    if (cell.textContent !== text) cell.textContent = text;
  };
  const status = row.querySelector('[data-cell="status"]');
  if (status.textContent !== order.status) status.replaceChildren(badge(order.status));
  put("venue", order.selectedDex ?? "\u2013");
  put("received", order.fill ? `${order.fill.outAmount} ${order.tokenOut}` : "\u2013");
  put("price", order.executedPrice === null ? "\u2013" : price(order.executedPrice));
  put("attempt", order.attempt === 0 ? "\u2013" : String(order.attempt));
  put("took", OPEN.has(order.status) ? "\u2026" : duration(millis(order.createdAt, order.updatedAt)));
}
