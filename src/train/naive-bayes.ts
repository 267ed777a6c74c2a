/**
 * Multinomial naive Bayes over words: p(class | text) is proportional to p(class) times p(word | class) for
 * each word, with word counts plus one (Laplace). The same numbers as scikit-learn's CountVectorizer and
 * MultinomialNB(alpha=1).
 */
import type { WordRows } from './baseline-words.ts';

/**
 * Fits on rows of word ids 0 .. `wordCount` - 1 with classes 0 .. `classes` - 1, and answers with a function
 * from words (-1: unknown, ignored) to the probability of each class. A class without examples has
 * probability 0.
 */
export function fitNaiveBayes(
  rows: WordRows,
  truth: Int32Array,
  { wordCount, classes }: { wordCount: number; classes: number },
): (ids: Int32Array) => Float64Array {
  // (v, classes): counts plus one, then their logarithms
  const logs = new Float64Array(wordCount * classes).fill(1);
  const totals = new Float64Array(classes).fill(wordCount);
  const examples = new Float64Array(classes);
  truth.forEach((k, i) => {
    examples[k]!++;
    const end = rows.starts[i + 1]!;
    for (let at = rows.starts[i]!; at < end; at++) logs[rows.ids[at]! * classes + k]!++;
    totals[k]! += end - rows.starts[i]!;
  });
  for (let at = 0; at < logs.length; at++) logs[at] = Math.log(logs[at]! / totals[at % classes]!);
  const priors = examples.map((count) => Math.log(count / truth.length));

  return (ids) => {
    const scores = priors.slice();
    for (const id of ids) {
      if (id < 0) continue;
      for (let k = 0; k < classes; k++) scores[k]! += logs[id * classes + k]!;
    }
    return softmax(scores);
  };
}

/** Probabilities from logarithms of any size, in place. */
export function softmax(scores: Float64Array): Float64Array {
  let highest = Number.NEGATIVE_INFINITY;
  for (const score of scores) highest = Math.max(highest, score);
  let sum = 0;
  for (let k = 0; k < scores.length; k++) sum += scores[k] = Math.exp(scores[k]! - highest);
  for (let k = 0; k < scores.length; k++) scores[k]! /= sum;
  return scores;
}
