/** What a classifier answers on labelled texts, and how good the answers are. */
import { ConfigError } from '../base/errors.ts';
import type { Classifier } from '../models/classifier.ts';
import { type PredictOptions, predictIds } from '../predict/index.ts';
import { encodeText } from '../text/piece-encoder.ts';
import type { LabelledText } from './data-labelled.ts';
import { checkLabels, type Example } from './examples.ts';
import { type ClassScores, scoreClasses } from './scores.ts';

/** What a classifier answered on a set of texts. */
export interface Answers {
  examples: readonly Example[];
  /** Per example, in the order of the labels. */
  probabilities: Float64Array[];
  scores: ClassScores;
}

/**
 * Answers and scores of `examples`, in their order. Throws ConfigError for labels that the classifier does
 * not have, for no examples, and for a classifier without a tokenizer.
 */
export async function evaluateClassifier(
  classifier: Classifier,
  examples: readonly Example[],
  { maxTokens, ...options }: PredictOptions = {},
): Promise<Answers> {
  checkLabels('data', examples, classifier.config.labels);
  return answersOf(classifier, examples, encodeExamples(examples, classifier, maxTokens), options);
}

/** As the classifier reads them; `maxTokens` as in its configuration where it is not given. */
export function encodeExamples(
  examples: readonly Example[],
  { config, tokenizer }: Classifier,
  maxTokens: number | null = config.maxTokens,
): LabelledText[] {
  if (!tokenizer)
    throw new ConfigError('evaluate: expected a classifier with a tokenizer, got none. Give it one.');
  const classes = new Map(config.labels.map((label, id) => [label, id]));
  return examples.map(({ text, label }) => ({
    ids: Int32Array.from(encodeText(tokenizer, text, maxTokens)),
    label: classes.get(label) ?? -1,
  }));
}

/** Of texts that are encoded already. */
export async function answersOf(
  classifier: Classifier,
  examples: readonly Example[],
  texts: readonly LabelledText[],
  options: Omit<PredictOptions, 'maxTokens'>,
): Promise<Answers> {
  const rows = texts.map(({ ids }) => ids);
  const truth = texts.map(({ label }) => label);
  const probabilities = await predictIds(classifier, rows, options);
  return { examples, probabilities, scores: scoreClasses(classifier.config.labels, truth, probabilities) };
}
