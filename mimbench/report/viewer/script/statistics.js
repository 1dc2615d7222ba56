// Means over seeds, their paired differences, and which mean is best.

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
// Two-sided p value of Student's t. Abramowitz and Stegun (1964), 26.7.3 and 26.7.4: finite sums.
const pValueOfT = (t, freedom) => {
  const angle = Math.atan(Math.abs(t) / Math.sqrt(freedom));
  const [sine, cosine] = [Math.sin(angle), Math.cos(angle)];
  const isOdd = freedom % 2 === 1;
  let term = isOdd ? cosine : 1;
  let sum = freedom === 1 ? 0 : term;
  for (let index = isOdd ? 3 : 2; index < freedom; index += 2) {
    term *= (cosine ** 2 * (index - 1)) / index;
    sum += term;
  }
  return 1 - (isOdd ? ((angle + sine * sum) * 2) / Math.PI : sine * sum);
};
// p value of the paired t test; null for fewer than two seeds in common, and for two with the same difference.
const pairedPValue = (scores, others) => {
  const differences = [...scores.keys()].filter((seed) => others.has(seed)).map((seed) => scores.get(seed) - others.get(seed));
  if (differences.length < 2) return null;
  const [mean, error] = [meanOf(differences), stdOf(differences) / Math.sqrt(differences.length)];
  if (error > 0) return pValueOfT(mean / error, differences.length - 1);
  if (mean === 0) return 1;
  return differences.length === 2 ? null : 0;
};
const ALLOWED_ERROR = 0.05;
// Which hypotheses are rejected, as `reject_by_holm` in mimbench/report/scores/statistics.py.
const rejectByHolm = (pValues) => {
  const rejected = pValues.map(() => false);
  const order = pValues.map((_, index) => index).sort((a, b) => pValues[a] - pValues[b]);
  for (const [place, index] of order.entries()) {
    if (pValues[index] > ALLOWED_ERROR / (pValues.length - place)) break;
    rejected[index] = true;
  }
  return rejected;
};
// The mark of each score: "best", "similar" (not shown to be worse than the best) or "", as `best_and_next` there.
// scores: [{mean, seeds: Map from seed to value}].
const marksOf = (scores, isHigherBetter) => {
  const sign = isHigherBetter ? 1 : -1;
  const top = Math.max(...scores.map(({ mean }) => sign * mean));
  const isBest = scores.map(({ mean }) => sign * mean === top);
  if (isBest.every(Boolean)) return scores.map(() => "");
  const best = scores[isBest.indexOf(true)].seeds;
  const pValues = scores.map(({ seeds }, index) => (isBest[index] ? null : pairedPValue(best, seeds)));
  const tested = scores.map((_, index) => index).filter((index) => pValues[index] !== null);
  const rejected = rejectByHolm(tested.map((index) => pValues[index]));
  const marks = isBest.map((is) => (is ? "best" : ""));
  tested.forEach((index, place) => {
    const isAhead = sign * pairedDifference(best, scores[index].seeds, [0]).mean > 0;
    if (!(rejected[place] && isAhead)) marks[index] = "similar";
  });
  return marks;
};
// Ranks of values, 1 for the best; equal ones share the mean of their places.
const ranksOf = (values, isHigherBetter) =>
  values.map((value) => {
    const better = values.filter((other) => (isHigherBetter ? other > value : other < value)).length;
    const tied = values.filter((other) => other === value).length - 1;
    return 1 + better + tied / 2;
  });
