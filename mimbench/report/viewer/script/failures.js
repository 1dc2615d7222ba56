// Cells that failed.

const failureTable = (failures) => {
  const table = sortableTable("Failures");
  const drawReason = ({ reason, traceback }) => [
    h("span", { class: "bad" }, reason),
    traceback ? h("div", { class: "muted small" }, `traceback: ${traceback}`) : null,
  ];
  const drawTime = ({ time, host }) => [
    formatTime(time),
    host ? h("div", { class: "muted small folds" }, `on ${host}`) : null,
  ];
  table.update(
    [
      { key: "label", title: "cell", value: (failure) => failure.label },
      { key: "stage", title: "stage", value: (failure) => failure.stage },
      { key: "reason", title: "reason", kind: "some", value: (failure) => failure.reason, cell: drawReason },
      { key: "seed", title: "seed", value: (failure) => failure.seed, number: true, ascending: true },
      { key: "time", title: "time", value: (failure) => failure.time, cell: drawTime },
      {
        key: "command",
        title: "command",
        wide: true,
        value: (failure) => failure.command,
        cell: (failure) => (failure.command ? commandBox(failure.command) : null),
      },
    ],
    failures,
  );
  return table.element;
};
const drawFailures = () => {
  const text = data.failures.length
    ? "Cells that were tried and have no record. Running their command again retries them."
    : "No cell failed.";
  const table = data.failures.length ? failureTable(data.failures) : null;
  return [h("h2", { tabindex: -1 }, "Failures"), h("p", {}, text), table];
};
