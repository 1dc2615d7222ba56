// Elements of the page. Everything shown comes from the JSON in the page and becomes text nodes, or attributes set by
// name: no markup is made of data.

const main = document.getElementById("main");
const announcement = document.getElementById("announcement");

// Sets attributes ("onclick" and the like are listeners; null and false are left out) and appends children.
const fillElement = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
};
// An HTML element.
const h = (tag, attributes, ...children) => fillElement(document.createElement(tag), attributes, children);
// An SVG element.
const s = (tag, attributes, ...children) =>
  fillElement(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
// Reports a change to screen readers.
const announce = (text) => {
  announcement.textContent = text;
};

// The address of a view: "#run=ID".
const viewAddress = (view, ...keys) => `#${view}${keys.length ? "=" + keys.map(encodeURIComponent).join(",") : ""}`;
// A long name that may break after dots and underscores, but not within a number.
const breakable = (name) => name.split(/(?<=[._])(?!\d)/).flatMap((part, index) => (index ? [h("wbr"), part] : [part]));
// A heading with what follows a "^" raised: "AP^box".
const raised = (title) => {
  const [base, power] = title.split(/\^(.*)/s);
  return power ? [breakable(base), h("sup", {}, power)] : breakable(title);
};
const link = (href, ...children) => h("a", { href }, ...children);
const definitions = (pairs) =>
  h(
    "dl",
    {},
    pairs.map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]),
  );
// A head of one row.
const tableHead = (titles, classOf = () => null) =>
  h(
    "thead",
    {},
    h(
      "tr",
      {},
      titles.map((title, index) => h("th", { scope: "col", class: classOf(index) }, title)),
    ),
  );
// A box that scrolls sideways by itself, so that the page does not.
const scrollBox = (name, ...children) =>
  h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, ...children);
// A box that is drawn when it is first opened.
const lazyDetails = (title, draw, open = false) => {
  const box = h("details", {}, h("summary", {}, title));
  const drawOnce = () => {
    if (box.childElementCount === 1) box.append(draw());
  };
  box.addEventListener("toggle", () => {
    if (box.open) drawOnce();
  });
  if (open) {
    drawOnce();
    box.open = true;
  }
  return box;
};
// A table of [path, value] pairs. badges: Map from path to the word that marks it.
const pairsTable = (name, pairs, badges = new Map()) =>
  scrollBox(
    name,
    h(
      "table",
      { class: "plain pairs" },
      h(
        "tbody",
        {},
        pairs.map(([path, value]) => {
          const badge = badges.has(path) ? [" ", h("span", { class: "badge" }, badges.get(path))] : null;
          return h(
            "tr",
            { class: badge ? "differs" : null },
            h("th", { scope: "row" }, path),
            h("td", {}, formatValue(value), badge),
          );
        }),
      ),
    ),
  );

// Copies a text; pages opened from disk may have no clipboard, so there is the old way too.
const copyText = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "unseen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
};
// A command with a button that copies it.
const commandBox = (command) => {
  const button = h(
    "button",
    {
      type: "button",
      onclick: async () => {
        await copyText(command);
        button.textContent = "Copied";
        announce("Command copied");
        setTimeout(() => {
          button.textContent = "Copy";
        }, 2000);
      },
    },
    "Copy",
  );
  return h("div", { class: "command" }, h("pre", { tabindex: 0 }, command), button);
};
