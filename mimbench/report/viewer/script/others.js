// Ablations, failures, published numbers, downloads.

const drawAblations = () => {
  if (!data.ablations.length) {
    return [
      h("h2", { tabindex: -1 }, "Ablations"),
      h(
        "p",
        {},
        "No setting was varied in these records. One is with ",
        h("code", {}, "mimbench run --vary method.mask_ratio=0.3,0.6,0.8"),
        ".",
      ),
    ];
  }
  const charts = h("div", { class: "cards" });
  const path = select(
    "Varied",
    data.ablations.map((one, index) => [String(index), one.title]),
    () => draw(),
  );
  const every = check("All metrics", false, () => draw());
  const draw = () => {
    const one = data.ablations[Number(path.control.value)];
    const panels = one.panels.filter((panel) => every.control.checked || board.columns[panel.column].primary);
    const quote = (curve) => ({
      label: curve.label,
      style: quotedStyle(curve.method, curve.place),
      points: curve.points,
    });
    charts.replaceChildren(
      ...panels.map((panel) => {
        const column = board.columns[panel.column],
          places = digits(column.unit);
        return chart(column.title, one.title, `${column.metric} [${column.unit}]`, [
          ...panel.curves.map((curve) => ({
            label: curve.label,
            style: styleOf(curve.method),
            points: curve.points.map((point) => ({
              x: point.x,
              y: point.mean,
              low: point.sd === null ? null : point.mean - point.sd,
              high: point.sd === null ? null : point.mean + point.sd,
              told: `${number(point.mean, places)}${point.sd === null ? "" : ` ± ${number(point.sd, places)}`} (n=${point.n})`,
            })),
          })),
          ...panel.published.map(quote),
        ]);
      }),
      ...unique(panels.flatMap((panel) => panel.beside))
        .map((index) => one.published[index])
        .map((figure) => chart(figure.title, one.title, figure.y, figure.curves.map(quote), figure.note)),
    );
  };
  draw();
  return [
    h("h2", { tabindex: -1 }, "Ablations"),
    h("p", { class: "muted" }, "All else equal along each curve. Bars: seed sd."),
    h("div", { class: "controls" }, path.element, every.element),
    charts,
  ];
};
const failureTable = (failures) => {
  const table = sortable("Failures");
  table.update(
    [
      { key: "label", title: "cell", value: (one) => one.label },
      { key: "stage", title: "stage", value: (one) => one.stage },
      {
        key: "reason",
        title: "reason",
        kind: "some",
        value: (one) => one.reason,
        cell: (one) => [
          h("span", { class: "bad" }, one.reason),
          one.traceback ? h("div", { class: "muted small" }, `traceback: ${one.traceback}`) : null,
        ],
      },
      { key: "seed", title: "seed", value: (one) => one.seed, number: true, up: true },
      {
        key: "time",
        title: "tried",
        value: (one) => one.time,
        cell: (one) => [
          (one.time ?? "").slice(0, 16).replace("T", " "),
          one.host ? h("div", { class: "muted small folds" }, `on ${one.host}`) : null,
        ],
      },
      {
        key: "command",
        title: "by",
        wide: true,
        value: (one) => one.command,
        cell: (one) => (one.command ? command(one.command) : null),
      },
    ],
    failures,
  );
  return table.element;
};
const drawFailures = () => [
  h("h2", { tabindex: -1 }, "Failures"),
  data.failures.length
    ? [
        h("p", {}, "Cells that were tried and have no record. The command that made them tries them again."),
        failureTable(data.failures),
      ]
    : h("p", {}, "No cell failed."),
];

const drawPublished = () => {
  const { fields, rows } = data.published;
  const at = (name) => fields.indexOf(name);
  const plain = (name, title = name) => ({ key: name, title, value: (row) => row[at(name)] });
  const table = sortable("Published numbers");
  const changed = () => update();
  const find = search("Search", "SimMIM ViT-B, Table 1, ...", changed);
  const method = select(
    "Method",
    choices(
      "all methods",
      rows.map((row) => row[at("method")]),
    ),
    changed,
  );
  const task = select(
    "Task",
    choices(
      "all tasks",
      rows.map((row) => row[at("task")]),
    ),
    changed,
  );
  const count = h("p", { class: "muted", role: "status" });
  const texts = rows.map((row) =>
    row
      .filter((value) => value !== null)
      .join(" ")
      .toLowerCase(),
  );
  const columns = [
    {
      ...plain("method"),
      cell: (row) => [
        row[at("method")],
        phone.matches ? h("small", {}, [row[at("encoder")], row[at("task")]].filter(Boolean).join(", ")) : null,
      ],
    },
    plain("encoder"),
    plain("pretrain_data", "pretrained on"),
    { ...plain("epochs"), number: true, up: true },
    plain("task"),
    plain("dataset"),
    { ...plain("resolution", "px"), number: true, up: true },
    plain("metric"),
    {
      ...plain("value"),
      number: true,
      cell: (row) => [
        row[at("value")].toFixed(1) * 1 === row[at("value")] ? row[at("value")].toFixed(1) : String(row[at("value")]),
        row[at("unit")] === "percent" ? null : h("span", { class: "muted small" }, ` ${row[at("unit")]}`),
        row[at("doubt")] ? h("sup", { title: row[at("doubt")] }, "?") : null,
      ],
    },
    plain("reported"),
    { key: "source", title: "source", wide: true, value: (row) => `${row[at("paper")]}, ${row[at("source")]}` },
    {
      key: "how",
      title: "how",
      wide: true,
      value: (row) =>
        [
          row[at("study")] && `${row[at("study")]}: ${row[at("setting")]}, ${row[at("variant")]}`,
          row[at("detail")],
          row[at("doubt")] && `in doubt: ${row[at("doubt")]}`,
        ]
          .filter(Boolean)
          .join("; "),
    },
    { key: "protocol", title: "our protocol", value: (row) => row[at("protocol")] },
  ];
  const update = () => {
    const wanted = words(find.control.value);
    const shown = rows.filter(
      (row, index) =>
        (!method.control.value || row[at("method")] === method.control.value) &&
        (!task.control.value || row[at("task")] === task.control.value) &&
        holds(texts[index], wanted),
    );
    count.textContent = `${shown.length.toLocaleString("en")} of ${plural(rows.length, "number")}`;
    table.update(arranged(columns, ["method", "value", "metric"]), shown);
  };
  phone.addEventListener("change", update);
  update();
  return [
    h("h2", { tabindex: -1 }, "Published numbers"),
    h(
      "p",
      { class: "muted" },
      "In percent where no unit is told. own: by the method's authors; repro: run again by others; re-eval: official weights, evaluated by others; quoted: taken over from another paper. What has no protocol of ours is compared with nothing.",
      ` Epochs: ${data.published.epochs}.`,
    ),
    h("div", { class: "controls" }, find.element, method.element, task.element),
    count,
    table.element,
  ];
};

// As in other CSV files of mimbench: no spreadsheet computes a text that begins as a formula.
const isFormula = (shown) =>
  /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]/.test(shown) &&
  !/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(shown);
const quoted = (value) => {
  let shown = text(value ?? "");
  if (isFormula(shown)) shown = `'${shown}`;
  return /[",\r\n]/.test(shown) ? `"${shown.replaceAll('"', '""')}"` : shown;
};
const measurements = () =>
  [
    [
      "id",
      "method",
      "encoder",
      "setting",
      "pretraining",
      "task",
      "dataset",
      "protocol",
      "seed",
      "metric",
      "value",
      "unit",
      "n",
      "chance",
      "task_seconds",
      "pretrain_seconds",
      "checkpoint",
      "time",
    ],
    ...runs.flatMap((run) =>
      values(run).map((one, index) => [
        run.id,
        run.method,
        run.encoder,
        setting(settingOf(run)),
        settingOf(run).pretraining,
        run.task,
        run.dataset,
        protocolOf(run),
        run.seed,
        one.name,
        one.value,
        one.unit,
        one.n,
        index ? "" : run.chance,
        run.cost.seconds,
        pool[run.pretraining.cost].seconds,
        run.pretraining.fingerprint,
        run.time,
      ]),
    ),
  ]
    .map((row) => row.map(quoted).join(","))
    .join("\n") + "\n";
const drawDownloads = () => {
  const file = (name, type, make, what) => {
    const anchor = h(
      "a",
      {
        href: "#downloads",
        download: name,
        onclick: () => {
          anchor.href = URL.createObjectURL(new Blob([make()], { type }));
        },
      },
      name,
    );
    return h("li", {}, anchor, ` - ${what}`);
  };
  const { csv, latex, markdown, all } = data.downloads;
  return [
    h("h2", { tabindex: -1 }, "Downloads"),
    h(
      "ul",
      {},
      file("leaderboard.csv", "text/csv", () => csv, "the leaderboard as it is at first: mean, seed sd and n"),
      file("leaderboard.tex", "text/x-tex", () => latex, "the same for LaTeX, with booktabs"),
      file("leaderboard.md", "text/markdown", () => markdown, "the same as Markdown"),
      file("leaderboard-all.csv", "text/csv", () => all, "every metric, and earlier epochs of pretrainings too"),
      file("measurements.csv", "text/csv", measurements, "one line for each metric of each run"),
    ),
    h("p", { class: "muted" }, "Other rows, columns and formats: ", h("code", {}, "mimbench table --results DIR"), "."),
  ];
};
