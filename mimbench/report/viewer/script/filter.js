// Filters and the order of rows.

// Terms of a filter, lower case. "seed 1", "epoch 5" and "step 5" are one term each, which "seed 12" or a 5 elsewhere is
// not.
const filterTerms = (query) => query.toLowerCase().match(/(?:seed|epoch|step)\s+\d+(?!\S)|\S+/g) ?? [];
// Whether a text, lower case, matches every term.
const matchesTerms = (text, terms) =>
  terms.every((term) => (/\s/.test(term) ? ` ${text} `.includes(` ${term.replace(/\s+/, " ")} `) : text.includes(term)));

const isMissing = (value) => value === null || value === undefined || value === "";
// Numbers by value, texts by their words and the numbers in them.
const compareValues = (a, b) =>
  typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
// The rows sorted by a value of each; rows without a value are last in both directions.
const sortRows = (rows, valueOf, ascending) =>
  [...rows].sort((a, b) => {
    const [x, y] = [valueOf(a), valueOf(b)];
    if (isMissing(x) || isMissing(y)) return isMissing(x) - isMissing(y);
    return ascending ? compareValues(x, y) : compareValues(y, x);
  });
