// Line charts as SVG, each with a legend, a table of its numbers, and both as files.

// Markers by their names in matplotlib, as `mimbench plot` draws them.
const MARKERS = new Map(
  Object.entries({
    o: "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    s: "M-4,-4h8v8h-8z",
    "^": "M0,-5l5,9h-10z",
    v: "M0,5l5,-9h-10z",
    D: "M0,-5.5l5.5,5.5l-5.5,5.5l-5.5,-5.5z",
    "<": "M-5,0l9,-5v10z",
    ">": "M5,0l-9,-5v10z",
    P: "M-2,-5h4v3h3v4h-3v3h-4v-3h-3v-4h3z",
    X: "M-5,-3l2,-2l3,3l3,-3l2,2l-3,3l3,3l-2,2l-3,-3l-3,3l-2,-2l3,-3z",
    p: "M0,-5l4.8,3.5l-1.8,5.5h-6l-1.8,-5.5z",
    h: "M0,-5l4.3,2.5v5l-4.3,2.5l-4.3,-2.5v-5z",
    "*": "M0,-6l1.5,4h4l-3.2,2.6l1.2,4.2l-3.5,-2.4l-3.5,2.4l1.2,-4.2l-3.2,-2.6h4z",
  }),
);
const DASHES = [null, "7 4", "2 3", "10 3 2 3", "4 2", "12 5"];
const MOST_MARKED_POINTS = 40; // A longer series is a line without markers.

// Colour and marker of a method.
const methodStyle = (method) => {
  const [, colour, marker] = data.methods[methods.indexOf(method)];
  return { colour, marker: MARKERS.get(marker) ?? MARKERS.get("o") };
};
// Published curves have hollow markers; a method's second one and so on have other shapes.
const publishedStyle = (method, place) => {
  const { colour, marker } = methodStyle(method);
  const others = [...MARKERS.values()].filter((shape) => shape !== marker);
  return { colour, marker: place ? others[(place - 1) % others.length] : marker, hollow: true };
};
const withColour = (element, style) => {
  element.style.setProperty("--series", style.colour);
  return element;
};
const markerOf = (style, transform = null) =>
  s("path", { class: style.hollow ? "mark hollow" : "mark", d: style.marker, transform });
const legendOf = (series) => series.legend ?? series.label;

// A dash for each entry of the legend: series of one colour differ in it.
const dashesOf = (entries) =>
  new Map(
    entries.map((entry, index) => {
      const sameColour = entries.slice(0, index).filter((other) => other.style.colour === entry.style.colour).length;
      return [legendOf(entry), DASHES[sameColour % DASHES.length]];
    }),
  );
const drawLegend = (entries, dashes) =>
  h(
    "ul",
    { class: "legend" },
    entries.map((entry) => {
      const line = s("path", { class: "line", d: "M-13,0h26", "stroke-dasharray": dashes.get(legendOf(entry)) });
      const size = { class: "series", width: 26, height: 12, viewBox: "-13 -6 26 12", "aria-hidden": "true" };
      const sample = withColour(s("svg", size, line, markerOf(entry.style)), entry.style);
      return h("li", {}, sample, h("span", {}, legendOf(entry)));
    }),
  );
const textOfPoint = (point) => point.description ?? formatShort(point.y);
// The numbers of a chart as a table.
const numbersTable = (title, xTitle, yTitle, series) =>
  scrollBox(
    `${title}, numbers`,
    h(
      "table",
      {},
      tableHead(["series", xTitle, yTitle]),
      h(
        "tbody",
        {},
        series.flatMap((one) =>
          one.points.map((point) =>
            h(
              "tr",
              {},
              h("td", {}, one.label),
              h("td", { class: "number" }, formatValue(point.x)),
              h("td", { class: "number" }, textOfPoint(point)),
            ),
          ),
        ),
      ),
    ),
  );
// The outline of the area between the lower and the upper ends of the intervals.
const bandPath = (points, x, y) => {
  const corner = (end) => (point) => `${x(point).toFixed(1)},${y(point[end]).toFixed(1)}`;
  return `M${[...points.map(corner("low")), ...points.map(corner("high")).reverse()].join("L")}Z`;
};
// One series: its line, an error bar per point that has one, and a marker per point with its number as a tooltip.
const drawSeries = (series, dash, x, y, xTitle) => {
  const group = withColour(s("g", { class: "series" }), series.style);
  const path = series.points
    .map((point, index) => `${index ? "L" : "M"}${x(point).toFixed(1)},${y(point.y).toFixed(1)}`)
    .join("");
  if (series.band) group.append(s("path", { class: "band", d: bandPath(series.points, x, y) }));
  if (!series.dots) group.append(s("path", { class: "line", d: path, "stroke-dasharray": dash }));
  for (const point of series.points) {
    if (!series.band && point.low !== null && point.low !== undefined)
      group.append(s("line", { class: "whisker", x1: x(point), x2: x(point), y1: y(point.low), y2: y(point.high) }));
    if (series.points.length <= MOST_MARKED_POINTS) {
      const marker = markerOf(series.style, `translate(${x(point).toFixed(1)},${y(point.y).toFixed(1)})`);
      const tooltip = `${series.label}, ${xTitle} ${formatValue(point.x)}: ${textOfPoint(point)}`;
      marker.append(s("title", {}, tooltip));
      group.append(marker);
    }
  }
  return group;
};
// series: [{label, legend, style, points: [{x, y, low, high, description}]}]; x: all numbers, or else names.
// Series with the same legend share one entry. note: a text below the chart.
const drawChart = (title, xTitle, yTitle, series, note = null) => {
  const width = Math.max(280, Math.min(600, main.clientWidth - 20));
  const height = 300;
  const entries = [...new Map(series.map((one) => [legendOf(one), one])).values()];
  const dashes = dashesOf(entries);

  // Values of the axes. Names are at 0, 1, 2, ...
  const points = series.flatMap((one) => one.points);
  const isNumeric = points.every((point) => typeof point.x === "number");
  const names = isNumeric ? [] : unique(points.map((point) => formatValue(point.x)));
  const xValue = (point) => (isNumeric ? point.x : names.indexOf(formatValue(point.x)));
  const [low, high] = paddedRange(points.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y]));
  let [start, end] = [Math.min(...points.map(xValue)), Math.max(...points.map(xValue))];
  if (start === end || !isNumeric) [start, end] = [start - 0.5, end + 0.5];

  // Pixels. The left margin is as wide as the longest number at the vertical axis.
  const yTicks = ticksBetween(low, high, 6);
  const longest = Math.max(...yTicks.map((tick) => formatShort(tick).length));
  const [left, right, top, floor] = [30 + 7.2 * longest, width - 14, 10, height - 44];
  const xPixel = linearScale(start, end, left + 6, right - 6);
  const y = linearScale(low, high, floor, top);
  const xTicks = isNumeric ? ticksBetween(start, end, width < 420 ? 4 : 6) : names.map((_, index) => index);
  const xLabel = (tick) => (isNumeric ? withMinus(formatShort(tick)) : names[tick].slice(0, 18));

  const label = `${title}: ${entries.map(legendOf).join(", ")}`;
  const svg = s(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label },
    yTicks.map((tick) => [
      s("line", { class: "grid", x1: left, x2: right, y1: y(tick), y2: y(tick) }),
      s("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, withMinus(formatShort(tick))),
    ]),
    xTicks.map((tick) => [
      s("line", { class: "axis", x1: xPixel(tick), x2: xPixel(tick), y1: floor, y2: floor + 5 }),
      s("text", { x: xPixel(tick), y: floor + 18, "text-anchor": "middle" }, xLabel(tick)),
    ]),
    s("line", { class: "axis", x1: left, x2: right, y1: floor, y2: floor }),
    s("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, xTitle),
    s("text", { transform: `translate(12,${(top + floor) / 2}) rotate(-90)`, "text-anchor": "middle" }, yTitle),
    series.map((one) => drawSeries(one, dashes.get(legendOf(one)), (point) => xPixel(xValue(point)), y, xTitle)),
  );
  return h(
    "figure",
    { class: "chart" },
    h("figcaption", {}, title),
    svg,
    drawLegend(entries, dashes),
    note ? h("p", { class: "muted small" }, note) : null,
    lazyDetails("Numbers", () => numbersTable(title, xTitle, yTitle, series)),
    h(
      "p",
      { class: "small saves" },
      saveButton(`${title}: as CSV`, "CSV", () => saveText(`${fileName(title)}.csv`, "text/csv", chartCsv(xTitle, yTitle, series))),
      saveButton(`${title}: as SVG`, "SVG", () => saveText(`${fileName(title)}.svg`, "image/svg+xml", svgText(svg))),
    ),
  );
};
