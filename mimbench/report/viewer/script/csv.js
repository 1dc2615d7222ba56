// CSV files. `mimbench.text.spreadsheet_text` holds the same rule; a test compares both.

// Whether a spreadsheet would compute the text. Full-width signs count in East Asian settings.
const isFormula = (text) =>
  /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|^\\[nrt]/.test(text) && !/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text);
// One cell: line breaks as escapes, nothing that a spreadsheet computes, quoted if needed.
const csvCell = (value) => {
  let text = formatValue(value ?? "").replaceAll("\n", "\\n").replaceAll("\t", "\\t");
  if (isFormula(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
// A file from its rows of cells.
const csvText = (rows) => rows.map((row) => row.map(csvCell).join(",") + "\n").join("");
