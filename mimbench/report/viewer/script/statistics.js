// Means over seeds and their paired differences.

const meanOf = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
// Standard deviation of a sample (n - 1).
const stdOf = (values) => {
  const mean = meanOf(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
};
// Half the width of the interval of a mean, as below.
const meanHalfWidth = (values, quantiles) =>
  (quantiles[Math.min(values.length - 2, quantiles.length - 1)] * stdOf(values)) / Math.sqrt(values.length);
// Differences of two scores, paired by seed. null: no seed in common.
// scores, baseline: Map from seed to value. quantiles: Student's t of a 95 % interval over 2, 3, ... pairs.
// halfWidth: of the interval; null for one pair.
const pairedDifference = (scores, baseline, quantiles) => {
  const seeds = [...scores.keys()].filter((seed) => baseline.has(seed)).sort((a, b) => a - b);
  if (!seeds.length) return null;
  const differences = seeds.map((seed) => scores.get(seed) - baseline.get(seed));
  let halfWidth = null;
  if (seeds.length > 1) {
    // Beyond the last quantile, further pairs hardly change it.
    halfWidth = meanHalfWidth(differences, quantiles);
  }
  return { seeds, mean: meanOf(differences), halfWidth };
};
