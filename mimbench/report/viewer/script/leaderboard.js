// The leaderboard: a row per setting, a column per metric of each task under each protocol.

// A score with its mark and footnotes, linked to its run or runs; null if there is none.
const drawScoreCell = (row, column, mark) => {
  const cell = cellOf(row, column.index);
  if (!cell) return null;
  const decimals = decimalsOf(column.unit);
  const mean = formatNumber(cell.mean, decimals);
  const href =
    cell.runs.length === 1
      ? viewAddress("run", runs[cell.runs[0]].id)
      : viewAddress("score", row.key, String(column.index));
  const description = `${mean}${mark ? `, ${mark}` : ""}: ${plural(cell.n, "run")}`;
  const spread = cell.sd === null ? "" : ` ± ${formatNumber(cell.sd, decimals)}`;
  // The spread is in the link, so that the link is no part of a text from which its colour alone would set it apart.
  return [
    h(
      "a",
      { href, "aria-label": description },
      h("span", { class: mark || "value" }, mean),
      h("span", { class: "muted small" }, `${spread} (n=${cell.n})`),
    ),
    cell.notes.length ? h("sup", {}, cell.notes.join(",")) : null,
  ];
};
// The difference of a row from the baseline, paired by seed; null without one.
const drawRowDifference = (row, baseline, column) => {
  if (!baseline || baseline === row) return null;
  const [cell, other] = [row, baseline].map((one) => cellOf(one, column.index));
  if (!cell || !other) return null;
  const difference = drawDifference(
    { seeds: seedsOf(cell, column) },
    { seeds: seedsOf(other, column) },
    decimalsOf(column.unit),
  );
  return h("div", { class: "small" }, "Δ ", difference);
};
// A label as a number if it is one, so that columns of numbers sort by value; null for "-".
const labelValue = (label) => {
  if (label === "-") return null;
  return label !== "" && Number.isFinite(Number(label)) ? Number(label) : label;
};
// Columns that describe a row's setting.
const settingColumns = () => [
  { key: "encoder", title: "Encoder", value: (row) => row.encoder },
  ...leaderboard.labels.slice(2).map(({ title }, index) => ({
    key: `label ${title}`.replaceAll(",", " "),
    title,
    value: (row) => labelValue(row.labels[index + 2]),
    cell: (row) => row.labels[index + 2],
    ascending: true,
  })),
  { key: "pretraining", title: "Pretraining", value: (row) => row.pretraining },
];
// The column of methods, with the checkboxes; on a phone the setting is in it too.
const methodColumn = () => ({
  key: "method",
  title: "Method",
  value: (row) => methodLabel(row.method),
  cell: (row) =>
    h(
      "label",
      {},
      selectionBox(selectionKey(row), nameOf(row)),
      h("span", { class: methodLabel(row.method).length < 20 ? "name" : null }, methodLabel(row.method), phone.matches ? h("small", {}, breakable(settingAndEpochOf(row))) : null),
    ),
});
// rows: the shown ones, among which the best is marked. baseline: a row, or null.
const scoreColumn = (column, rows, baseline) => {
  const marks = markRows(rows, column);
  const protocols = leaderboard.columns.filter((one) => one.task === column.task && one.metric === column.metric);
  return {
    key: `score ${column.index}`,
    title: metricTitle(column.task, column.metric),
    note: protocols.length > 1 ? column.label : "",
    number: true,
    ascending: !column.higher,
    value: (row) => cellOf(row, column.index)?.mean,
    cell: (row) => [drawScoreCell(row, column, marks.get(row)), drawRowDifference(row, baseline, column)],
    below: h(
      "small",
      {},
      protocols.length > 1 ? `${column.label}; ` : "",
      column.unit,
      column.chance === null ? "" : `, chance ${formatShort(Number(column.chance.toFixed(1)))}`,
      column.notes.length ? h("sup", {}, ` ${column.notes.join(",")}`) : null,
    ),
  };
};
// A remark of the table, with {best} and {similar} as they look in it.
const drawRemark = (remark, isFiltered) =>
  h(
    "p",
    {},
    remark.split(/(\{best\}|\{similar\})/).map((part) => {
      const mark = part.match(/^\{(best|similar)\}$/)?.[1];
      return mark ? h("span", { class: mark }, mark) : part;
    }),
    isFiltered ? "; marks are those among the rows shown" : "",
  );
// Remarks, and the footnotes that the shown rows and columns use.
const drawFootnotes = (rows, columns) => {
  const used = new Set([
    ...columns.flatMap((column) => column.notes),
    ...rows.flatMap((row) => columns.flatMap((column) => cellOf(row, column.index)?.notes ?? [])),
  ]);
  return [
    ...leaderboard.remarks.map((remark) => drawRemark(remark, rows.length < leaderboard.rows.length)),
    ...leaderboard.notes
      .filter(([letter]) => used.has(letter))
      .map(([letter, note]) => h("p", {}, h("sup", {}, letter), ` ${note}`)),
  ];
};
const drawFailureCount = () => {
  const count = data.failures.length;
  if (!count) return null;
  const rest = count === 1 ? " and has no number here." : " and have no number here.";
  return h("p", {}, link("#failures", `${plural(count, "cell")} failed`), rest);
};

const drawLeaderboard = () => {
  const allColumns = leaderboard.columns.map((column, index) => ({ ...column, index }));
  const countScores = (column) => leaderboard.rows.filter((row) => cellOf(row, column.index)).length;
  // The primary metric with the most scores sorts the rows, and comes first to be in sight.
  const [leading] = allColumns.filter((column) => column.primary).sort((a, b) => countScores(b) - countScores(a));
  const table = sortableTable("Leaderboard", { key: `score ${leading.index}`, ascending: !leading.higher });
  const footnotes = h("div", { class: "small muted" });

  const changed = () => {
    update();
    address.write();
  };
  const search = searchControl("Filter rows", "method, encoder, setting", changed);
  const method = selectControl("Method", optionsFor("all methods", methods, methodLabel), changed);
  const tasks = allColumns.map((column) => column.task);
  const task = selectControl("Task", optionsFor("all tasks", tasks, taskLabel), () => {
    offerProtocols();
    changed();
  });
  const protocol = selectControl("Protocol", [["", "all protocols"]], changed);
  const allMetrics = checkControl("All metrics", false, changed);
  const earlier = checkControl("Earlier epochs", false, changed);
  earlier.element.hidden = !leaderboard.rows.some((row) => row.early);
  const rivals = leaderboard.rows.filter((row) => !row.early).map((row) => [row.key, nameOf(row)]);
  const baseline = selectControl("Difference to", [["", "none"], ...rivals], changed);
  const choice = columnsControl(changed);
  const controls = { q: search, method, task, protocol, all: allMetrics, earlier, baseline, columns: choice };
  const address = bindAddress("leaderboard", controls, table);
  readers.set("leaderboard", address.read);

  const isOfTask = (column) => isChosen(task, column.task);
  const isOfProtocol = (column) => isChosen(protocol, column.protocol);
  // The protocols of the chosen task.
  const offerProtocols = () => {
    const options = unique(allColumns.filter(isOfTask).map((column) => column.protocol)).map((key) => {
      const column = allColumns.find((one) => one.protocol === key);
      return h("option", { value: key }, `${taskLabel(column.task)}: ${column.label}`);
    });
    protocol.control.replaceChildren(h("option", { value: "" }, "all protocols"), ...options);
  };
  const update = () => {
    const columns = allColumns
      .filter((column) => allMetrics.control.checked || column.headline)
      .filter((column) => isOfTask(column) && isOfProtocol(column))
      .sort((a, b) => (b.index === leading.index) - (a.index === leading.index));
    const terms = filterTerms(search.control.value);
    // Rows without a score of the chosen task or protocol are left out.
    const needsScore = task.control.value || protocol.control.value;
    const rows = leaderboard.rows.filter(
      (row) =>
        (!row.early || earlier.control.checked) &&
        isChosen(method, row.method) &&
        matchesTerms(`${row.method} ${nameOf(row)} ${row.encoder} ${row.pretraining}`.toLowerCase(), terms) &&
        (!needsScore || columns.some((column) => cellOf(row, column.index))),
    );
    const base = leaderboard.rows[rowNumbers.get(baseline.control.value)] ?? null;
    const scores = columns.map((column) => ({ ...scoreColumn(column, rows, base), column }));
    const primary = columns.filter((column) => column.primary);
    const isHidden = new Set(choice.control.value.split(","));
    const ranked = primary.filter((column) => !isHidden.has(`score ${column.index}`));
    const summaries = summaryColumns(rows, ranked);
    const shown = choice.offer(
      phone.matches ? [...scores, ...summaries, ...settingColumns()] : [...settingColumns(), ...scores, ...summaries],
    );
    table.update([methodColumn(), ...shown], rows);
    const shownScores = shown.filter((one) => one.column).map((one) => one.column);
    footnotes.replaceChildren(...drawFootnotes(rows, shownScores));
  };
  offerProtocols();
  update();
  phone.addEventListener("change", update);
  return [
    h("h2", { tabindex: -1 }, "Leaderboard"),
    drawFailureCount(),
    controlBar(search, method, task, protocol, baseline, allMetrics, earlier),
    choice.element,
    table.element,
    footnotes,
  ];
};
