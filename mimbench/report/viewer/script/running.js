// Runs in progress, as the server of `mimbench report --watch` describes them.

const LIVE_STYLE = { colour: "var(--accent)", marker: MARKERS.get("o") };
const runningCards = h("div", { class: "cards" });
const runningStatus = h("p", { class: "muted" });
const drawRunning = () => [h("h2", { tabindex: -1 }, "Running"), runningStatus, runningCards];

const describeTraining = ({ unit, done, total, loss, logs, images_per_second: speed, seconds_left: seconds }) =>
  [
    `${unit} ${Math.min(Math.floor(done) + 1, total)}/${total}`,
    loss.length ? `loss ${formatShort(loss.at(-1)[1])}` : "",
    ...Object.entries(logs).map(([name, value]) => `${name} ${formatShort(value)}`),
    speed ? `${Math.round(speed).toLocaleString("en")} images/s` : "",
    speed && done < total ? `about ${formatSeconds(seconds)} left` : "",
  ]
    .filter(Boolean)
    .join(", ");
// A training: its label, a bar, a line of numbers and the loss so far. Returns {element, update}.
const trainingBox = (name) => {
  const bar = h("progress", { "aria-label": `progress of ${name}` });
  const line = h("p", { class: "small" });
  const chart = h("div");
  const update = (training) => {
    bar.max = training.total;
    bar.value = training.done;
    line.textContent = describeTraining(training);
    // A chart that somebody reads stays as it is.
    if (training.loss.length < 2 || chart.contains(document.activeElement) || chart.querySelector("details[open]"))
      return;
    const points = training.loss.map(([x, y]) => ({ x, y }));
    const series = [{ label: training.label, style: LIVE_STYLE, points }];
    chart.replaceChildren(drawChart(`${training.label}: loss by ${training.unit}`, training.unit, "loss", series));
  };
  return { element: h("div", {}, h("h4", {}, name), bar, line, chart), update };
};
// What one process does: its trainings, each with a box. Returns {element, update}.
const runningCard = ({ what, key, host, pid, job, since }) => {
  const where = [`${host || "unknown machine"}`, job ? `job ${job}` : "", `process ${pid}`].filter(Boolean).join(", ");
  const waiting = h("p", { class: "small" }, "no step yet");
  const trainings = h("div");
  const boxes = new Map();
  const update = (one) => {
    waiting.hidden = one.trainings.length > 0;
    for (const training of one.trainings) {
      if (!boxes.has(training.label)) {
        boxes.set(training.label, trainingBox(training.label));
        trainings.append(boxes.get(training.label).element);
      }
      boxes.get(training.label).update(training);
    }
  };
  const place = h("p", { class: "muted small" }, `${where}, since ${formatTime(since)}`);
  return { element: h("section", {}, h("h3", {}, what || key), place, waiting, trainings), update };
};
const cardsByKey = new Map();
const updateRunning = (running) => {
  const keys = new Set(running.map((one) => `${one.key} ${one.pid} ${one.since}`));
  for (const [key, card] of cardsByKey)
    if (!keys.has(key)) {
      card.element.remove();
      cardsByKey.delete(key);
    }
  for (const one of running) {
    const key = `${one.key} ${one.pid} ${one.since}`;
    if (!cardsByKey.has(key)) {
      cardsByKey.set(key, runningCard(one));
      runningCards.append(cardsByKey.get(key).element);
    }
    cardsByKey.get(key).update(one);
  }
};
