// One run: its result, cost, pictures, curves, recipe, protocol and provenance.

const COST_ROWS = [
  ["time", (cost) => formatSeconds(cost.seconds)],
  ["images seen", (cost) => cost.images_seen.toLocaleString("en")],
  ["steps", (cost) => cost.steps.toLocaleString("en")],
  ["peak memory", (cost) => formatBytes(cost.peak_memory)],
  ["device", (cost) => cost.device],
  ["precision", (cost) => cost.precision],
];
const drawCosts = (pretraining, task) => {
  const rows = COST_ROWS.map(([name, format]) =>
    h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, format(pretraining)), h("td", {}, format(task))),
  );
  return scrollBox("Cost", h("table", {}, tableHead(["Cost", "pretraining", "task"]), h("tbody", {}, rows)));
};
const drawMetrics = (run) => {
  const rows = metricsOf(run).map((metric, index) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, metricLabel(run.task, metric.name), metric.unit === "percent" ? " [%]" : ` [${metric.unit}]`),
      h("td", { class: "number" }, formatNumber(metric.value, decimalsOf(metric.unit) + 1)),
      h("td", { class: "number" }, metric.n.toLocaleString("en")),
      // Chance is that of the primary metric.
      h("td", { class: "number" }, index === 0 ? formatShort(Number(run.chance.toFixed(2))) : ""),
    ),
  );
  const head = tableHead(["metric", "value", "test items", "chance"], (index) => (index ? "number" : null));
  return scrollBox("Metrics", h("table", {}, head, h("tbody", {}, rows)));
};
// Published numbers of the scores that the run is part of.
const drawPublishedOf = (run, row) =>
  row.cells
    .filter((cell) => cell.published && cell.runs.includes(runNumbers.get(run.id)))
    .map((cell) => {
      const metric = metricLabel(run.task, leaderboard.columns[cell.column].metric);
      const text = `Published: ${cell.published.value} (${metric}; ${cell.published.source})`;
      return h("p", { class: "small" }, text);
    });
// Which settings the command line set or varied: Map from path to "set" or "varied".
const passedPaths = (run) => {
  const badges = [
    ...Object.keys(shared[run.passed].set ?? {}).map((path) => [path, "set"]),
    ...Object.keys(shared[run.varied]).map((path) => [path, "varied"]),
  ];
  // "task.x" is "tasks.NAME.x" in the resolved recipe.
  return new Map(
    badges.map(([path, badge]) => [path.startsWith("task.") ? `tasks.${run.task}${path.slice(4)}` : path, badge]),
  );
};
const drawFacts = (run, row) => {
  const versions = shared[run.versions];
  return definitions([
    ["method", `${methodLabel(run.method)} (version ${versions.method})`],
    ["encoder", `${run.encoder} (version ${versions.encoder})`],
    ...(settingOf(row) ? [["setting", settingOf(row)]] : []),
    ["pretraining", row.pretraining],
    ["task", `${taskLabel(run.task)} (version ${versions.task}) on ${run.dataset}`],
    ["protocol", protocolOf(run)],
    ["seed", String(run.seed)],
    ["time", (run.time ?? "not recorded").slice(0, 19).replace("T", " ")],
  ]);
};
// The resolved recipe as a file for `mimbench run --recipe`.
const recipeToml = (run) => {
  const tables = Object.fromEntries(Object.entries(run.recipe).map(([table, index]) => [table, shared[index]]));
  return tomlText(`Resolved recipe of ${run.id}`, recipeTables(run.task, tables));
};
const drawRecipe = (run) => {
  const recipe = [...recipeOf(run)];
  return [
    h("h3", {}, "Recipe"),
    h(
      "p",
      { class: "small saves" },
      saveButton(`${run.id}: resolved recipe as TOML`, "TOML", () =>
        saveText(`${fileName(run.id)}.toml`, "application/toml", recipeToml(run)),
      ),
    ),
    lazyDetails("As passed", () => pairsTable("Recipe as passed", flatten(shared[run.passed])), true),
    lazyDetails(`As resolved: ${plural(recipe.length, "value")}`, () =>
      pairsTable("Recipe as resolved", recipe, passedPaths(run)),
    ),
    h("h3", {}, "Protocol"),
    lazyDetails(`${protocolOf(run)}: all settings that may change the score`, () =>
      pairsTable("Protocol", [...flatten(shared[run.settings]), ["fingerprint", run.protocol]]),
    ),
  ];
};
const drawProvenance = (run) => [
  h("h3", {}, "Provenance"),
  definitions([
    ["command", run.command ? h("code", {}, run.command) : "not recorded"],
    ["checkpoint", h("code", {}, run.pretraining.fingerprint)],
    ["weights", h("code", {}, `sha256 ${run.pretraining.weights_sha256}`)],
  ]),
  lazyDetails("Commit, packages and machine", () => pairsTable("Provenance", flatten(shared[run.provenance]))),
];
// All that the page knows of a run, without its pictures.
const runJson = (run) => {
  const whole = Object.fromEntries(
    ["versions", "settings", "varied", "passed", "loss", "details", "provenance"].map((key) => [key, shared[run[key]]]),
  );
  const recipe = Object.fromEntries(Object.entries(run.recipe).map(([table, index]) => [table, shared[index]]));
  const { id, method, encoder, task, dataset, seed, curves, cost, time, command, chance } = run;
  const metrics = metricsOf(run);
  const facts = { id, method, encoder, task, dataset, protocol: protocolOf(run), seed, metrics, chance, curves };
  return JSON.stringify({ ...facts, ...whole, recipe, cost, time, command }, null, 2) + "\n";
};
const MOST_SIBLINGS = 50;
// Other runs of the same row.
const drawSiblings = (run, row) => {
  const siblings = unique(row.cells.flatMap((cell) => cell.runs)).filter((number) => runs[number] !== run);
  if (!siblings.length) return null;
  const items = siblings
    .slice(0, MOST_SIBLINGS)
    .map((number) => h("li", {}, link(viewAddress("run", runs[number].id), runs[number].id)));
  return [h("h3", {}, "Runs of the same setting"), h("ul", {}, items)];
};
const drawRun = ([id]) => {
  const run = runs[runNumbers.get(id)];
  if (!run) return drawMissing();
  const row = rowOf(run);
  const checkbox = selectionBox(run.id, run.id, `Select for comparison: ${run.id}`);
  const failures = data.failures.filter((failure) => failure.checkpoint === run.pretraining.fingerprint);
  const pictures = drawPictures(run);
  const curves = drawCurves([[run, methodLabel(run.method), methodStyle(run.method)]]);
  const details = flatten(shared[run.details]);
  const hasDetails = Object.keys(shared[run.details]).length > 0;
  return [
    h("h2", { tabindex: -1 }, run.id),
    h(
      "div",
      { class: "controls" },
      h("label", { class: "check span" }, checkbox, "Select for comparison"),
      saveButton(`${run.id}: all values as JSON`, "JSON", () =>
        saveText(`${fileName(run.id)}.json`, "application/json", runJson(run)),
      ),
    ),
    h(
      "div",
      { class: "cards" },
      h("section", {}, h("h3", {}, "Run"), drawFacts(run, row)),
      h("section", {}, h("h3", {}, "Result"), drawMetrics(run), drawPublishedOf(run, row)),
      h("section", {}, h("h3", {}, "Cost"), drawCosts(shared[run.pretraining.cost], run.cost)),
    ),
    h("h3", {}, "Command to measure this again"),
    commandBox(run.rerun_command),
    pictures ? [h("h3", {}, "Pictures"), pictures] : null,
    drawSamples(run),
    curves.length ? [h("h3", {}, "Curves"), h("div", { class: "cards" }, curves)] : null,
    drawRecipe(run),
    hasDetails ? [h("h3", {}, "Details"), lazyDetails("All values", () => pairsTable("Details", details))] : null,
    drawProvenance(run),
    failures.length ? [h("h3", {}, "Failures on the same pretraining"), failureTable(failures)] : null,
    drawSiblings(run, row),
  ];
};
