// Which view is shown: the address after # says it. A view is drawn when it is first looked at.

const missing = () => [
  h("h2", { tabindex: -1 }, "Not in this report"),
  h("p", {}, "These records hold no such run or setting. ", link("#leaderboard", "To the leaderboard")),
];
const views = new Map([
  ["leaderboard", { title: "Leaderboard", draw: drawLeaderboard }],
  ["runs", { title: "Runs", draw: drawRuns }],
  ["compare", { title: "Compare", draw: drawComparison, fresh: true }],
  ["ablations", { title: "Ablations", draw: drawAblations }],
  ["failures", { title: `Failures (${data.failures.length})`, draw: drawFailures, absent: !data.failures.length }],
  ["published", { title: "Published", draw: drawPublished }],
  ["downloads", { title: "Downloads", draw: drawDownloads }],
  ["run", { draw: drawRun, fresh: true, under: "runs" }],
  ["score", { draw: drawScore, fresh: true, under: "leaderboard" }],
]);
const nav = document.getElementById("views");
for (const [name, view] of views) if (view.title && !view.absent) nav.append(link(address(name), view.title));

let moved = false;
const show = () => {
  const [asked, keys] = location.hash.slice(1).split(/=(.*)/s);
  const name = views.has(asked) ? asked : "leaderboard";
  const view = views.get(name);
  let told;
  try {
    told = (keys ?? "").split(",").filter(Boolean).map(decodeURIComponent);
  } catch {
    told = [];
  }
  if (name === "compare" && !told.length) told = [...chosen];
  drawTray();
  if (view.fresh) view.section?.remove();
  if (view.fresh || !view.section) {
    view.section = fill(document.createElement("section"), {}, [view.draw(told)].flat());
    main.append(view.section);
  }
  for (const other of views.values()) if (other.section) other.section.hidden = other !== view;
  for (const anchor of nav.children) {
    if (anchor.getAttribute("href") === address(view.under ?? name)) {
      anchor.setAttribute("aria-current", "page");
      nav.scrollLeft = anchor.offsetLeft - nav.offsetLeft - (nav.clientWidth - anchor.offsetWidth) / 2;
    } else anchor.removeAttribute("aria-current");
  }
  const heading = view.section.querySelector("h2");
  document.title = `${heading.textContent} - ${data.title} - mimbench`;
  if (moved) {
    heading.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
  moved = true;
};
const seeds = unique(runs.map((run) => run.seed)).length;
document.getElementById("summary").textContent =
  `${plural(runs.length, "run")}: ${plural(methods.length, "method")}, ${plural(unique(runs.map((run) => run.task)).length, "task")}, ${plural(seeds, "seed")}; the newest of ${data.newest || "an unknown day"}`;
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which view is shown
  main.focus();
});
window.addEventListener("hashchange", show);
window.addEventListener("beforeprint", () => {
  for (const one of main.querySelectorAll("section:not([hidden]) > details")) {
    one.open = true;
    one.dispatchEvent(new Event("toggle")); // the browser's own comes too late
  }
});
show();
