// Scores over each setting that was varied.

// A curve of ours as a series of a chart.
const ablationSeries = (curve, decimals) => ({
  label: curve.label,
  style: methodStyle(curve.method),
  points: curve.points.map(({ x, mean, sd, n }) => ({
    x,
    y: mean,
    low: sd === null ? null : mean - sd,
    high: sd === null ? null : mean + sd,
    description: `${formatMean(mean, sd, decimals)} (n=${n})`,
  })),
});
// A published curve as a series of a chart.
const publishedSeries = ({ label, method, place, points }) => ({ label, style: publishedStyle(method, place), points });
const drawAblationPanel = (ablation, panel) => {
  const column = leaderboard.columns[panel.column];
  return drawChart(column.title.replace("^", " "), ablation.title, `${column.short} [${column.unit}]`, [
    ...panel.curves.map((curve) => ablationSeries(curve, decimalsOf(column.unit))),
    ...panel.published.map(publishedSeries),
  ]);
};
const drawAblations = () => {
  const heading = h("h2", { tabindex: -1 }, "Ablations");
  if (!data.ablations.length) {
    const command = h("code", {}, "mimbench run --vary method.mask_ratio=0.3,0.6,0.8");
    return [heading, h("p", {}, "No setting was varied in these records. To vary one: ", command, ".")];
  }
  const charts = h("div", { class: "cards" });
  const titles = data.ablations.map((ablation, index) => [String(index), ablation.title]);
  const path = selectControl("Varied", titles, () => draw());
  const allMetrics = checkControl("All metrics", false, () => draw());
  const draw = () => {
    const ablation = data.ablations[Number(path.control.value)];
    const panels = ablation.panels.filter(
      (panel) => allMetrics.control.checked || leaderboard.columns[panel.column].primary,
    );
    // Published curves of other protocols have separate charts, each once.
    const figures = unique(panels.flatMap((panel) => panel.figures)).map((index) => ablation.published_figures[index]);
    charts.replaceChildren(
      ...panels.map((panel) => drawAblationPanel(ablation, panel)),
      ...figures.map(({ title, y, curves, note }) =>
        drawChart(title, ablation.title, y, curves.map(publishedSeries), note),
      ),
    );
  };
  draw();
  return [
    heading,
    h("p", { class: "muted" }, "All else is equal along each curve. Error bars: std over seeds."),
    controlBar(path, allMetrics),
    charts,
  ];
};
