// Filters and the order of a table in the address of its view: "#leaderboard?method=mae&sort=Seed,descending".

let isReading = false;
const queryOf = (hash) => new URLSearchParams(hash.includes("?") ? hash.slice(hash.indexOf("?") + 1) : "");
const stateOf = (control) => (control.type === "checkbox" ? (control.checked ? "1" : "") : control.value);
const setState = (control, value) => {
  if (stateOf(control) === value) return;
  if (control.type === "checkbox") control.checked = value === "1";
  else control.value = value;
  if (control.selectedIndex === -1) control.value = ""; // an address of another report
  control.dispatchEvent(new Event(control.type === "search" ? "input" : "change"));
};
// controls: {name: control}, in the order in which they are set. Returns {write, read}: write after a change; read is
// what the router calls when the view is shown.
const bindAddress = (view, controls, table) => {
  // The tab leads back to the view as it was.
  const pointTab = (address) => document.querySelector(`#views a[data-view="${view}"]`)?.setAttribute("href", address);
  const write = () => {
    if (isReading) return;
    const query = new URLSearchParams();
    for (const [name, { control }] of Object.entries(controls)) if (stateOf(control)) query.set(name, stateOf(control));
    if (table.sortText()) query.set("sort", table.sortText());
    const address = viewAddress(view) + (query.size ? `?${query}` : "");
    const [shown] = location.hash.slice(1).split("?");
    if (shown === view || (!shown && view === "leaderboard")) history.replaceState(null, "", address);
    pointTab(address);
  };
  const read = (query) => {
    isReading = true;
    for (const [name, { control }] of Object.entries(controls)) setState(control, query.get(name) ?? "");
    table.setSort(query.get("sort"));
    isReading = false;
    pointTab(viewAddress(view) + (query.size ? `?${query}` : ""));
  };
  table.onSort(write);
  return { write, read };
};
const readers = new Map(); // view -> what reads its state
