// The few charts, as plain SVG and bars. Each is also told in words, for whoever does not see it.

import { h, svg } from "./dom.js";

const HEIGHT = 150;
const LEFT = 34;
const BOTTOM = 20;
const TOP = 8;
const COLUMN_MAX = 44;
const LABEL = 46;

/** Columns, each of stacked parts: `columns` are {label, title, parts: [[class, value]]}. */
export function columns(parent, told, list, { labels = 5 } = {}) {
  const width = Math.max(240, parent.clientWidth);
  const top = niceMax(Math.max(1, ...list.map(({ parts }) => parts.reduce((sum, [, value]) => sum + value, 0))));
  const step = (width - LEFT) / list.length;
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
  const chart = svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": told, class: "chart" });
  for (const value of [0, top / 2, top]) {
    if (!Number.isInteger(value)) continue;
    chart.append(
      svg("line", { x1: LEFT, x2: width, y1: y(value), y2: y(value), class: "grid" }),
      svg("text", { x: LEFT - 6, y: y(value) + 4, class: "axis", "text-anchor": "end" }, String(value)),
    );
  }
  const every = Math.max(1, Math.ceil(list.length / Math.min(labels, Math.floor(width / 80))));
  list.forEach(({ label, title, parts }, at) => {
    let sum = 0;
    const x = LEFT + at * step;
    const thick = Math.min(COLUMN_MAX, Math.max(1, step - Math.min(2, step / 5)));
    const group = svg("g", null, svg("title", null, title), svg("rect", { x, y: TOP, width: step, height: HEIGHT - TOP - BOTTOM, class: "hit" }));
    for (const [kind, value] of parts) {
      if (value === 0) continue;
      group.append(svg("rect", { x: x + (step - thick) / 2, width: thick, y: y(sum + value), height: y(sum) - y(sum + value), class: `fill ${kind}` }));
      sum += value;
    }
    if (at % every === 0) group.append(svg("text", { x: Math.max(LEFT + LABEL / 2, x + step / 2), y: HEIGHT - 5, class: "axis", "text-anchor": "middle" }, label));
    chart.append(group);
  });
  parent.replaceChildren(chart);
}

/** One bar that is divided: `parts` are [name, value, class]. */
export function shares(parts) {
  const whole = parts.reduce((sum, [, value]) => sum + value, 0);
  return h(
    "div",
    null,
    h("div", { class: "shares", "aria-hidden": "true" }, parts.map(([, value, kind]) => h("div", { class: `fill ${kind}`, vars: { width: `${(value / whole) * 100}%` } }))),
    h(
      "ul",
      { class: "legend" },
      parts.map(([name, value, kind]) => h("li", null, h("span", { class: `dot fill ${kind}` }), `${name} `, h("strong", null, `${((value / whole) * 100).toFixed(1)} %`), h("span", { class: "hint" }, ` ${value}`))),
    ),
  );
}

/** How much of something is used. */
export function meter(used, limit, told) {
  const share = limit > 0 ? Math.min(1, used / limit) : 1;
  const kind = share >= 1 ? "full" : share >= 0.8 ? "high" : "low";
  return h("div", { class: "meter", role: "img", "aria-label": told }, h("div", { class: `bar ${kind}`, vars: { width: `${share * 100}%` } }));
}

function niceMax(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((each) => each * power).find((each) => each >= value);
}
