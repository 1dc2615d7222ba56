// What all of the page's script uses. Everything that is shown comes from the JSON in the page and becomes text nodes or
// attributes set by name: no markup is ever made of data.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const { runs, pool, leaderboard: board } = data;
const main = document.getElementById("main");
const ids = new Map(runs.map((run, number) => [run.id, number]));
const settings = new Map(board.rows.map((row, number) => [row.key, number]));
const methods = data.methods.map(([name]) => name);
const FEW = 200; // rows drawn at first
const phone = matchMedia("(max-width: 40rem)"); // as in page.css; there, numbers come first
const arranged = (columns, keys) => {
  const place = (one) => keys.indexOf(one.key) + 1 || keys.length + 1;
  return phone.matches ? [...columns].sort((a, b) => place(a) - place(b)) : columns;
};

const fill = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
};
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const said = document.getElementById("said");
const say = (text) => {
  said.textContent = text;
};
const unique = (values) => [...new Set(values)];
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const minus = (text) => text.replace("-", "\u2212");
const digits = (unit) => (unit === "percent" ? 1 : 3);
const number = (value, places) => minus(value.toFixed(places));
const signed = (value, places) => (value < 0 ? "" : "+") + number(value, places);
const short = (value) => (Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(5))));
const text = (value) =>
  value === null || value === undefined ? "none" : typeof value === "string" ? value : JSON.stringify(value);
const seconds = (value) => {
  if (value < 90) return `${short(Number(value.toFixed(1)))} s`;
  return value < 5400 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
};
const bytes = (value) => (value === null || value === undefined ? "not told" : `${(value / 2 ** 20).toFixed(0)} MiB`);
const address = (view, ...keys) => `#${view}${keys.length ? "=" + keys.map(encodeURIComponent).join(",") : ""}`;
const breakable = (value) => value.split(/(?<=[._])/).flatMap((part, index) => (index ? [h("wbr"), part] : [part]));
const link = (href, ...children) => h("a", { href }, ...children);
const definitions = (pairs) =>
  h(
    "dl",
    {},
    pairs.map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]),
  );

const flat = (value, prefix = "") => {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [[prefix, value]];
  return Object.entries(value).flatMap(([key, below]) => flat(below, prefix ? `${prefix}.${key}` : key));
};
const recipeOf = (run) =>
  new Map(
    Object.entries(run.recipe).flatMap(([table, index]) =>
      flat(pool[index], table === "task" ? `tasks.${run.task}` : table),
    ),
  );
const values = (run) =>
  pool[run.metrics].map(([name, unit, low, high, higher], index) => ({
    name,
    unit,
    low,
    high,
    higher,
    value: run.values[index][0],
    n: run.values[index][1],
  }));
const protocolOf = (run) => data.protocols[run.protocol][0];
const setting = (row) =>
  row.labels
    .map((part, index) => [board.labels[index], part])
    .slice(2)
    .filter(([, part]) => part !== "-")
    .map(([title, part]) => (title.includes(".") ? `${title}=${part}` : part))
    .join(" ");
const encoders = unique(board.rows.map((row) => row.encoder)).length;
const told = (row) => [setting(row), row.epoch].filter(Boolean).join(", ");
const label = (row) =>
  [[row.method, encoders > 1 ? row.encoder : "", setting(row)].filter(Boolean).join(" "), row.epoch]
    .filter(Boolean)
    .join(", ");

const lazy = (title, draw, open = false) => {
  const box = h("details", {}, h("summary", {}, title));
  const once = () => {
    if (box.childElementCount === 1) box.append(draw());
  };
  box.addEventListener("toggle", () => {
    if (box.open) once();
  });
  if (open) {
    once();
    box.open = true;
  }
  return box;
};
const scroll = (name, ...children) =>
  h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, ...children);
const pairsTable = (name, pairs, marked = new Map()) =>
  scroll(
    name,
    h(
      "table",
      { class: "plain pairs" },
      h(
        "tbody",
        {},
        pairs.map(([path, value]) =>
          h(
            "tr",
            { class: marked.has(path) ? "differs" : null },
            h("th", { scope: "row" }, path),
            h("td", {}, text(value), marked.has(path) ? [" ", h("span", { class: "badge" }, marked.get(path))] : null),
          ),
        ),
      ),
    ),
  );

const field = (name, control, wide = false) => h("label", { class: wide ? "span" : null }, name, control);
const select = (name, options, change) => {
  const control = h(
    "select",
    { onchange: change },
    options.map(([value, shown]) => h("option", { value }, shown)),
  );
  return { control, element: field(name, control) };
};
const choices = (every, values) => [
  ["", every],
  ...unique(values)
    .sort()
    .map((value) => [value, value]),
];
const search = (name, hint, change) => {
  const control = h("input", {
    type: "search",
    placeholder: hint,
    oninput: change,
    autocomplete: "off",
    spellcheck: "false",
  });
  return { control, element: field(name, control, true) };
};
const check = (name, on, change) => {
  const control = h("input", { type: "checkbox", checked: on, onchange: change });
  return { control, element: h("label", { class: "check" }, control, name) };
};
// What a filter asks for. "seed 1" and "epoch 5" are one thing each, which "seed 12" or a 5 elsewhere is not.
const words = (value) => value.toLowerCase().match(/(?:seed|epoch)\s+\d+(?!\S)|\S+/g) ?? [];
const holds = (text, wanted) =>
  wanted.every((word) =>
    /\s/.test(word) ? ` ${text} `.includes(` ${word.replace(/\s+/, " ")} `) : text.includes(word),
  );

const copy = async (content) => {
  try {
    await navigator.clipboard.writeText(content);
  } catch {
    const area = h("textarea", { class: "unseen", "aria-hidden": "true" });
    area.value = content;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
};
const command = (content) => {
  const button = h(
    "button",
    {
      type: "button",
      onclick: async () => {
        await copy(content);
        button.textContent = "Copied";
        say("Command copied");
        setTimeout(() => {
          button.textContent = "Copy";
        }, 2000);
      },
    },
    "Copy",
  );
  return h("div", { class: "command" }, h("pre", { tabindex: 0 }, content), button);
};
