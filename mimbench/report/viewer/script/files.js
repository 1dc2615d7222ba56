// Files that the page makes: charts as SVG, their numbers as CSV, runs as JSON.

const fileName = (title) => title.replace(/[^\w.-]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 80) || "file";
const saveText = (name, type, text) => {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const anchor = h("a", { href: address, download: name });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  URL.revokeObjectURL(address);
};
const saveButton = (description, title, onclick) =>
  h("button", { type: "button", "aria-label": description, onclick }, title);
const chartCsv = (xTitle, yTitle, series) =>
  csvText([
    ["series", xTitle, yTitle, "low", "high"],
    ...series.flatMap((one) => one.points.map(({ x, y, low, high }) => [one.label, x, y, low, high])),
  ]);
const DRAWN = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-family", "font-size"];
// A chart as a file of its own: what the style of the page says becomes attributes, on a white ground.
const svgText = (svg) => {
  const copy = svg.cloneNode(true);
  const originals = [...svg.querySelectorAll("*")];
  [...copy.querySelectorAll("*")].forEach((element, index) => {
    const style = getComputedStyle(originals[index]);
    for (const name of DRAWN) element.setAttribute(name, style.getPropertyValue(name));
    element.removeAttribute("class");
    element.removeAttribute("style");
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return new XMLSerializer().serializeToString(copy);
};
