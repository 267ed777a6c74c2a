/** Classification as a task: one label per text. */
import { Rng } from '../base/rng.ts';
import type { Classifier } from '../models/classifier.ts';
import { dropout } from '../nn/dropout.ts';
import { amax, exp, log, mul, neg, reshape, sub, sum } from '../tensor/primitives.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { LabelledText } from './data-labelled.ts';
import type { ClassScores } from './scores.ts';
import type { Task } from './task.ts';

export type ClassifyFigures = Record<never, never>;
/** What a metrics entry keeps of an evaluation. */
export type ClassifyScores = { loss: number; accuracy: number; macroF1: number; auc: number | null };
export type ClassifyTask = Task<LabelledText[], ClassScores, ClassifyFigures, ClassifyScores>;

export interface ClassifyTaskOptions {
  /** Of embedded tokens and of pooled features, in training. Default 0. */
  dropout?: number;
  /** Share of tokens that are not seen in training. Default 0. */
  tokenDropout?: number;
  /** Share of the target that is spread over all classes. Default 0. */
  labelSmoothing?: number;
  /** How much a text of each class weighs. Default 1 each. */
  classWeights?: readonly number[];
}

/**
 * The loss is the weighted mean of -sum(q log p), q the label, smoothed in training
 * (Szegedy et al. 2016, section 7).
 */
export function classification(model: Classifier, options: ClassifyTaskOptions = {}): ClassifyTask {
  const { dropout: rate = 0, tokenDropout = 0, labelSmoothing = 0, classWeights } = options;
  const classes = model.config.labels.length;
  const weightOf = ({ label }: LabelledText): number => classWeights?.[label] ?? 1;
  const weight = (batch: readonly LabelledText[]): number =>
    batch.reduce((total, text) => total + weightOf(text), 0);
  return {
    loss(batch, { checkpointing, seed } = {}) {
      const isTraining = seed !== undefined;
      const random = new Rng(seed ?? 0).fork('dropout');
      const { logits } = model.forward(
        batch.map(({ ids }) => ids),
        {
          checkpointing,
          ...(isTraining && {
            onEmbedded: (h) => {
              const [b, l] = h.dims(3);
              return dropout(dropout(h, tokenDropout, random, [b, l, 1]), rate, random);
            },
            onPooled: (features) => dropout(features, rate, random),
          }),
        },
      );
      const total = weight(batch);
      const smoothing = isTraining ? labelSmoothing : 0;
      const targets = new Float32Array(batch.length * classes);
      for (const [row, text] of batch.entries()) {
        const share = weightOf(text) / total;
        targets.fill((share * smoothing) / classes, row * classes, (row + 1) * classes);
        targets[row * classes + text.label]! += share * (1 - smoothing);
      }
      const q = Tensor.from(targets, [batch.length, classes], { device: logits.device });
      return { loss: neg(sum(mul(logSoftmax(logits), q))), state: null };
    },
    weight,
    tokens: (batch) => batch.length * Math.max(...batch.map(({ ids }) => ids.length)),
    figures: () => ({}),
    scores: ({ logLoss, accuracy, macroF1, auc }) => ({ loss: logLoss, accuracy, macroF1, auc }),
  };
}

/** Over the last axis of (b, classes). */
function logSoftmax(logits: Tensor): Tensor {
  const [b] = logits.dims(2);
  const shifted = sub(logits, reshape(amax(logits.detach(), 1), [b, 1]));
  return sub(shifted, log(sum(exp(shifted), 1, true)));
}
