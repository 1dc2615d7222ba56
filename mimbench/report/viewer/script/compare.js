// Two or more runs or settings side by side.

const itemOf = (key) => {
  if (ids.has(key)) {
    const run = runs[ids.get(key)];
    return { key, name: run.id, href: address("run", run.id), method: run.method, runs: [run] };
  }
  const row = board.rows[settings.get(key.slice(8))];
  return {
    key,
    name: label(row),
    href: null,
    method: row.method,
    runs: unique(row.cells.flatMap((cell) => cell.runs)).map((one) => runs[one]),
  };
};
const measured = (item) => {
  const found = new Map();
  for (const run of item.runs) {
    for (const one of values(run)) {
      // A value outside of its metric's range: the leaderboard's footnote says so.
      if (one.value < (one.low ?? -Infinity) - 1e-9 || one.value > (one.high ?? Infinity) + 1e-9) continue;
      const key = JSON.stringify([run.task, one.name, run.protocol]);
      if (!found.has(key))
        found.set(key, { task: run.task, metric: one.name, unit: one.unit, protocol: run.protocol, seeds: new Map() });
      found.get(key).seeds.set(run.seed, one.value);
    }
  }
  return found;
};
const mean = (list) => list.reduce((sum, one) => sum + one, 0) / list.length;
const spread = (list) => Math.sqrt(list.reduce((sum, one) => sum + (one - mean(list)) ** 2, 0) / (list.length - 1));
const differenceOf = (own, base, places) => {
  const shared = [...own.seeds.keys()].filter((seed) => base.seeds.has(seed)).sort((a, b) => a - b);
  if (!shared.length) return [h("span", { class: "muted small" }, "no seed in common")];
  const differences = shared.map((seed) => own.seeds.get(seed) - base.seeds.get(seed));
  const half =
    shared.length > 1
      ? (data.quantiles[Math.min(shared.length - 2, data.quantiles.length - 1)] * spread(differences)) /
        Math.sqrt(shared.length)
      : null;
  const middle = mean(differences);
  return [
    signed(middle, places),
    half === null ? "" : ` [${number(middle - half, places)}, ${number(middle + half, places)}]`,
    h("span", { class: "muted small" }, shared.length === 1 ? ` (seed ${shared[0]})` : ` (n=${shared.length})`),
  ];
};
const drawComparison = (keys) => {
  const items = keys.filter(known).map(itemOf);
  if (items.length < 2) {
    return [
      h("h2", { tabindex: -1 }, "Comparison"),
      h(
        "p",
        {},
        "Choose two or more rows of the ",
        link("#leaderboard", "leaderboard"),
        " (all their seeds), or single ",
        link("#runs", "runs"),
        ", by their checkboxes.",
      ),
    ];
  }
  for (const key of [...chosen]) if (!keys.includes(key)) choose(key, false);
  for (const item of items) choose(item.key, true);
  const found = items.map(measured);
  const rows = unique(found.flatMap((one) => [...one.keys()])).map((key) => [
    key,
    found.find((one) => one.has(key)).get(key),
  ]);
  const several = (one) =>
    rows.filter(([, other]) => other.task === one.task && other.metric === one.metric).length > 1;
  const head = (first, told) =>
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col", class: "first" }, first),
        items.map((item, index) =>
          h(
            "th",
            { scope: "col" },
            item.href ? link(item.href, item.name) : breakable(item.name),
            index === 0 && told ? h("small", {}, told) : null,
          ),
        ),
      ),
    );
  const metrics = scroll(
    "Metrics side by side",
    h(
      "table",
      { class: "side" },
      head("metric", "differences are to this one"),
      h(
        "tbody",
        {},
        rows.map(([key, one]) =>
          h(
            "tr",
            {},
            h(
              "th",
              { scope: "row", class: "first" },
              `${one.task}: ${one.metric}`,
              one.unit === "percent" ? "" : ` [${one.unit}]`,
              several(one) ? h("span", { class: "muted small" }, ` (${data.protocols[one.protocol][0]})`) : null,
            ),
            items.map((_, index) => {
              const own = found[index].get(key),
                base = found[0].get(key),
                places = digits(one.unit);
              if (!own) return h("td", { class: "muted" }, "not measured");
              const list = [...own.seeds.values()];
              return h(
                "td",
                {},
                h(
                  "div",
                  { class: "whole" },
                  number(mean(list), places),
                  list.length > 1 ? ` ± ${number(spread(list), places)}` : "",
                  h("span", { class: "muted small" }, ` (n=${list.length})`),
                ),
                index && base ? h("div", { class: "small whole" }, "Δ ", differenceOf(own, base, places)) : null,
              );
            }),
          ),
        ),
      ),
    ),
  );
  const recipes = items.map((item) => {
    const told = new Map();
    for (const run of item.runs)
      for (const [path, value] of recipeOf(run)) told.set(path, (told.get(path) ?? new Set()).add(text(value)));
    return new Map([...told].map(([path, set]) => [path, [...set].sort().join(" | ")]));
  });
  const paths = unique(recipes.flatMap((recipe) => [...recipe.keys()]));
  const tasks = items.map((item) => new Set(item.runs.map((run) => run.task)));
  const has = (index, path) =>
    // what belongs to a task that was not measured differs from nothing
    !path.startsWith("tasks.") || [...tasks[index]].some((task) => path.startsWith(`tasks.${task}.`));
  const differing = new Set(
    paths.filter(
      (path) => new Set(recipes.filter((_, index) => has(index, path)).map((recipe) => recipe.get(path))).size > 1,
    ),
  );
  const body = h("tbody", {});
  const only = check("Only what differs", true, () => draw());
  const draw = () => {
    const shown = paths.filter((path) => !only.control.checked || differing.has(path));
    body.replaceChildren(
      ...shown.map((path) =>
        h(
          "tr",
          { class: differing.has(path) ? "differs" : null },
          h("th", { scope: "row" }, path),
          recipes.map((recipe) => h("td", {}, recipe.get(path) ?? "-")),
        ),
      ),
    );
    if (!shown.length)
      body.append(h("tr", {}, h("td", { colspan: items.length + 1 }, "The resolved recipes are the same.")));
  };
  draw();
  const curves = curvesOf(
    items.flatMap((item) => item.runs.map((run) => [run, item.name, styleOf(item.method), item.runs.length > 1])),
  );
  const pictures = items
    .map((item) => [item, item.runs.find((run) => run.pictures.some(([, , source]) => source))])
    .filter(([, run]) => run);
  const anew = h(
    "button",
    {
      type: "button",
      onclick: () => {
        clear();
        location.hash = "#leaderboard";
      },
    },
    "Choose others",
  );
  return [
    h("h2", { tabindex: -1 }, "Comparison"),
    h("div", { class: "controls" }, anew),
    metrics,
    h(
      "p",
      { class: "small muted" },
      "mean ± seed sd (n seeds). Δ: mean difference over the seeds that both have, paired by seed; [ ]: its 95 % interval, Student's t over the pairs.",
    ),
    h(
      "h3",
      {},
      `Recipes: ${plural(differing.size, "value")} of ${paths.length} ${differing.size === 1 ? "differs" : "differ"}`,
    ),
    h("div", { class: "controls" }, only.element),
    scroll("Recipes side by side", h("table", { class: "plain side" }, head("value"), body)),
    curves.length ? [h("h3", {}, "Curves"), h("div", { class: "cards" }, curves)] : null,
    pictures.length
      ? [
          h("h3", {}, "Pictures"),
          h(
            "div",
            { class: "cards" },
            pictures.map(([item, run]) => picturesOf(run, item.name)),
          ),
        ]
      : null,
  ];
};
