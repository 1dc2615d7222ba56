// Tables to download.

const MEASUREMENT_FIELDS = [
  ...["id", "method", "encoder", "setting", "pretraining", "task", "dataset", "protocol", "seed", "metric", "value"],
  ...["unit", "n", "chance", "task_seconds", "pretrain_seconds", "checkpoint", "time"],
];
// Rows of measurements.csv: one per metric of each run.
const measurementRows = (run) => {
  const row = rowOf(run);
  return metricsOf(run).map((metric, index) => [
    ...[run.id, run.method, run.encoder, settingOf(row), row.pretraining, run.task, run.dataset, protocolOf(run)],
    ...[run.seed, metric.name, metric.value, metric.unit, metric.n],
    index ? "" : run.chance, // chance is that of the primary metric
    ...[run.cost.seconds, shared[run.pretraining.cost].seconds, run.pretraining.fingerprint, run.time],
  ]);
};
const measurementsCsv = () => csvText([MEASUREMENT_FIELDS, ...runs.flatMap(measurementRows)]);
// A link that makes its file when it is clicked.
const downloadItem = (name, type, makeText, description) => {
  const anchor = h(
    "a",
    {
      href: "#downloads",
      download: name,
      onclick: () => {
        anchor.href = URL.createObjectURL(new Blob([makeText()], { type }));
      },
    },
    name,
  );
  return h("li", {}, anchor, ` - ${description}`);
};
const drawDownloads = () => {
  const { csv, latex, markdown, all } = data.downloads;
  return [
    h("h2", { tabindex: -1 }, "Downloads"),
    h(
      "ul",
      {},
      downloadItem("leaderboard.csv", "text/csv", () => csv, "the leaderboard: mean, std over seeds and n"),
      downloadItem("leaderboard.tex", "text/x-tex", () => latex, "the same for LaTeX, with booktabs"),
      downloadItem("leaderboard.md", "text/markdown", () => markdown, "the same as Markdown"),
      downloadItem("leaderboard-all.csv", "text/csv", () => all, "all metrics and earlier epochs of pretrainings too"),
      downloadItem("measurements.csv", "text/csv", measurementsCsv, "one line per metric of each run"),
    ),
    h("p", { class: "muted" }, "Other rows, columns and formats: ", h("code", {}, "mimbench table --results DIR"), "."),
  ];
};
