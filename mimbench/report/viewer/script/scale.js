// Axes of charts.

// Round numbers from low to high, about `count` of them.
const ticksBetween = (low, high, count) => {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const ticks = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1)
    ticks.push(Number((index * step).toPrecision(10)));
  return ticks;
};
// The range of values with a margin of 6 % at both ends; never empty.
const paddedRange = (values) => {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - margin, high + margin];
};
// A function from [start, end] to pixels in [first, last].
const linearScale = (start, end, first, last) => (value) => first + ((value - start) / (end - start)) * (last - first);
