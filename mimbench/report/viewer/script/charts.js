// Charts as SVG, the curves of runs, and their pictures.

const SHAPES = new Map(
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
const styleOf = (method) => {
  const [, colour, marker] = data.methods[methods.indexOf(method)];
  return { colour, shape: SHAPES.get(marker) ?? SHAPES.get("o") };
};
const painted = (node, style) => {
  node.style.setProperty("--look", style.colour);
  return node;
};
const ticksOf = (low, high, count) => {
  const raw = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((one) => one >= raw * 0.999);
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1)
    found.push(Number((index * step).toPrecision(10)));
  return found;
};
// Published curves: hollow marks, further ones of a method in further shapes.
const quotedStyle = (method, place) => ({
  colour: styleOf(method).colour,
  shape: place
    ? [...SHAPES.values()].filter((one) => one !== styleOf(method).shape)[(place - 1) % 11]
    : styleOf(method).shape,
  hollow: true,
});
const markOf = (style, at = null) =>
  s("path", { class: style.hollow ? "mark hollow" : "mark", d: style.shape, transform: at });
// series: [{label, style, points: [{x, y, low, high, told}]}]; x all numbers, or names. note: beneath it.
const chart = (title, xTitle, yTitle, series, note = null) => {
  const width = Math.max(280, Math.min(600, main.clientWidth - 20)),
    height = 300;
  const named = [...new Map(series.map((one) => [one.legend ?? one.label, one])).values()];
  const dashes = new Map(
    named.map((one, index) => {
      const before = named.slice(0, index).filter((other) => other.style.colour === one.style.colour).length;
      return [one.legend ?? one.label, DASHES[before % DASHES.length]];
    }),
  );
  const dashOf = (one) => dashes.get(one.legend ?? one.label);
  const points = series.flatMap((one) => one.points);
  const numeric = points.every((point) => typeof point.x === "number");
  const names = numeric ? [] : unique(points.map((point) => text(point.x)));
  const at = (point) => (numeric ? point.x : names.indexOf(text(point.x)));
  const spans = points.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y]);
  let [low, high] = [Math.min(...spans), Math.max(...spans)];
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  [low, high] = [low - pad, high + pad];
  const yTicks = ticksOf(low, high, 6);
  const [left, right, top, bottom] = [30 + 7.2 * Math.max(...yTicks.map((tick) => short(tick).length)), 14, 10, 44];
  let [start, end] = [Math.min(...points.map(at)), Math.max(...points.map(at))];
  if (start === end || !numeric) [start, end] = [start - 0.5, end + 0.5];
  const x = (value) => left + 6 + ((value - start) / (end - start)) * (width - left - right - 12);
  const y = (value) => top + (1 - (value - low) / (high - low)) * (height - top - bottom);
  const xTicks = numeric ? ticksOf(start, end, width < 420 ? 4 : 6) : names.map((_, index) => index);
  const floor = height - bottom;
  const svg = s(
    "svg",
    {
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      role: "img",
      "aria-label": `${title}: ${unique(series.map((one) => one.legend ?? one.label)).join(", ")}`,
    },
    yTicks.map((tick) => [
      s("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      s("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, minus(short(tick))),
    ]),
    xTicks.map((tick) => [
      s("line", { class: "axis", x1: x(tick), x2: x(tick), y1: floor, y2: floor + 5 }),
      s(
        "text",
        { x: x(tick), y: floor + 18, "text-anchor": "middle" },
        numeric ? minus(short(tick)) : names[tick].slice(0, 18),
      ),
    ]),
    s("line", { class: "axis", x1: left, x2: width - right, y1: floor, y2: floor }),
    s("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, xTitle),
    s("text", { transform: `translate(12,${(top + floor) / 2}) rotate(-90)`, "text-anchor": "middle" }, yTitle),
  );
  for (const one of series) {
    const group = painted(s("g", { class: "series" }), one.style);
    const path = one.points
      .map((point, index) => `${index ? "L" : "M"}${x(at(point)).toFixed(1)},${y(point.y).toFixed(1)}`)
      .join("");
    group.append(s("path", { class: "line", d: path, "stroke-dasharray": dashOf(one) }));
    for (const point of one.points) {
      if (point.low !== null && point.low !== undefined) {
        group.append(
          s("line", { class: "whisker", x1: x(at(point)), x2: x(at(point)), y1: y(point.low), y2: y(point.high) }),
        );
      }
      if (one.points.length <= 40) {
        const mark = markOf(one.style, `translate(${x(at(point)).toFixed(1)},${y(point.y).toFixed(1)})`);
        mark.append(s("title", {}, `${one.label}, ${xTitle} ${text(point.x)}: ${point.told ?? short(point.y)}`));
        group.append(mark);
      }
    }
    svg.append(group);
  }
  const keys = h(
    "ul",
    { class: "legend" },
    named.map((one) =>
      h(
        "li",
        {},
        painted(
          s(
            "svg",
            { class: "series", width: 26, height: 12, viewBox: "-13 -6 26 12", "aria-hidden": "true" },
            s("path", { class: "line", d: "M-13,0h26", "stroke-dasharray": dashOf(one) }),
            markOf(one.style),
          ),
          one.style,
        ),
        h("span", {}, one.legend ?? one.label),
      ),
    ),
  );
  const numbers = () =>
    scroll(
      `${title}, numbers`,
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["series", xTitle, yTitle].map((one) => h("th", { scope: "col" }, one)),
          ),
        ),
        h(
          "tbody",
          {},
          series.flatMap((one) =>
            one.points.map((point) =>
              h(
                "tr",
                {},
                h("td", {}, one.label),
                h("td", { class: "number" }, text(point.x)),
                h("td", { class: "number" }, point.told ?? short(point.y)),
              ),
            ),
          ),
        ),
      ),
    );
  const below = note ? h("p", { class: "muted small" }, note) : null;
  return h("figure", { class: "chart" }, h("figcaption", {}, title), svg, keys, below, lazy("Numbers", numbers));
};

// Curves of runs by name; methods have losses of their own, which share no chart; "psnr, mean" belongs into the chart of "psnr". Shares of a curve named mask_ratio are its x.
const curvesOf = (chosen) => {
  const charts = new Map();
  const put = (key, title, xTitle, [label, legend], style, xs, ys) => {
    if (!ys.length) return;
    if (!charts.has(key)) charts.set(key, { title, xTitle, yTitle: title.split(": ").pop(), series: [] });
    charts.get(key).series.push({
      label,
      legend,
      style,
      points: ys.map((value, index) => ({ x: xs ? xs[index] : index + 1, y: value })),
    });
  };
  const seen = new Set();
  for (const [run, legend, style, several] of chosen) {
    const name = several ? `${legend}, seed ${run.seed}` : legend;
    const pretrained = `${name} ${run.pretraining.fingerprint}`;
    if (!seen.has(pretrained))
      put(
        `loss ${run.method}`,
        `pretraining with ${run.method}: loss`,
        "epoch",
        [name, legend],
        style,
        null,
        pool[run.loss],
      );
    seen.add(pretrained);
    const shares = Object.hasOwn(run.curves, "mask_ratio") ? run.curves.mask_ratio : null;
    for (const [curve, ys] of Object.entries(run.curves)) {
      if (ys === shares) continue;
      const [base, ...part] = curve.split(", ");
      const by =
        shares?.length === ys.length
          ? "share hidden"
          : (base.match(/_by_(\w+)$/)?.[1] ?? (base.includes("loss") ? "epoch" : "index"));
      put(
        `${run.task} ${base}`,
        `${run.task}: ${base.replace(/_by_\w+$/, "")}`,
        by,
        [name, legend].map((one) => [one, ...part].join(", ")),
        style,
        shares?.length === ys.length ? shares : null,
        ys,
      );
    }
  }
  const last = (key) => !key.startsWith("loss "); // losses of pretrainings stand together, first
  const ordered = [...charts].sort(([a], [b]) => last(a) - last(b)).map(([, one]) => one);
  return ordered.map((one) =>
    chart(one.title + (one.xTitle === "index" ? "" : ` by ${one.xTitle}`), one.xTitle, one.yTitle, one.series),
  );
};
const problemOf = (run, path) =>
  Object.hasOwn(run.picture_problems, path) ? run.picture_problems[path] : "is no picture of this results folder";
const picturesOf = (run, name = "") => {
  const shown = run.pictures.map(([what, path, source]) =>
    h(
      "figure",
      {},
      h("figcaption", {}, [name, what].filter(Boolean).join(": ")),
      source
        ? link(source, h("img", { src: source, alt: `${what} of ${run.id}`, loading: "lazy" }))
        : h("p", { class: "muted small" }, `Not shown: ${path} ${problemOf(run, path)}.`),
    ),
  );
  return shown.length ? h("div", { class: "pictures" }, shown) : null;
};
