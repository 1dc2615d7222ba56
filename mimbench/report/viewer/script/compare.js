// Two or more runs or settings side by side. The first one is the baseline of the differences.

// A selected key as {key, name, href, method, runs}.
const itemOf = (key) => {
  if (runNumbers.has(key)) {
    const run = runs[runNumbers.get(key)];
    return { key, name: run.id, href: viewAddress("run", run.id), method: run.method, runs: [run] };
  }
  const row = leaderboard.rows[rowNumbers.get(key.slice(SETTING.length))];
  const numbers = unique(row.cells.flatMap((cell) => cell.runs));
  return { key, name: nameOf(row), href: null, method: row.method, runs: numbers.map((number) => runs[number]) };
};
// The scores of an item: Map from task, metric and protocol to {task, metric, unit, protocol, seeds}; seeds: value by seed.
const scoresOf = (item) => {
  const scores = new Map();
  for (const run of item.runs) {
    for (const metric of metricsOf(run)) {
      if (metric.isOutOfRange) continue; // a footnote of the leaderboard says so
      const { task, protocol } = run;
      const key = JSON.stringify([task, metric.name, protocol]);
      if (!scores.has(key))
        scores.set(key, { task, metric: metric.name, unit: metric.unit, protocol, seeds: new Map() });
      scores.get(key).seeds.set(run.seed, metric.value);
    }
  }
  return scores;
};
const drawDifference = (score, baseline, decimals) => {
  const difference = pairedDifference(score.seeds, baseline.seeds, data.quantiles);
  if (!difference) return [h("span", { class: "muted small" }, "no seed in common")];
  const { seeds, mean, halfWidth } = difference;
  const [low, high] = [mean - halfWidth, mean + halfWidth].map((end) => formatNumber(end, decimals));
  const pairs = seeds.length === 1 ? ` (seed ${seeds[0]})` : ` (n=${seeds.length})`;
  return [
    formatSigned(mean, decimals),
    halfWidth === null ? "" : ` [${low}, ${high}]`,
    h("span", { class: "muted small" }, pairs),
  ];
};
// A cell of the table of metrics. score: undefined if the item has none; baseline: null for the baseline itself.
const drawComparedScore = (score, baseline) => {
  if (!score) return h("td", { class: "muted" }, "not measured");
  const decimals = decimalsOf(score.unit);
  const values = [...score.seeds.values()];
  const std = values.length > 1 ? stdOf(values) : null;
  return h(
    "td",
    {},
    h(
      "div",
      { class: "whole" },
      formatMean(meanOf(values), std, decimals),
      h("span", { class: "muted small" }, ` (n=${values.length})`),
    ),
    baseline ? h("div", { class: "small whole" }, "Δ ", drawDifference(score, baseline, decimals)) : null,
  );
};
// A head with a column per item. note: below the name of the first one.
const comparisonHead = (title, items, note = null) =>
  tableHead(
    [
      title,
      ...items.map((item, index) => [
        item.href ? link(item.href, item.name) : breakable(item.name),
        index === 0 && note ? h("small", {}, note) : null,
      ]),
    ],
    (index) => (index ? null : "first"),
  );
const drawComparedMetrics = (items) => {
  const scores = items.map(scoresOf);
  const rows = new Map(scores.flatMap((one) => [...one]));
  const hasSeveralProtocols = ({ task, metric }) =>
    [...rows.values()].filter((other) => other.task === task && other.metric === metric).length > 1;
  const drawRow = ([key, row]) => {
    const protocol = hasSeveralProtocols(row) ? ` (${data.protocols[row.protocol][0]})` : "";
    return h(
      "tr",
      {},
      h(
        "th",
        { scope: "row", class: "first" },
        metricLabel(row.task, row.metric),
        row.unit === "percent" ? "" : ` [${row.unit}]`,
        protocol ? h("span", { class: "muted small" }, protocol) : null,
      ),
      scores.map((one, index) => drawComparedScore(one.get(key), index ? scores[0].get(key) : null)),
    );
  };
  const head = comparisonHead("Metric", items, "baseline of the differences");
  const table = h("table", { class: "side" }, head, h("tbody", {}, [...rows].map(drawRow)));
  return scrollBox("Metrics side by side", table);
};
// The resolved recipe of an item: Map from path to the values of all its runs.
const mergedRecipe = (item) => {
  const texts = new Map();
  for (const run of item.runs)
    for (const [path, value] of recipeOf(run)) texts.set(path, (texts.get(path) ?? new Set()).add(formatValue(value)));
  return new Map([...texts].map(([path, values]) => [path, [...values].sort().join(" | ")]));
};
// Paths in which the recipes differ. A setting of a task counts only for items that measured this task.
const differingPaths = (items, recipes, paths) => {
  const isMeasured = (item, path) =>
    !path.startsWith("tasks.") || item.runs.some((run) => path.startsWith(`tasks.${run.task}.`));
  const valuesAt = (path) =>
    recipes.filter((_, index) => isMeasured(items[index], path)).map((recipe) => recipe.get(path));
  return new Set(paths.filter((path) => unique(valuesAt(path)).length > 1));
};
const drawComparedRecipes = (items) => {
  const recipes = items.map(mergedRecipe);
  const paths = unique(recipes.flatMap((recipe) => [...recipe.keys()]));
  const differing = differingPaths(items, recipes, paths);
  const body = h("tbody", {});
  const onlyDiffering = checkControl("Only what differs", true, () => drawRows());
  const drawRow = (path) =>
    h(
      "tr",
      { class: differing.has(path) ? "differs" : null },
      h("th", { scope: "row" }, path),
      recipes.map((recipe) => h("td", {}, recipe.get(path) ?? "-")),
    );
  const drawRows = () => {
    const shown = paths.filter((path) => !onlyDiffering.control.checked || differing.has(path));
    const none = h("tr", {}, h("td", { colspan: items.length + 1 }, "The resolved recipes are the same."));
    body.replaceChildren(...(shown.length ? shown.map(drawRow) : [none]));
  };
  drawRows();
  const verb = differing.size === 1 ? "differs" : "differ";
  return [
    h("h3", {}, `Recipes: ${plural(differing.size, "value")} of ${paths.length} ${verb}`),
    controlBar(onlyDiffering),
    scrollBox("Recipes side by side", h("table", { class: "plain side" }, comparisonHead("value", items), body)),
  ];
};
const drawComparisonHelp = () => [
  h("h2", { tabindex: -1 }, "Comparison"),
  h(
    "p",
    {},
    "Select two or more rows of the ",
    link("#leaderboard", "leaderboard"),
    " (all their seeds), or single ",
    link("#runs", "runs"),
    ", by their checkboxes.",
  ),
];
const drawComparison = (keys) => {
  const items = keys.filter(isInReport).map(itemOf);
  if (items.length < 2) return drawComparisonHelp();
  // The checkboxes follow the address.
  for (const key of [...selected]) if (!keys.includes(key)) setSelected(key, false);
  for (const item of items) setSelected(item.key, true);

  const curves = drawCurves(
    items.flatMap((item) => item.runs.map((run) => [run, item.name, methodStyle(item.method), item.runs.length > 1])),
  );
  // The pictures of the first run of each item that has any.
  const hasPicture = (run) => picturesOf(run).some(([, , source]) => source);
  const pictures = items
    .filter((item) => item.runs.some(hasPicture))
    .map((item) => drawPictures(item.runs.find(hasPicture), item.name));
  const selectOthers = () => {
    clearSelection();
    location.hash = "#leaderboard";
  };
  return [
    h("h2", { tabindex: -1 }, "Comparison"),
    h("div", { class: "controls" }, h("button", { type: "button", onclick: selectOthers }, "Select others")),
    drawComparedMetrics(items),
    h(
      "p",
      { class: "small muted" },
      "mean ± std over seeds (n seeds). Δ: mean difference from the first one over the seeds that both have, paired by seed; [ ]: its 95 % interval, Student's t over the pairs.",
    ),
    drawComparedRecipes(items),
    curves.length ? [h("h3", {}, "Curves"), h("div", { class: "cards" }, curves)] : null,
    pictures.length ? [h("h3", {}, "Pictures"), h("div", { class: "cards" }, pictures)] : null,
  ];
};
