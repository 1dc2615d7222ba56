// A table that sorts by its headers.
// A column is {key, title, value(row), and if needed: cell(row), below, number, wide, kind (a class), ascending (at first)}.

const FIRST_ROWS = 200; // Drawn at first; a button draws the rest.
const sortableTable = (name, sortedAtFirst = null) => {
  const head = h("tr", {});
  const body = h("tbody", {});
  const showAll = h("button", {
    type: "button",
    onclick: () => {
      limit = Infinity;
      drawRows();
    },
  });
  const footer = h("p", { class: "more", hidden: true }, showAll);
  const element = scrollBox(name, h("table", {}, h("thead", {}, head), body), footer);
  let columns = [],
    rows = [],
    sorted = sortedAtFirst, // {key, ascending}; null: the order of the rows
    limit = FIRST_ROWS,
    sortListener = () => {};

  // A header's first click sorts, the second turns the order round, the third restores the original one.
  const toggleSort = (column) => {
    const ascending = column.ascending ?? !column.number;
    if (sorted?.key !== column.key) sorted = { key: column.key, ascending };
    else sorted = sorted.ascending === ascending ? { key: column.key, ascending: !ascending } : null;
    markHeaders();
    drawRows();
    sortListener();
    const direction = sorted?.ascending ? "ascending" : "descending";
    announce(sorted ? `Sorted by ${column.title.replace("^", " ")}, ${direction}` : "Original order");
  };
  const markHeaders = () =>
    columns.forEach((column, index) => {
      const direction = sorted?.key === column.key ? (sorted.ascending ? "ascending" : "descending") : "none";
      head.children[index].setAttribute("aria-sort", direction);
    });
  const classOf = (...names) => names.filter(Boolean).join(" ") || null;
  const drawCell = (column, index, row) => {
    const isFirst = index === 0;
    const isShort = !isFirst && String(column.value(row) ?? "").length < 30; // kept in one line
    const attributes = {
      scope: isFirst ? "row" : null,
      class: classOf(
        column.number && "number",
        isFirst && "first",
        column.wide && "wide",
        column.kind,
        isShort && "whole",
      ),
    };
    return h(isFirst ? "th" : "td", attributes, column.cell ? column.cell(row) : (column.value(row) ?? ""));
  };
  const drawRows = () => {
    const column = columns.find((candidate) => candidate.key === sorted?.key);
    const sortedRows = column ? sortRows(rows, column.value, sorted.ascending) : rows;
    // Rows that are set apart, such as controls, stay above the others.
    const ordered = [...sortedRows.filter((row) => row.apart), ...sortedRows.filter((row) => !row.apart)];
    body.replaceChildren(
      ...ordered.slice(0, limit).map((row) =>
        h(
          "tr",
          { class: row.apart ? "apart" : null },
          columns.map((each, index) => drawCell(each, index, row)),
        ),
      ),
    );
    footer.hidden = ordered.length <= limit;
    showAll.textContent = `Show all ${ordered.length.toLocaleString("en")} rows`;
    if (!ordered.length) body.append(h("tr", {}, h("td", { colspan: columns.length }, "Nothing matches.")));
  };
  const drawHeader = (column, index) =>
    h(
      "th",
      { scope: "col", class: classOf(column.number && "number", index === 0 && "first", column.title.length > 22 && "long") },
      h("button", { type: "button", onclick: () => toggleSort(column) }, raised(column.title)),
      column.below ?? null,
    );
  // Headers are drawn anew only if the columns change, so that the focus stays on them.
  const update = (newColumns, newRows) => {
    rows = newRows;
    limit = FIRST_ROWS;
    const keys = [newColumns, columns].map((some) => some.map((column) => column.key).join());
    columns = newColumns;
    if (keys[0] !== keys[1]) {
      head.replaceChildren(...columns.map(drawHeader));
    }
    markHeaders();
    drawRows();
  };
  // The order as a text, "" for the one at first; the same order from its text.
  const initialOrder = JSON.stringify(sorted);
  const sortText = () => {
    if (JSON.stringify(sorted) === initialOrder) return "";
    return sorted ? `${sorted.key},${sorted.ascending ? "ascending" : "descending"}` : "none";
  };
  const setSort = (text) => {
    const [, key, direction] = (text ?? "").match(/^(.*),(ascending|descending)$/) ?? [];
    sorted = key ? { key, ascending: direction === "ascending" } : text === "none" ? null : JSON.parse(initialOrder);
    markHeaders();
    drawRows();
  };
  const onSort = (listener) => {
    sortListener = listener;
  };
  return { element, update, sortText, setSort, onSort };
};
