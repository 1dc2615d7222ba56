// Published numbers. A row is a list of values in the order of data.published.fields.

const publishedField = (row, name) => row[data.published.fields.indexOf(name)];
const drawPublishedValue = (row) => {
  const value = publishedField(row, "value");
  const unit = publishedField(row, "unit");
  const doubt = publishedField(row, "doubt");
  // One decimal, or more if the paper gives more.
  const text = Number(value.toFixed(1)) === value ? value.toFixed(1) : String(value);
  return [
    text,
    unit === "percent" ? null : h("span", { class: "muted small" }, ` ${unit}`),
    doubt ? h("sup", { title: doubt }, "?") : null,
  ];
};
const drawPublishedMethod = (row) => {
  const details = [publishedField(row, "encoder"), publishedField(row, "task")].filter(Boolean).join(", ");
  return [publishedField(row, "method"), phone.matches ? h("small", {}, details) : null];
};
// Study, detail and doubt of a row in one text.
const describePublished = (row) => {
  const [study, setting, variant, detail, doubt] = ["study", "setting", "variant", "detail", "doubt"].map((name) =>
    publishedField(row, name),
  );
  const parts = [study && `${study}: ${setting}, ${variant}`, detail, doubt && `in doubt: ${doubt}`];
  return parts.filter(Boolean).join("; ");
};
const publishedColumns = () => {
  const plain = (name, title = name) => ({ key: name, title, value: (row) => publishedField(row, name) });
  const sourceOf = (row) => `${publishedField(row, "paper")}, ${publishedField(row, "source")}`;
  return [
    { ...plain("method"), cell: drawPublishedMethod },
    plain("encoder"),
    plain("pretrain_data", "pretrained on"),
    { ...plain("epochs"), number: true, ascending: true },
    plain("task"),
    plain("dataset"),
    { ...plain("resolution", "px"), number: true, ascending: true },
    plain("metric"),
    { ...plain("value"), number: true, cell: drawPublishedValue },
    plain("reported"),
    { key: "source", title: "source", wide: true, value: sourceOf },
    { key: "how", title: "details", wide: true, value: describePublished },
    plain("protocol", "mimbench protocol"),
  ];
};
const drawPublished = () => {
  const { rows, epochs } = data.published;
  const table = sortableTable("Published numbers");
  const changed = () => {
    update();
    address.write();
  };
  const search = searchControl("Search", "SimMIM ViT-B, Table 1, ...", changed);
  const valuesOf = (name) => rows.map((row) => publishedField(row, name));
  const method = selectControl("Method", optionsFor("all methods", valuesOf("method")), changed);
  const task = selectControl("Task", optionsFor("all tasks", valuesOf("task")), changed);
  const address = bindAddress("published", { q: search, method, task }, table);
  readers.set("published", address.read);
  const count = h("p", { class: "muted", role: "status" });
  const textOf = (row) =>
    row
      .filter((value) => value !== null)
      .join(" ")
      .toLowerCase();
  const texts = rows.map(textOf);
  const columns = publishedColumns();
  const update = () => {
    const terms = filterTerms(search.control.value);
    const shown = rows.filter(
      (row, index) =>
        isChosen(method, publishedField(row, "method")) &&
        isChosen(task, publishedField(row, "task")) &&
        matchesTerms(texts[index], terms),
    );
    count.textContent = `${shown.length.toLocaleString("en")} of ${plural(rows.length, "number")}`;
    table.update(arrangeColumns(columns, ["method", "value", "metric"]), shown);
  };
  phone.addEventListener("change", update);
  update();
  const explanation =
    "Numbers are in percent unless a unit is given. own: by the method's authors; repro: run again by others; re-eval: official weights, evaluated by others; quoted: copied from another paper. Numbers without a matching mimbench protocol are not compared.";
  return [
    h("h2", { tabindex: -1 }, "Published numbers"),
    h("p", { class: "muted" }, explanation, ` Epochs: ${epochs}.`),
    controlBar(search, method, task),
    count,
    table.element,
  ];
};
