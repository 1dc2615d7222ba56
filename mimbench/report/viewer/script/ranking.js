// Which of the shown rows are marked, their mean ranks, and what their pretrainings cost.

// The rows that compete in a column: methods without controls, last epochs without earlier ones, if there are any.
const competingRows = (rows, column) => {
  const measured = rows.filter((row) => {
    const cell = cellOf(row, column.index);
    return cell && isInRange(cell, column);
  });
  const orAll = (some, all) => (some.length ? some : all);
  const rivals = orAll(measured.filter((row) => !row.apart), measured);
  return orAll(rivals.filter((row) => !row.epoch), rivals);
};
// Map from row to the mark of its score in a column.
const markRows = (rows, column) => {
  const competing = competingRows(rows, column);
  const scores = competing.map((row) => {
    const cell = cellOf(row, column.index);
    return { mean: cell.mean, seeds: seedsOf(cell, column) };
  });
  const marks = scores.length ? marksOf(scores, column.higher) : [];
  return new Map(competing.map((row, index) => [row, marks[index]]));
};
// Map from row to its mean rank over the primary metrics among the columns, for rows that have all of them.
const rankRows = (rows, columns) => {
  const competing = columns.map((column) => new Set(competingRows(rows, column)));
  const ranked = rows.filter((row) => !row.apart && competing.every((some) => some.has(row)));
  const ranks = columns.map((column) =>
    ranksOf(
      ranked.map((row) => cellOf(row, column.index).mean),
      column.higher,
    ),
  );
  return new Map(ranked.map((row, index) => [row, meanOf(ranks.map((places) => places[index]))]));
};
// Costs of the pretrainings of a row, one for each seed.
const pretrainingCosts = (row) => {
  row.costs ??= [
    ...new Map(
      row.cells
        .flatMap((cell) => cell.runs)
        .map((number) => [runs[number].pretraining.fingerprint, shared[runs[number].pretraining.cost]]),
    ).values(),
  ];
  return row.costs;
};
// columns: the shown ones of primary metrics. All of these are hidden at first.
const summaryColumns = (rows, columns) => {
  const ranks = columns.length ? rankRows(rows, columns) : new Map();
  const costOf = (row, name) => meanOf(pretrainingCosts(row).map((cost) => cost[name]));
  const devices = unique(rows.flatMap((row) => pretrainingCosts(row).map(({ device }) => device)));
  const count = plural(columns.length, "primary metric");
  return [
    {
      key: "rank",
      title: "Mean rank",
      note: `over ${count} shown`,
      ascending: true,
      value: (row) => ranks.get(row),
      cell: (row) => (ranks.has(row) ? ranks.get(row).toFixed(2) : null),
    },
    {
      key: "time",
      title: "Pretraining time",
      note: devices.length === 1 ? `mean over seeds; ${devices[0]}` : "mean over seeds; several devices",
      ascending: true,
      value: (row) => costOf(row, "seconds"),
      cell: (row) => formatSeconds(costOf(row, "seconds")),
    },
    {
      key: "images",
      title: "Images seen",
      note: "in pretraining",
      value: (row) => costOf(row, "images_seen"),
      cell: (row) => Math.round(costOf(row, "images_seen")).toLocaleString("en"),
    },
  ].map((column) => ({ ...column, number: true, shown: false, below: h("small", {}, column.note) }));
};
