// Who did what, newest first.

import { every, get } from "./api.js";
import { count, h, keyed, problemBox, table, when, words } from "./dom.js";

const REFRESH_MS = 10_000;
const PAGE = 50;
const READ_MAX = 200; // how many entries an answer has at most

export async function showAudit({ main, signal }) {
  const entries = [];
  let page = 0;
  const said = h("div");
  const rows = h("tbody");
  const where = h("span", { class: "hint" });
  const newer = h("button", { type: "button", onclick: () => { page -= 1; draw(); } }, "\u2190 Newer");
  const older = h("button", { type: "button", onclick: () => { page += 1; draw(); } }, "Older \u2192");
  main.append(
    h("p", { class: "hint" }, "Each entry carries the hash of the one before it; ", h("code", null, "fillwright audit verify"), " checks the whole log."),
    said,
    table("Audit log, newest first", [["No.", "end"], "When", "Who", "What", ["Hash", "wide"]], rows),
    h("nav", { class: "row pages", "aria-label": "Pages of the audit log" }, newer, older, where),
  );

  const draw = () => {
    const shown = entries.slice(Math.max(0, entries.length - (page + 1) * PAGE), entries.length - page * PAGE).reverse();
    keyed(rows, shown, (entry) => String(entry.seq), makeRow, () => {});
    newer.disabled = page === 0;
    older.disabled = (page + 1) * PAGE >= entries.length;
    where.textContent = entries.length === 1 ? "1 entry" : `${count(entries.length)} entries`;
  };

  every(REFRESH_MS, signal, async () => {
    try {
      let more;
      do {
        const answer = await get(`/api/audit?after=${entries.at(-1)?.seq ?? 0}`, signal);
        entries.push(...answer.entries);
        more = answer.entries.length === READ_MAX;
      } while (more);
      said.replaceChildren(entries.length ? "" : h("p", { class: "empty" }, "Nobody has done anything yet."));
      draw();
    } catch (error) {
      if (!signal.aborted && error.status !== 401) said.replaceChildren(problemBox(error));
    }
  });
}

function inWords(value) {
  if (Array.isArray(value)) return value.join(" ");
  if (typeof value !== "object" || value === null) return String(value);
  return Object.entries(value).map(([name, each]) => `${name} ${inWords(each)}`).join(", ") || "none";
}

function makeRow(entry) {
  const details = Object.entries(entry.data).filter(([, value]) => value !== "").map(([name, value]) => `${name}: ${inWords(value)}`);
  return h(
    "tr",
    null,
    h("td", { class: "end" }, String(entry.seq)),
    h("td", { class: "loose" }, when(entry.timestamp)),
    h("td", null, entry.actor),
    h("td", { class: "break" }, h("div", null, words(entry.action)), h("div", { class: "hint" }, details.join(", "))),
    h("td", { class: "wide" }, h("code", { title: entry.hash }, entry.hash.slice(0, 12))),
  );
}
