// Numbers and values as text.
"use strict";

// The values without repetitions, in the order of their first occurrence.
const unique = (values) => [...new Set(values)];
// "1 run", "2 runs", "1,000 runs".
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
// The text of a number with a typographic minus sign.
const withMinus = (text) => text.replace("-", "\u2212");
// Decimals that tables show of a metric in this unit.
const decimalsOf = (unit) => (unit === "percent" ? 1 : 3);
// A number with a fixed count of decimals.
const formatNumber = (value, decimals) => withMinus(value.toFixed(decimals));
// The same with a plus sign if it is not negative.
const formatSigned = (value, decimals) => (value < 0 ? "" : "+") + formatNumber(value, decimals);
// "50.1 ± 0.3"; the mean alone if there is no standard deviation.
const formatMean = (mean, std, decimals) =>
  formatNumber(mean, decimals) + (std === null ? "" : ` ± ${formatNumber(std, decimals)}`);
// At most five significant digits.
const formatShort = (value) => (Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(5))));
// Any value of a recipe or record: texts as they are, all else as JSON.
const formatValue = (value) => {
  if (value === null || value === undefined) return "none";
  return typeof value === "string" ? value : JSON.stringify(value);
};
// A duration in seconds, minutes or hours.
const formatSeconds = (value) => {
  if (value < 90) return `${formatShort(Number(value.toFixed(1)))} s`;
  return value < 5400 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
};
// An amount of memory in MiB.
const formatBytes = (value) =>
  value === null || value === undefined ? "not recorded" : `${(value / 2 ** 20).toFixed(0)} MiB`;
// An ISO time to the minute: "2026-11-24 08:00".
const formatTime = (time) => (time ?? "").slice(0, 16).replace("T", " ");
// Nested objects as [path, value] pairs: {a: {b: 1}} is [["a.b", 1]].
const flatten = (value, prefix = "") => {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [[prefix, value]];
  return Object.entries(value).flatMap(([key, nested]) => flatten(nested, prefix ? `${prefix}.${key}` : key));
};
