// Elements, and how values are written. Text only ever becomes a text node: nothing from the API is read as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, text] of Object.entries(value)) element.style.setProperty(`--${key}`, text);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

/** Show one element per item, in order. An element stays as long as its item does, so that focus and selection stay. */
export function keyed(parent, items, key, make, change) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    let element = known.get(key(item));
    if (element === undefined) {
      element = make(item);
      element.dataset.key = key(item);
    }
    known.delete(key(item));
    change(element, item);
    return element;
  });
  for (const gone of known.values()) gone.remove();
  wanted.forEach((element, at) => {
    if (parent.children[at] !== element) parent.insertBefore(element, parent.children[at] ?? null);
  });
}

/** Show other children, and keep the focus on what has the same name as what had it. */
export function redraw(parent, ...children) {
  const held = parent.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  parent.replaceChildren(...children.flat(Infinity).filter((child) => child !== null));
  if (held) parent.querySelector(`[aria-label="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
}

export function unknown() {
  return h("span", { class: "unknown" }, "unknown");
}

/** Write a value, or that it is not known. */
export function known(value, write = String) {
  return value === undefined || value === null || Number.isNaN(value) ? unknown() : write(value);
}

export function badge(status) {
  return h("span", { class: `badge ${status}` }, status);
}

const two = (number) => String(number).padStart(2, "0");

export function clock(iso) {
  const at = new Date(iso);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export function time(iso) {
  return h("time", { datetime: iso, title: `${iso} (shown in local time)` }, clock(iso));
}

/** Today's time of day alone; what is older, with its day. */
export function when(iso) {
  const [day, hour] = clock(iso).split(" ");
  const today = clock(new Date().toISOString()).startsWith(day);
  return h("time", { datetime: iso, title: `${clock(iso)} local, ${iso}` }, today ? hour : `${day} ${hour}`);
}

export function millis(from, to) {
  return Date.parse(to) - Date.parse(from);
}

export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
  return `${Math.floor(ms / 3_600_000)} h ${Math.round((ms % 3_600_000) / 60_000)} min`;
}

export function count(number) {
  return number.toLocaleString("en-US");
}

export function price(number) {
  return Number(number.toPrecision(7)).toLocaleString("en-US", { maximumSignificantDigits: 7 });
}

export function percent(fraction, digits = 1) {
  return `${Number((fraction * 100).toFixed(digits))} %`;
}

export function bps(number) {
  return `${number > 0 ? "+" : number < 0 ? "\u2212" : ""}${Math.abs(number)} bps`;
}

export function shortId(id) {
  return `\u2026${id.slice(-8)}`;
}

export function usd(text) {
  return Number(text).toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

export function shortHash(hash) {
  return hash.length > 20 ? `${hash.slice(0, 8)}\u2026${hash.slice(-8)}` : hash;
}

/** Write an event's name as people would. */
export function words(name) {
  return name.replace(/(?<=[a-z])(?=[A-Z])/g, " ").toLowerCase().replace(/^./, (first) => first.toUpperCase());
}

export function pair(order) {
  return `${order.amount} ${order.tokenIn} \u2192 ${order.tokenOut}`;
}

export function facts(...pairs) {
  return h("dl", { class: "facts" }, pairs.map(([name, ...value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

export function table(caption, heads, body) {
  const cells = heads.map((head) =>
    typeof head === "string" ? h("th", { scope: "col" }, head) : h("th", { scope: "col", class: head[1] }, head[0]),
  );
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", null, h("caption", { class: "unseen" }, caption), h("thead", null, h("tr", null, cells)), body),
  );
}

export function problemBox(error) {
  const hint = {
    forbidden: "The key that you gave lacks what this needs.",
    too_many_requests: "This key has made too many requests in this minute.",
  }[error.code];
  return h("p", { class: "problem", role: "alert" }, h("strong", null, error.code ?? "error"), ` ${error.message}`, hint ? ` ${hint}` : "");
}
