// The leaderboard, and what is chosen for comparison: runs by id, settings (all seeds of a row) by key.

const chosen = new Set();
const tray = document.getElementById("tray");
const keyOf = (row) => `setting:${row.key}`;
const known = (key) => ids.has(key) || (key.startsWith("setting:") && settings.has(key.slice(8)));
const box = (key, name, said = `Compare ${name}`) =>
  h("input", {
    type: "checkbox",
    "aria-label": said,
    "data-key": key,
    checked: chosen.has(key),
    onchange: (event) => choose(key, event.target.checked),
  });
const choose = (key, on) => {
  if (on) chosen.add(key);
  else chosen.delete(key);
  for (const one of document.querySelectorAll("input[data-key]")) if (one.dataset.key === key) one.checked = on;
  drawTray();
};
const drawTray = () => {
  tray.hidden = !chosen.size || location.hash.startsWith("#compare=");
  tray.replaceChildren(
    h("span", {}, `${chosen.size} chosen`),
    h(
      "button",
      {
        type: "button",
        class: "main",
        disabled: chosen.size < 2,
        onclick: () => {
          location.hash = address("compare", ...chosen);
        },
      },
      chosen.size < 2 ? "Choose one more to compare" : "Compare",
    ),
    h(
      "button",
      {
        type: "button",
        onclick: () => {
          clear();
          main.focus();
        },
      },
      "Clear",
    ),
  );
};
const clear = () => {
  for (const key of [...chosen]) choose(key, false);
};

const score = (row, index) => {
  row.at ??= new Map(row.cells.map((cell) => [cell.column, cell]));
  return row.at.get(index);
};
const scoreCell = (row, index) => {
  const cell = score(row, index);
  if (!cell) return null;
  const places = digits(board.columns[index].unit);
  const href =
    cell.runs.length === 1 ? address("run", runs[cell.runs[0]].id) : address("score", row.key, String(index));
  return [
    h(
      "a",
      {
        href,
        class: cell.mark || null,
        "aria-label": `${number(cell.mean, places)}${cell.mark ? `, ${cell.mark}` : ""}: ${plural(cell.n, "run")}`,
      },
      number(cell.mean, places),
    ),
    cell.notes.length ? h("sup", {}, cell.notes.join(",")) : null,
    h("span", { class: "muted small" }, cell.sd === null ? "" : ` ± ${number(cell.sd, places)}`, ` (n=${cell.n})`),
  ];
};
const drawLeaderboard = () => {
  const filled = (index) => board.rows.filter((row) => score(row, index)).length;
  const [leading] = board.columns
    .map((column, index) => ({ ...column, index }))
    .filter((column) => column.primary)
    .sort((a, b) => filled(b.index) - filled(a.index));
  const table = sortable("Leaderboard", { key: `score ${leading.index}`, up: !leading.higher });
  const legend = h("div", { class: "small muted" });
  const changed = () => update();
  const find = search("Filter rows", "method, encoder, setting", changed);
  const method = select("Method", choices("all methods", methods), changed);
  const task = select(
    "Task",
    choices(
      "all tasks",
      board.columns.map((column) => column.task),
    ),
    () => {
      offer();
      update();
    },
  );
  const protocol = select("Protocol", [["", "all protocols"]], changed);
  const every = check("All metrics", false, changed);
  const epochs = check("Earlier epochs", false, changed);
  epochs.element.hidden = !board.rows.some((row) => row.early);
  const offer = () => {
    const shown = unique(
      board.columns
        .filter((column) => !task.control.value || column.task === task.control.value)
        .map((column) => column.protocol),
    );
    protocol.control.replaceChildren(
      h("option", { value: "" }, "all protocols"),
      ...shown.map((key) => {
        const of = board.columns.find((column) => column.protocol === key);
        return h("option", { value: key }, `${of.task}: ${of.label}`);
      }),
    );
  };
  const update = () => {
    const columns = board.columns
      .map((column, index) => ({ ...column, index }))
      .filter(
        (column) =>
          (every.control.checked || column.headline) &&
          (!task.control.value || column.task === task.control.value) &&
          (!protocol.control.value || column.protocol === protocol.control.value),
      )
      .sort((a, b) => (b.index === leading.index) - (a.index === leading.index)); // it sorts the rows, so it is seen
    const wanted = words(find.control.value);
    const narrowed = task.control.value || protocol.control.value;
    const rows = board.rows.filter(
      (row) =>
        (!row.early || epochs.control.checked) &&
        (!method.control.value || row.method === method.control.value) &&
        holds(`${label(row)} ${row.encoder} ${row.pretraining}`.toLowerCase(), wanted) &&
        (!narrowed || columns.some((column) => score(row, column.index))),
    );
    const several = (column) =>
      board.columns.filter((one) => one.task === column.task && one.metric === column.metric).length > 1;
    const encoder = { key: "encoder", title: "encoder", value: (row) => row.encoder };
    const pretraining = { key: "pretraining", title: "pretraining", value: (row) => row.pretraining };
    const labels = board.labels.slice(2).map((title, index) => ({
      key: `label ${title}`,
      title,
      value: (row) => {
        const shown = row.labels[index + 2];
        return shown === "-" ? null : shown !== "" && Number.isFinite(Number(shown)) ? Number(shown) : shown;
      },
      cell: (row) => row.labels[index + 2],
      up: true,
    }));
    const setup = [encoder, ...labels, pretraining];
    table.update(
      [
        {
          key: "method",
          title: "method",
          value: (row) => row.method,
          cell: (row) =>
            h(
              "label",
              {},
              box(keyOf(row), label(row)),
              h("span", {}, row.method, phone.matches ? h("small", {}, breakable(told(row))) : null),
            ),
        },
        ...(phone.matches ? [] : setup),
        ...columns.map((column) => ({
          key: `score ${column.index}`,
          title: `${column.task}: ${column.metric}`,
          number: true,
          up: !column.higher,
          value: (row) => score(row, column.index)?.mean,
          cell: (row) => scoreCell(row, column.index),
          below: h(
            "small",
            {},
            several(column) ? `${column.label}; ` : "",
            column.unit,
            column.chance === null ? "" : `, chance ${short(Number(column.chance.toFixed(1)))}`,
            column.notes.length ? h("sup", {}, ` ${column.notes.join(",")}`) : null,
          ),
        })),
        ...(phone.matches ? setup : []),
      ],
      rows,
    );
    const used = new Set([
      ...columns.flatMap((column) => column.notes),
      ...rows.flatMap((row) => columns.flatMap((column) => score(row, column.index)?.notes ?? [])),
    ]);
    legend.replaceChildren(
      ...board.remarks.map((remark) =>
        h(
          "p",
          {},
          remark
            .split(/(\{best\}|\{second\})/)
            .map((part) =>
              part === "{best}"
                ? h("span", { class: "best" }, "best")
                : part === "{second}"
                  ? h("span", { class: "second" }, "second")
                  : part,
            ),
          rows.length < board.rows.length ? "; marks are those among all rows, the hidden ones too" : "",
        ),
      ),
      ...board.notes
        .filter(([letter]) => used.has(letter))
        .map(([letter, note]) => h("p", {}, h("sup", {}, letter), ` ${note}`)),
    );
  };
  offer();
  update();
  phone.addEventListener("change", update);
  const failed = data.failures.length
    ? h(
        "p",
        {},
        link("#failures", `${plural(data.failures.length, "cell")} failed`),
        data.failures.length === 1 ? " and has no number here." : " and have no number here.",
      )
    : null;
  return [
    h("h2", { tabindex: -1 }, "Leaderboard"),
    failed,
    h(
      "div",
      { class: "controls" },
      find.element,
      method.element,
      task.element,
      protocol.element,
      every.element,
      epochs.element,
    ),
    table.element,
    legend,
  ];
};
