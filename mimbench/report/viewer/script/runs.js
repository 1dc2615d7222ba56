// All runs, and the runs behind one number.

const runColumns = () => arrangeColumns(allRunColumns(), ["id", "value", "seed"]);
const allRunColumns = () => [
  {
    key: "id",
    title: "Run",
    value: (run) => run.id,
    cell: (run) => h("label", {}, selectionBox(run.id, run.id), link(viewAddress("run", run.id), run.id)),
  },
  { key: "setting", title: "Setting", value: (run) => settingAndEpochOf(rowOf(run)) },
  { key: "encoder", title: "Encoder", value: (run) => run.encoder },
  { key: "task", title: "Task", value: (run) => taskLabel(run.task) },
  { key: "protocol", title: "Protocol", value: protocolOf },
  { key: "seed", title: "Seed", value: (run) => run.seed, number: true, ascending: true },
  {
    key: "value",
    title: "Result",
    value: (run) => run.values[0][0],
    number: true,
    cell: (run) => {
      const [primary] = metricsOf(run);
      const value = formatNumber(primary.value, decimalsOf(primary.unit));
      return [h("span", { class: "muted small" }, `${metricLabel(run.task, primary.name)} `), value];
    },
  },
  { key: "time", title: "Time", value: (run) => run.time, cell: (run) => formatTime(run.time) },
];
// What the filter of runs searches in, lower case.
const searchTextOf = (run) =>
  [
    ...[run.id, nameOf(rowOf(run)), run.encoder, run.task, taskLabel(run.task), protocolOf(run), `seed ${run.seed}`],
    ...[shared[run.provenance].host, run.recipe_name],
  ]
    .join(" ")
    .toLowerCase();
const drawRuns = () => {
  const table = sortableTable("Runs");
  const changed = () => {
    update();
    address.write();
  };
  const search = searchControl("Filter runs", "id, setting, seed, host", changed);
  const method = selectControl("Method", optionsFor("all methods", methods, methodLabel), changed);
  const tasks = runs.map((run) => run.task);
  const task = selectControl("Task", optionsFor("all tasks", tasks, taskLabel), changed);
  const address = bindAddress("runs", { q: search, method, task }, table);
  readers.set("runs", address.read);
  const count = h("p", { class: "muted", role: "status" });
  const texts = new Map();
  const textOf = (run) => {
    if (!texts.has(run)) texts.set(run, searchTextOf(run));
    return texts.get(run);
  };
  const update = () => {
    const terms = filterTerms(search.control.value);
    const rows = runs.filter(
      (run) =>
        isChosen(method, run.method) &&
        isChosen(task, run.task) &&
        matchesTerms(textOf(run), terms),
    );
    count.textContent = `${rows.length.toLocaleString("en")} of ${plural(runs.length, "run")}`;
    table.update(runColumns(), rows);
  };
  phone.addEventListener("change", update);
  update();
  return [h("h2", { tabindex: -1 }, "Runs"), controlBar(search, method, task), count, table.element];
};
// The runs behind a score of the leaderboard. keys: of the row, number of the column.
const drawScore = ([key, index]) => {
  const row = leaderboard.rows[rowNumbers.get(key)];
  const cell = row && cellOf(row, Number(index));
  if (!cell) return drawMissing();
  const column = leaderboard.columns[Number(index)];
  const format = (value) => formatNumber(value, decimalsOf(column.unit));
  const table = sortableTable("Runs of this number");
  table.update(
    runColumns(),
    cell.runs.map((number) => runs[number]),
  );
  const facts = [
    ["task", `${metricLabel(column.task, column.metric)} [${column.unit}], ${column.label}`],
    ["mean", `${format(cell.mean)} over ${plural(cell.n, "seed")}`],
    ["std over seeds", cell.sd === null ? "none: one seed" : format(cell.sd)],
    [
      "95 % interval of the mean",
      cell.low === null ? "none: one seed" : `${format(cell.low)} to ${format(cell.high)} (Student's t)`,
    ],
  ];
  if (column.chance !== null) facts.push(["chance", format(column.chance)]);
  if (cell.published) {
    const { value, source } = cell.published;
    const difference = formatSigned(cell.mean - value, decimalsOf(column.unit));
    facts.push(["published", `${value} (${difference}): ${source}; ${data.published.epochs}`]);
  }
  return [h("h2", { tabindex: -1 }, nameOf(row)), definitions(facts), h("h3", {}, "Runs"), table.element];
};
