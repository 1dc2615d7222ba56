// All runs, the runs behind one number, and one run.

const settingOf = (run) => board.rows[run.row];
const runColumns = () => arranged(allRunColumns(), ["id", "value", "seed"]);
const allRunColumns = () => [
  {
    key: "id",
    title: "run",
    value: (run) => run.id,
    cell: (run) => h("label", {}, box(run.id, run.id), link(address("run", run.id), run.id)),
  },
  { key: "setting", title: "setting", value: (run) => told(settingOf(run)) },
  { key: "encoder", title: "encoder", value: (run) => run.encoder },
  { key: "task", title: "task", value: (run) => run.task },
  { key: "protocol", title: "protocol", value: (run) => protocolOf(run) },
  { key: "seed", title: "seed", value: (run) => run.seed, number: true, up: true },
  {
    key: "value",
    title: "result",
    value: (run) => run.values[0][0],
    number: true,
    cell: (run) => {
      const first = values(run)[0];
      return [h("span", { class: "muted small" }, `${first.name} `), number(first.value, digits(first.unit))];
    },
  },
  {
    key: "time",
    title: "made",
    value: (run) => run.time,
    cell: (run) => (run.time ?? "").slice(0, 16).replace("T", " "),
  },
];
const drawRuns = () => {
  const table = sortable("Runs");
  const changed = () => update();
  const find = search("Filter runs", "id, setting, seed, host", changed);
  const method = select("Method", choices("all methods", methods), changed);
  const task = select(
    "Task",
    choices(
      "all tasks",
      runs.map((run) => run.task),
    ),
    changed,
  );
  const count = h("p", { class: "muted", role: "status" });
  const texts = new Map();
  const textOf = (run) => {
    if (!texts.has(run))
      texts.set(
        run,
        [
          run.id,
          label(settingOf(run)),
          run.encoder,
          run.task,
          protocolOf(run),
          `seed ${run.seed}`,
          pool[run.provenance].host,
          run.recipe_name,
        ]
          .join(" ")
          .toLowerCase(),
      );
    return texts.get(run);
  };
  const update = () => {
    const wanted = words(find.control.value);
    const rows = runs.filter(
      (run) =>
        (!method.control.value || run.method === method.control.value) &&
        (!task.control.value || run.task === task.control.value) &&
        holds(textOf(run), wanted),
    );
    count.textContent = `${rows.length.toLocaleString("en")} of ${plural(runs.length, "run")}`;
    table.update(runColumns(), rows);
  };
  phone.addEventListener("change", update);
  update();
  return [
    h("h2", { tabindex: -1 }, "Runs"),
    h("div", { class: "controls" }, find.element, method.element, task.element),
    count,
    table.element,
  ];
};
const drawScore = ([key, index]) => {
  const row = board.rows[settings.get(key)];
  const cell = row && score(row, Number(index));
  if (!cell) return missing();
  const column = board.columns[Number(index)],
    places = digits(column.unit);
  const table = sortable("Runs of this number");
  table.update(
    runColumns(),
    cell.runs.map((one) => runs[one]),
  );
  return [
    h("h2", { tabindex: -1 }, label(row)),
    definitions([
      ["task", `${column.task}: ${column.metric} [${column.unit}], ${column.label}`],
      ["mean", `${number(cell.mean, places)} over ${plural(cell.n, "seed")}`],
      ["seed sd", cell.sd === null ? "none: one seed" : number(cell.sd, places)],
      [
        "95 % interval of the mean",
        cell.low === null
          ? "none: one seed"
          : `${number(cell.low, places)} to ${number(cell.high, places)} (Student's t)`,
      ],
      ...(column.chance === null ? [] : [["chance", number(column.chance, places)]]),
      ...(cell.published
        ? [
            [
              "published",
              `${cell.published.value} (${signed(cell.mean - cell.published.value, places)}): ${cell.published.source}; ${data.published.epochs}`,
            ],
          ]
        : []),
    ]),
    h("h3", {}, "Runs"),
    table.element,
  ];
};

const costs = (pretraining, task) =>
  scroll(
    "Cost",
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["", "pretraining", "task"].map((one) => h("th", { scope: "col" }, one)),
        ),
      ),
      h(
        "tbody",
        {},
        [
          ["time", (cost) => seconds(cost.seconds)],
          ["images seen", (cost) => cost.images_seen.toLocaleString("en")],
          ["steps", (cost) => cost.steps.toLocaleString("en")],
          ["peak memory", (cost) => bytes(cost.peak_memory)],
          ["device", (cost) => cost.device],
          ["precision", (cost) => cost.precision],
        ].map(([name, shown]) =>
          h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, shown(pretraining)), h("td", {}, shown(task))),
        ),
      ),
    ),
  );
const drawRun = ([id]) => {
  const run = runs[ids.get(id)];
  if (!run) return missing();
  const row = settingOf(run),
    passed = pool[run.passed],
    varied = pool[run.varied];
  const recipe = [...recipeOf(run)];
  const marked = new Map(
    [
      ...Object.keys(passed.set ?? {}).map((path) => [path, "set"]),
      ...Object.keys(varied).map((path) => [path, "varied"]),
    ].map(([path, how]) => [path.startsWith("task.") ? `tasks.${run.task}${path.slice(4)}` : path, how]),
  );
  const alike = row.cells
    .flatMap((cell) => cell.runs)
    .filter((one, index, all) => all.indexOf(one) === index && runs[one] !== run);
  const failures = data.failures.filter((one) => one.checkpoint === run.pretraining.fingerprint);
  const versions = pool[run.versions],
    pictures = picturesOf(run),
    curves = curvesOf([[run, run.method, styleOf(run.method)]]);
  return [
    h("h2", { tabindex: -1 }, run.id),
    h(
      "div",
      { class: "controls" },
      h(
        "label",
        { class: "check span" },
        box(run.id, run.id, `Choose for comparison: ${run.id}`),
        "Choose for comparison",
      ),
    ),
    h(
      "div",
      { class: "cards" },
      h(
        "section",
        {},
        h("h3", {}, "Run"),
        definitions([
          ["method", `${run.method} (version ${versions.method})`],
          ["encoder", `${run.encoder} (version ${versions.encoder})`],
          ...(setting(row) ? [["setting", setting(row)]] : []),
          ["pretraining", row.pretraining],
          ["task", `${run.task} (version ${versions.task}) on ${run.dataset}`],
          ["protocol", protocolOf(run)],
          ["seed", String(run.seed)],
          ["made", (run.time ?? "not told").slice(0, 19).replace("T", " ")],
        ]),
      ),
      h(
        "section",
        {},
        h("h3", {}, "Result"),
        scroll(
          "Metrics",
          h(
            "table",
            {},
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                ["metric", "value", "n", "chance"].map((one, index) =>
                  h("th", { scope: "col", class: index ? "number" : null }, one),
                ),
              ),
            ),
            h(
              "tbody",
              {},
              values(run).map((one, index) =>
                h(
                  "tr",
                  {},
                  h("th", { scope: "row" }, one.name, one.unit === "percent" ? " [%]" : ` [${one.unit}]`),
                  h("td", { class: "number" }, number(one.value, digits(one.unit) + 1)),
                  h("td", { class: "number" }, one.n.toLocaleString("en")),
                  h("td", { class: "number" }, index === 0 ? short(Number(run.chance.toFixed(2))) : ""),
                ),
              ),
            ),
          ),
        ),
        row.cells
          .filter((cell) => cell.published && cell.runs.includes(ids.get(id)))
          .map((cell) =>
            h(
              "p",
              { class: "small" },
              `Published: ${cell.published.value} (${board.columns[cell.column].metric}; ${cell.published.source})`,
            ),
          ),
      ),
      h("section", {}, h("h3", {}, "Cost"), costs(pool[run.pretraining.cost], run.cost)),
    ),
    h("h3", {}, "The command that measures this again"),
    command(run.again),
    pictures ? [h("h3", {}, "Pictures"), pictures] : null,
    curves.length ? [h("h3", {}, "Curves"), h("div", { class: "cards" }, curves)] : null,
    h("h3", {}, "Recipe"),
    lazy("As passed", () => pairsTable("Recipe as passed", flat(passed)), true),
    lazy(`As resolved: ${plural(recipe.length, "value")}`, () => pairsTable("Recipe as resolved", recipe, marked)),
    h("h3", {}, "Protocol"),
    lazy(`${protocolOf(run)}: all that may change the score`, () =>
      pairsTable("Protocol", [...flat(pool[run.settings]), ["fingerprint", run.protocol]]),
    ),
    Object.keys(pool[run.details]).length
      ? [h("h3", {}, "What the task tells"), lazy("Details", () => pairsTable("Details", flat(pool[run.details])))]
      : null,
    h("h3", {}, "Provenance"),
    definitions([
      ["made by", run.command ? h("code", {}, run.command) : "not told"],
      ["checkpoint", h("code", {}, run.pretraining.fingerprint)],
      ["weights", h("code", {}, `sha256 ${run.pretraining.weights_sha256}`)],
    ]),
    lazy("Commit, packages and machine", () => pairsTable("Provenance", flat(pool[run.provenance]))),
    failures.length ? [h("h3", {}, "Failures on the same pretraining"), failureTable(failures)] : null,
    alike.length
      ? [
          h("h3", {}, "Runs of the same setting"),
          h(
            "ul",
            {},
            alike.slice(0, 50).map((one) => h("li", {}, link(address("run", runs[one].id), runs[one].id))),
          ),
        ]
      : null,
  ];
};
