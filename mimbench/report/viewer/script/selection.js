// What is selected for comparison: runs by id, settings (all seeds of a row) by "setting:KEY".

const SETTING = "setting:";
const selected = new Set();
const tray = document.getElementById("tray");
const selectionKey = (row) => `${SETTING}${row.key}`;
// Whether this report holds the run or setting.
const isInReport = (key) =>
  runNumbers.has(key) || (key.startsWith(SETTING) && rowNumbers.has(key.slice(SETTING.length)));
// The checkbox of a run or setting.
const selectionBox = (key, name, description = `Compare ${name}`) =>
  h("input", {
    type: "checkbox",
    "aria-label": description,
    "data-key": key,
    checked: selected.has(key),
    onchange: (event) => setSelected(key, event.target.checked),
  });
const setSelected = (key, isSelected) => {
  if (isSelected) selected.add(key);
  else selected.delete(key);
  for (const input of document.querySelectorAll("input[data-key]"))
    if (input.dataset.key === key) input.checked = isSelected;
  drawTray();
};
const clearSelection = () => {
  for (const key of [...selected]) setSelected(key, false);
};
// The bar at the bottom that counts what is selected.
const drawTray = () => {
  tray.hidden = !selected.size || location.hash.startsWith("#compare=");
  const compare = () => {
    location.hash = viewAddress("compare", ...selected);
  };
  const clear = () => {
    clearSelection();
    main.focus();
  };
  tray.replaceChildren(
    h("span", {}, `${selected.size} selected`),
    h(
      "button",
      { type: "button", class: "main", disabled: selected.size < 2, onclick: compare },
      selected.size < 2 ? "Select one more to compare" : "Compare",
    ),
    h("button", { type: "button", onclick: clear }, "Clear"),
  );
};
