// Which view is shown: the part of the address after # names it. A view is drawn when it is first shown.

const drawMissing = () => [
  h("h2", { tabindex: -1 }, "Not in this report"),
  h("p", {}, "These records hold no such run or setting. ", link("#leaderboard", "To the leaderboard")),
];
// redraw: each time it is shown. tab: the view whose tab is marked.
const views = new Map([
  ...(data.live ? [["running", { title: "Running", draw: drawRunning }]] : []),
  ["leaderboard", { title: "Leaderboard", draw: drawLeaderboard }],
  ["runs", { title: "Runs", draw: drawRuns }],
  ["compare", { title: "Compare", draw: drawComparison, redraw: true }],
  ["ablations", { title: "Ablations", draw: drawAblations }],
  ["failures", { title: `Failures (${data.failures.length})`, draw: drawFailures, hasNoTab: !data.failures.length }],
  ["published", { title: "Published", draw: drawPublished }],
  ["downloads", { title: "Downloads", draw: drawDownloads }],
  ["run", { draw: drawRun, redraw: true, tab: "runs" }],
  ["score", { draw: drawScore, redraw: true, tab: "leaderboard" }],
]);
// Without records, which only a live page may lack, there is nothing else to show.
if (!runs.length) for (const name of views.keys()) if (!["running", "failures", "published"].includes(name)) views.delete(name);
const tabs = document.getElementById("views");

// The view and keys that an address names: "#run=a,b" is ["run", ["a", "b"]].
const parseAddress = (hash) => {
  const [name, keys] = hash.slice(1).split("?")[0].split(/=(.*)/s);
  try {
    return [name, (keys ?? "").split(",").filter(Boolean).map(decodeURIComponent)];
  } catch {
    return [name, []]; // a broken escape, such as "%"
  }
};
// Marks the tab of the view and scrolls it into sight.
const markTab = (name) => {
  for (const anchor of tabs.children) {
    if (anchor.dataset.view === name) {
      anchor.setAttribute("aria-current", "page");
      tabs.scrollLeft = anchor.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - anchor.offsetWidth) / 2;
    } else anchor.removeAttribute("aria-current");
  }
};
let isFirstView = true;
const showView = () => {
  let [name, keys] = parseAddress(location.hash);
  if (!views.has(name)) name = views.has("leaderboard") ? "leaderboard" : "running";
  if (name === "compare" && !keys.length) keys = [...selected];
  const view = views.get(name);
  drawTray();
  view.section ??= main.appendChild(h("section"));
  if (view.redraw || !view.section.childElementCount) {
    view.section.replaceChildren();
    fillElement(view.section, {}, [view.draw(keys)].flat());
  }
  readers.get(name)?.(queryOf(location.hash));
  for (const other of views.values()) if (other.section) other.section.hidden = other !== view;
  markTab(view.tab ?? name);
  const heading = view.section.querySelector("h2");
  document.title = `${heading.textContent} - ${data.title} - mimbench`;
  // A page that just opened keeps the focus at its start.
  if (!isFirstView) {
    heading.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
  isFirstView = false;
};
// "6 runs: 2 methods, 2 tasks, 3 seeds; latest 2026-11-24".
const summaryText = () => {
  const count = (word, valueOf) => plural(unique(runs.map(valueOf)).length, word);
  const counts = [plural(methods.length, "method"), count("task", (run) => run.task), count("seed", (run) => run.seed)];
  return `${plural(runs.length, "run")}: ${counts.join(", ")}; latest ${data.newest || "unknown"}`;
};

// Each tab leads to a section of the page, which is empty until it is first shown.
for (const [name, view] of views)
  if (view.title && !view.hasNoTab) {
    tabs.append(h("a", { href: viewAddress(name), "data-view": name }, view.title));
    view.section = main.appendChild(h("section", { id: name, hidden: true }));
  }
document.getElementById("summary").textContent = summaryText();
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  main.focus();
});
window.addEventListener("hashchange", showView);
window.addEventListener("beforeprint", () => {
  for (const box of main.querySelectorAll("section:not([hidden]) > details")) {
    box.open = true;
    box.dispatchEvent(new Event("toggle")); // the browser's own event comes too late
  }
});
showView();
