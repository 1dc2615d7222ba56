// The test samples that a run is worst at, with a filter by kind of error.

// Rows of a run's table of samples: {key of a column: value}. A missing number is an infinite one.
const samplesOf = (run) => {
  const columns = shared[run.samples.columns];
  const values = run.samples.values.map((index) => shared[index]);
  return values[0].map((_, row) => Object.fromEntries(columns.map(([key], column) => [key, values[column][row]])));
};
// Kinds of errors among the rows: [[name, whether a row is of it]]. Confusions are pairs of classes, the most frequent
// ones first.
const MOST_CONFUSIONS = 20;
const errorKinds = (rows) => {
  const [first] = rows;
  if ("missed" in first)
    return [
      ["missed objects", (row) => row.missed > 0],
      ["false detections", (row) => row.false > 0],
    ];
  if (!("prediction" in first && "label" in first)) return [];
  const isWrong = (row) => row.prediction !== row.label;
  const nameOfPair = (row) => `${row.label} taken for ${row.prediction}`;
  const counts = new Map();
  for (const row of rows.filter(isWrong)) counts.set(nameOfPair(row), (counts.get(nameOfPair(row)) ?? 0) + 1);
  const pairs = [...counts].sort(([, a], [, b]) => b - a).slice(0, MOST_CONFUSIONS);
  return [
    ["wrong", isWrong],
    ["right", (row) => !isWrong(row)],
    ...pairs.map(([name]) => [name, (row) => isWrong(row) && nameOfPair(row) === name]),
  ];
};
const drawSampleTable = (run) => {
  const rows = samplesOf(run);
  const columns = shared[run.samples.columns].map(([key, title]) => ({
    key,
    title,
    number: true,
    ascending: key === "id",
    value: (row) => row[key] ?? Infinity,
    cell: (row) => (row[key] === null ? "\u221e" : formatShort(row[key])),
  }));
  const table = sortableTable("Worst samples");
  const count = h("p", { class: "muted", role: "status" });
  const kinds = errorKinds(rows);
  const countOf = (isOfKind) => rows.filter(isOfKind).length;
  const options = [
    ["", `all (${rows.length})`],
    ...kinds.map(([name, isOfKind]) => [name, `${name} (${countOf(isOfKind)})`]),
  ];
  const error = selectControl("Error", options, () => update());
  const update = () => {
    const isOfKind = kinds.find(([name]) => name === error.control.value)?.[1] ?? (() => true);
    const chosen = rows.filter(isOfKind);
    count.textContent = `${chosen.length} of the ${plural(rows.length, "sample")} with the worst values`;
    table.update(columns, chosen);
  };
  update();
  const save = saveButton(`${run.id}: worst samples as CSV`, "CSV", () =>
    saveText(
      `${fileName(run.id)}-samples.csv`,
      "text/csv",
      csvText([columns.map(({ key }) => key), ...rows.map((row) => columns.map(({ key }) => row[key] ?? "inf"))]),
    ),
  );
  return h("div", {}, h("div", { class: "controls" }, kinds.length ? error.element : null, save), count, table.element);
};
// null if the task left no values of single samples.
const drawSamples = (run) => {
  if (!run.samples) return null;
  const heading = h("h3", {}, "Single samples");
  if (run.samples.problem) return [heading, h("p", { class: "muted small" }, `Not shown: ${run.samples.problem}`)];
  const shown = shared[run.samples.values[0]].length;
  if (!shown) return null;
  return [
    heading,
    lazyDetails(`The ${shown} worst of ${plural(run.samples.of, "test sample")}`, () => drawSampleTable(run)),
  ];
};
