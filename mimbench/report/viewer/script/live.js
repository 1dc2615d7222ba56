// Asks the server of `mimbench report --watch` for runs in progress, and loads the page again after new results.

// Nobody is typing, choosing or comparing, which a reload would interrupt.
const isIdle = () => !selected.size && !document.activeElement?.matches("input, select, textarea");
const showLive = ({ running, problem, stamp }) => {
  updateRunning(running);
  const tab = tabs.querySelector('[data-view="running"]');
  tab.textContent = `Running (${running.length})`;
  const isNew = stamp !== data.live.stamp;
  const state = running.length ? "" : "Nothing runs here now. ";
  const note = isNew ? " There are new results; reload the page to see them." : "";
  runningStatus.textContent = `${state}Updated ${new Date().toLocaleTimeString("en-GB")}.${note} ${problem}`;
  if (isNew && isIdle()) location.reload();
};
const askServer = async () => {
  try {
    const response = await fetch("live.json", { cache: "no-store" });
    if (!response.ok) throw new Error(response.statusText);
    showLive(await response.json());
  } catch {
    runningStatus.textContent = "`mimbench report --watch` does not answer; this is the last state that it sent.";
  }
  setTimeout(askServer, 1000 * data.live.seconds);
};
if (data.live) askServer();
