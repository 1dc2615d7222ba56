// Curves and pictures of runs.

// What a curve is drawn over: the mask ratio if its run has one value of it per point, else as its name says.
const xTitleOf = (curve, isOverMaskRatio) => {
  if (isOverMaskRatio) return "mask ratio";
  if (curve.endsWith("_by_recall")) return "recall";
  const byName = curve.match(/_by_(\w+)$/)?.[1];
  return byName ?? (curve.includes("loss") ? "epoch" : "index");
};
// Series of one setting as a single one: the mean over its seeds with a band, Student's t at 95 %. Points that not all
// seeds have are left out.
const meanSeries = (series) => {
  const counts = new Map();
  for (const one of series)
    for (const { x, y } of one.points) counts.set(x, [...(counts.get(x) ?? []), y]);
  const points = [...counts]
    .filter(([, ys]) => ys.length === series.length)
    .map(([x, ys]) => {
      const mean = meanOf(ys);
      const half = meanHalfWidth(ys, data.quantiles);
      return { x, y: mean, low: mean - half, high: mean + half, description: `${formatShort(mean)} (n=${ys.length})` };
    });
  return { label: series[0].legend, legend: series[0].legend, style: series[0].style, points, band: true };
};
// The series of a chart with one per legend; draws have no order, so that each seed's dots stay as they are.
const mergeSeeds = (series, isOrdered) => {
  const legends = [...new Set(series.map(legendOf))];
  if (!isOrdered) return series.map((one) => ({ ...one, dots: true }));
  return legends.flatMap((legend) => {
    const same = series.filter((one) => legendOf(one) === legend);
    return same.length > 1 ? [meanSeries(same)] : same;
  });
};
// Charts of the curves of runs. items: [[run, legend, style, isOneOfSeveral]].
const drawCurves = (items) => {
  const charts = new Map(); // by a key; those of pretrainings begin with "pretraining "
  const addSeries = (key, title, xTitle, series, xs, ys) => {
    if (!ys.length) return;
    if (!charts.has(key)) charts.set(key, { title, xTitle, yTitle: title.split(": ").pop(), series: [] });
    const points = ys.map((y, index) => ({ x: xs ? xs[index] : index + 1, y }));
    charts.get(key).series.push({ ...series, points });
  };
  const pretrainings = new Set(); // runs of one pretraining share its loss
  for (const [run, legend, style, isOneOfSeveral] of items) {
    const label = isOneOfSeveral ? `${legend}, seed ${run.seed}` : legend;
    const pretraining = `${label} ${run.pretraining.fingerprint}`;
    if (!pretrainings.has(pretraining)) {
      // Losses of different methods are not comparable: one chart per method.
      const title = `${methodLabel(run.method)}: pretraining loss`;
      addSeries(`pretraining ${run.method}`, title, "epoch", { label, legend, style }, null, shared[run.loss]);
      for (const [name, points] of Object.entries(shared[run.monitored])) {
        const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
        addSeries(`pretraining monitor ${name}`, `monitor: ${name}`, "epoch", { label, legend, style }, xs, ys);
      }
    }
    pretrainings.add(pretraining);
    // A curve named mask_ratio holds the x of the others.
    const ratios = Object.hasOwn(run.curves, "mask_ratio") ? run.curves.mask_ratio : null;
    for (const [curve, ys] of Object.entries(run.curves)) {
      if (ys === ratios) continue;
      // "psnr, mean" belongs into the chart of "psnr".
      const [base, ...parts] = curve.split(", ");
      const isOverMaskRatio = ratios?.length === ys.length;
      const series = { label: [label, ...parts].join(", "), legend: [legend, ...parts].join(", "), style };
      const metric = base.replace(/_by_\w+$/, "");
      const known = metricLabel(run.task, metric);
      const title = known === metric ? `${taskLabel(run.task)}: ${metric}` : known;
      const recalls = base.endsWith("_by_recall") ? ys.map((_, index) => index / (ys.length - 1)) : null;
      const xs = isOverMaskRatio ? ratios : recalls;
      addSeries(`${run.task} ${base}`, title, xTitleOf(base, isOverMaskRatio), series, xs, ys);
    }
  }
  const isOfTask = (key) => !key.startsWith("pretraining ");
  const ordered = [...charts].sort(([a], [b]) => isOfTask(a) - isOfTask(b)).map(([, chart]) => chart);
  return ordered.map(({ title, xTitle, yTitle, series }) =>
    drawChart(
      xTitle === "index" ? title : `${title} by ${xTitle}`,
      xTitle,
      yTitle,
      mergeSeeds(series, xTitle !== "draw"),
    ),
  );
};

// The pictures of a run, or why one is not shown; null if it has none. name: comes before each caption.
const drawPictures = (run, name = "") => {
  const figures = picturesOf(run).map(([kind, path, source]) => {
    const caption = h("figcaption", {}, [name, kind].filter(Boolean).join(": "));
    const picture = source
      ? link(source, h("img", { src: source, alt: `${kind} of ${run.id}`, loading: "lazy" }))
      : h("p", { class: "muted small" }, `Not shown: ${path} ${run.picture_problems[path]}.`);
    return h("figure", {}, caption, picture);
  });
  return figures.length ? h("div", { class: "pictures" }, figures) : null;
};
