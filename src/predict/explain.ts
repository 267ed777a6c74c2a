/**
 * Which tokens decided: gradient x input, with the scales of norms held constant. For the score s =
 * logit of the asked label - mean of the other logits, and the embedded token x[t] (d channels), the
 * weight of token t is sum over channels of ds/dx[t] * x[t]: to first order what s would lose without
 * it. Sources: Simonyan, Vedaldi and Zisserman 2013 (gradients as saliency); Shrikumar et al. 2016,
 * arXiv 1605.01713 (gradient x input).
 */
import { ConfigError } from '../base/errors.ts';
import type { Tokenizer } from '../base/tokenizer.ts';
import { turn } from '../base/turn.ts';
import type { Classifier, Direction } from '../models/classifier.ts';
import { withConstantScales } from '../ops/norm.ts';
import { mul, sum } from '../tensor/primitives.ts';
import { keep, scope } from '../tensor/scope.ts';
import { backward, noGrad } from '../tensor/tape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { encodeTexts, tokenizerOf } from './encode.ts';
import { type Prediction, predictionOf, softmax } from './reading.ts';

export interface ExplainOptions {
  /** The label that weights speak for. Default: the predicted one of each text. */
  label?: string;
  /**
   * Texts are cut to this many tokens, special tokens included; null: never. Memory grows with them. Default:
   * as the classifier was trained, and 2048 where it reads texts of any length.
   */
  maxTokens?: number | null;
  /** Throws the signal's reason, between two texts. */
  signal?: AbortSignal;
  /** Texts that are explained, and how many there are. */
  onProgress?: (done: number, total: number) => void;
}

export interface ExplainedToken {
  /** What the token adds to the text; special tokens by name. All of them together are the decoded text. */
  text: string;
  /** Above 0: speaks for the label; below: against it. In units of logits. */
  weight: number;
}

/** The prediction of the text as far as it was read, and the weight of its tokens. */
export interface Explanation extends Prediction {
  /** The label that the weights speak for. */
  explained: string;
  tokens: ExplainedToken[];
}

const MOST_TOKENS = 2048;

/**
 * An explanation per text, in their order. Leaves no gradients on the parameters and works with weights of
 * any type. Throws ConfigError for a label that the classifier does not have, and for what predict() refuses.
 */
export async function explain(
  classifier: Classifier,
  texts: readonly string[],
  options: ExplainOptions = {},
): Promise<Explanation[]> {
  const { labels, maxTokens: trained } = classifier.config;
  const { label, maxTokens = trained ?? MOST_TOKENS, signal, onProgress } = options;
  const asked = label === undefined ? null : labels.indexOf(label);
  if (asked === -1) {
    throw new ConfigError(
      `explain: expected one of the labels ${labels.join(', ')}, got ${JSON.stringify(label)}. Choose one of them.`,
    );
  }
  const rows = await encodeTexts('explain', classifier, texts, { maxTokens, signal });
  const tokenizer = tokenizerOf('explain', classifier);
  const explanations: Explanation[] = [];
  for (const ids of rows) {
    await turn(); // and out of any noGrad() of the caller
    signal?.throwIfAborted();
    const { logits, weights, target } = await gradientTimesInput(classifier, ids, asked);
    const parts = textsOf(tokenizer, ids);
    explanations.push({
      ...predictionOf(labels, softmax(logits)),
      explained: labels[target]!,
      tokens: parts.map((text, t) => ({ text, weight: weights[t]! })),
    });
    onProgress?.(explanations.length, rows.length);
  }
  return explanations;
}

/**
 * The logits of a text, and per token sum over channels of ds/dx * x, over both directions. `asked`: null for
 * the top class. `within` runs the passes; tests take the true derivative instead.
 */
export async function gradientTimesInput(
  classifier: Classifier,
  ids: Int32Array,
  asked: number | null,
  within: <T>(pass: () => T) => T = withConstantScales,
): Promise<{ logits: Float32Array; weights: Float64Array; target: number }> {
  const embedded: { h: Tensor; direction: Direction }[] = [];
  try {
    const onEmbedded = (h: Tensor, direction: Direction): Tensor => {
      const leaf = keep(h.detach());
      leaf.requiresGrad = true;
      embedded.push({ h: leaf, direction });
      return leaf;
    };
    const { logits } = frozen(classifier, () =>
      within(() => classifier.forward([ids], { checkpointing: true, onEmbedded })),
    );
    const values = await logits.floats();
    const target = asked ?? values.indexOf(values.reduce((a, b) => Math.max(a, b)));
    const ds = () => contrast(values.length, target, classifier);
    frozen(classifier, () => within(() => scope(() => backward(logits, ds()))));
    logits.dispose();
    const weights = new Float64Array(ids.length);
    for (const { h, direction } of embedded) {
      const products = noGrad(() => scope(() => sum(mul(h, h.grad!), 2))); // (1, l)
      const shares = await products.floats();
      products.dispose();
      for (const [t, share] of shares.entries())
        weights[direction === 'forward' ? t : ids.length - 1 - t]! += share;
    }
    return { logits: values, weights, target };
  } finally {
    for (const { h } of embedded) h.dispose();
  }
}

/** Runs `fn` with parameters that collect no gradients. */
function frozen<T>(classifier: Classifier, fn: () => T): T {
  const trained = classifier.parameters().filter(({ requiresGrad }) => requiresGrad);
  for (const parameter of trained) parameter.requiresGrad = false;
  try {
    return fn();
  } finally {
    for (const parameter of trained) parameter.requiresGrad = true;
  }
}

/** The gradient of the target's logit minus the mean of the others. */
function contrast(classes: number, target: number, { device }: Classifier): Tensor {
  const values = new Float32Array(classes).fill(-1 / (classes - 1));
  values[target] = 1;
  return Tensor.from(values, [1, classes], { device });
}

/** What each token adds to the decoded text. */
function textsOf(tokenizer: Tokenizer, ids: Int32Array): string[] {
  const decoder = tokenizer.streamDecoder();
  const parts = Array.from(ids, (id) => decoder.push(id));
  parts[parts.length - 1] += decoder.flush();
  return parts;
}
