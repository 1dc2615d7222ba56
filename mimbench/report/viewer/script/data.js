// The data of the page, and what the views read from it.

// JSON by gzip as base64.
const readData = async () => {
  if (typeof DecompressionStream === "undefined") {
    main.append(h("p", {}, "This page needs a browser of 2023 or later."));
    throw new Error("no DecompressionStream");
  }
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent), (sign) => sign.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(unpacked).text());
};
const data = await readData();
const { runs, shared, leaderboard } = data;
const runNumbers = new Map(runs.map((run, number) => [run.id, number]));
const rowNumbers = new Map(leaderboard.rows.map((row, number) => [row.key, number]));
const methods = data.methods.map(([name]) => name);
// What papers call a method, a task, and a metric of a task.
const ownValue = (object, key) => (Object.hasOwn(object, key) ? object[key] : undefined);
const methodLabels = new Map(data.methods.map(([name, , , label]) => [name, label]));
const methodLabel = (name) => methodLabels.get(name) ?? name;
const taskLabel = (name) => ownValue(data.tasks, name) ?? name;
// "AP^box": what follows a "^" is raised in a heading, and a word of its own in plain text.
const metricTitle = (task, metric) => ownValue(ownValue(data.metrics, task) ?? {}, metric) ?? metric;
const metricLabel = (task, metric) => metricTitle(task, metric).replace("^", " ");
const hasSeveralEncoders = unique(leaderboard.rows.map((row) => row.encoder)).length > 1;

// The row of the leaderboard that a run belongs to.
const rowOf = (run) => leaderboard.rows[run.row];
// The resolved recipe of a run: Map from path to value.
const recipeOf = (run) =>
  new Map(
    Object.entries(run.recipe).flatMap(([table, index]) =>
      flatten(shared[index], table === "task" ? `tasks.${run.task}` : table),
    ),
  );
// The metrics of a run: [{name, unit, value, n, isOutOfRange}].
const metricsOf = (run) =>
  shared[run.metrics].map(([name, unit], index) => ({
    name,
    unit,
    value: run.values[index][0],
    n: run.values[index][1],
    isOutOfRange: run.out_of_range.includes(index),
  }));
// The pictures of a run: [[kind, path, source]]; source: null if it is not shown. Runs share sources.
const picturesOf = (run) =>
  run.pictures.map(([kind, path, index]) => [kind, path, index === null ? null : shared[index]]);
// The value of a metric by seed, of the runs behind a cell of the leaderboard.
const seedsOf = (cell, column) => {
  cell.seeds ??= new Map(
    cell.runs.map((number) => {
      const metric = metricsOf(runs[number]).find(({ name }) => name === column.metric);
      return [runs[number].seed, metric.value];
    }),
  );
  return cell.seeds;
};
// Whether all values of a cell are in the range of their metric.
const isInRange = (cell, column) =>
  cell.runs.every((number) => !metricsOf(runs[number]).some((one) => one.name === column.metric && one.isOutOfRange));
// The name of a run's protocol.
const protocolOf = (run) => data.protocols[run.protocol][0];
// What distinguishes a row from others of its method and encoder: the labels after these two.
const settingOf = (row) =>
  row.labels
    .map((label, index) => [leaderboard.labels[index], label])
    .slice(2)
    .filter(([, label]) => label !== "-")
    .map(([{ title, named }, label]) => (named ? `${title}=${label}` : label))
    .join(", ");
const settingAndEpochOf = (row) => [settingOf(row), row.epoch].filter(Boolean).join(", ");
// A row's full name: method, encoder if there are several, setting, epoch.
const nameOf = (row) => {
  const words = [methodLabel(row.method), hasSeveralEncoders ? row.encoder : "", settingOf(row), row.epoch];
  return words.filter(Boolean).join(", ");
};
// The cell of a row in a column; undefined if there is no score.
const cellOf = (row, column) => {
  row.cellByColumn ??= new Map(row.cells.map((cell) => [cell.column, cell]));
  return row.cellByColumn.get(column);
};
