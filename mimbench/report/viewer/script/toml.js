// A resolved recipe as the TOML that `--recipe` reads.

const tomlKey = (key) => (/^[\w-]+$/.test(key) ? key : JSON.stringify(key));
const isTable = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
// "none" is how a recipe sets nothing.
const tomlValue = (value) => {
  if (value === null) return '"none"';
  if (Array.isArray(value)) return `[${value.map(tomlValue).join(", ")}]`;
  if (!isTable(value)) return JSON.stringify(value);
  return `{${Object.entries(value).map(([key, nested]) => `${tomlKey(key)} = ${tomlValue(nested)}`).join(", ")}}`;
};
// Lines of a table: its values, then the tables in it.
const tomlLines = (path, table) => {
  const entries = Object.entries(table);
  return [
    `[${path.map(tomlKey).join(".")}]`,
    ...entries.filter(([, value]) => !isTable(value)).map(([key, value]) => `${tomlKey(key)} = ${tomlValue(value)}`),
    "",
    ...entries.filter(([, value]) => isTable(value)).flatMap(([key, value]) => tomlLines([...path, key], value)),
  ];
};
// tables: {name: table}. heading: a comment above them.
const tomlText = (heading, tables) =>
  [`# ${heading.replaceAll("\n", " ")}`, "", ...Object.entries(tables).flatMap(([name, table]) => tomlLines(name.split("/"), table))].join("\n");

// A training's options as today's recipes have them: older records hold `tensorboard`, and `compile` as true or false.
const renewTraining = ({ tensorboard, ...train }) => ({
  ...train,
  ...(typeof train.compile === "boolean" ? { compile: train.compile ? "on" : "off" } : {}),
  ...(tensorboard ? { track: ["tensorboard"] } : {}),
});
// The tables of a record's recipe under their names in a recipe file. A task without protocols has none to name.
const recipeTables = (task, tables) => {
  const { task: options, pretrain, ...others } = tables;
  const { protocol, train, ...rest } = options;
  const taskTable = {
    ...(protocol === null || protocol === undefined ? {} : { protocol }),
    ...rest,
    ...(isTable(train) ? { train: renewTraining(train) } : {}),
  };
  return { ...others, pretrain: renewTraining(pretrain), [`tasks/${task}`]: taskTable };
};
