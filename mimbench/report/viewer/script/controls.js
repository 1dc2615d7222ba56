// Controls of the views.

// The same width as in page.css. On a phone, numbers come first.
const phone = matchMedia("(max-width: 40rem)");
// Columns, on a phone with those of `keys` first.
const arrangeColumns = (columns, keys) => {
  const place = (column) => keys.indexOf(column.key) + 1 || keys.length + 1;
  return phone.matches ? [...columns].sort((a, b) => place(a) - place(b)) : columns;
};

const labelled = (name, control, isWide = false) => h("label", { class: isWide ? "span" : null }, name, control);
// Options of a select: all, or one of the values.
// labelOf: what a value is called.
const optionsFor = (titleOfAll, values, labelOf = String) => [
  ["", titleOfAll],
  ...unique(values)
    .sort()
    .map((value) => [value, labelOf(value)]),
];
const selectControl = (name, options, onchange) => {
  const control = h(
    "select",
    { onchange },
    options.map(([value, title]) => h("option", { value }, title)),
  );
  return { control, element: labelled(name, control) };
};
// Whether a select shows all values, or this one.
const isChosen = ({ control }, value) => !control.value || value === control.value;
const searchControl = (name, placeholder, oninput) => {
  const control = h("input", { type: "search", placeholder, oninput, autocomplete: "off", spellcheck: "false" });
  return { control, element: labelled(name, control, true) };
};
const checkControl = (name, checked, onchange) => {
  const control = h("input", { type: "checkbox", checked, onchange });
  return { control, element: h("label", { class: "check" }, control, name) };
};
const controlBar = (...controls) =>
  h(
    "div",
    { class: "controls" },
    controls.map((control) => control.element),
  );
// Checkboxes that show and hide the columns of a table. For the address, `control` holds the keys of those columns that
// are not as they are at first.
const columnsControl = (onchange) => {
  const list = h("div", { class: "choices", role: "group", "aria-label": "Columns" });
  const title = h("summary", {});
  const control = h("input", { type: "hidden", value: "" });
  let offered = [];
  const toggled = () => new Set(control.value.split(",").filter(Boolean));
  const isShown = (column) => toggled().has(column.key) !== (column.shown ?? true);
  const toggle = (key) => {
    const keys = toggled();
    if (!keys.delete(key)) keys.add(key);
    control.value = [...keys].join(",");
    onchange();
  };
  control.addEventListener("change", onchange);
  // Boxes are drawn anew only if the columns change, so that the focus stays on them. Returns the columns to show.
  const offer = (columns) => {
    const isSame = columns.map(({ key }) => key).join() === offered.map(({ key }) => key).join();
    offered = columns;
    if (!isSame)
      list.replaceChildren(
        ...columns.map(({ key, title, note }) =>
          h(
            "label",
            { class: "check" },
            h("input", { type: "checkbox", onchange: () => toggle(key) }),
            h("span", {}, raised(title), note ? h("small", {}, ` ${note}`) : null),
          ),
        ),
      );
    columns.forEach((column, index) => {
      list.children[index].firstChild.checked = isShown(column);
    });
    const shown = columns.filter(isShown);
    title.textContent = `Columns: ${shown.length} of ${columns.length}`;
    return shown;
  };
  return { control, element: h("details", { class: "columns" }, title, list, control), offer };
};
