// A table that sorts by its headers. A column is {key, title, below, value(row), cell(row), number, wide, kind, up}; kind is a class.

const compare = (a, b) =>
  typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
const sortable = (name, sortedAtFirst = null) => {
  const head = h("tr", {});
  const body = h("tbody", {});
  const more = h("button", {
    type: "button",
    onclick: () => {
      limit = Infinity;
      draw();
    },
  });
  const rest = h("p", { class: "more", hidden: true }, more);
  const element = scroll(name, h("table", {}, h("thead", {}, head), body), rest);
  let columns = [],
    rows = [],
    sorted = sortedAtFirst,
    limit = FEW;

  const order = (column) => {
    const up = column.up ?? !column.number;
    sorted =
      sorted?.key !== column.key ? { key: column.key, up } : sorted.up === up ? { key: column.key, up: !up } : null;
    mark();
    draw();
    say(sorted ? `Sorted by ${column.title}, ${sorted.up ? "ascending" : "descending"}` : "Sorted as it was");
  };
  const mark = () =>
    columns.forEach((column, index) => {
      const way = sorted?.key === column.key ? (sorted.up ? "ascending" : "descending") : "none";
      head.children[index].setAttribute("aria-sort", way);
    });
  const draw = () => {
    const column = columns.find((one) => one.key === sorted?.key);
    const shown = [...rows];
    if (column) {
      const none = (value) => value === null || value === undefined || value === "";
      shown.sort((a, b) => {
        const [x, y] = [column.value(a), column.value(b)];
        if (none(x) || none(y)) return none(x) - none(y);
        return sorted.up ? compare(x, y) : compare(y, x);
      });
    }
    body.replaceChildren(
      ...shown.slice(0, limit).map((row) =>
        h(
          "tr",
          {},
          columns.map((one, index) =>
            h(
              index === 0 ? "th" : "td",
              {
                scope: index === 0 ? "row" : null,
                class:
                  [
                    one.number ? "number" : "",
                    index === 0 ? "first" : "",
                    one.wide ? "wide" : "",
                    one.kind ?? "",
                    index && String(one.value(row) ?? "").length < 30 ? "whole" : "",
                  ]
                    .join(" ")
                    .trim() || null,
              },
              one.cell ? one.cell(row) : (one.value(row) ?? ""),
            ),
          ),
        ),
      ),
    );
    rest.hidden = shown.length <= limit;
    more.textContent = `Show all ${shown.length.toLocaleString("en")} rows`;
    if (!shown.length) body.append(h("tr", {}, h("td", { colspan: columns.length }, "Nothing matches.")));
  };
  const update = (newColumns, newRows) => {
    rows = newRows;
    limit = FEW;
    if (newColumns.map((one) => one.key).join() !== columns.map((one) => one.key).join()) {
      columns = newColumns;
      head.replaceChildren(
        ...columns.map((one, index) =>
          h(
            "th",
            {
              scope: "col",
              class: [one.number ? "number" : "", index === 0 ? "first" : ""].join(" ").trim() || null,
            },
            h("button", { type: "button", onclick: () => order(one) }, breakable(one.title)),
            one.below ?? null,
          ),
        ),
      );
    }
    mark();
    draw();
  };
  return { element, update };
};
