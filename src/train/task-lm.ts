/** Language modelling as a task: predict the next token of every position. */
import type { LanguageModel } from '../models/language-model.ts';
import type { State } from '../models/state.ts';
import { noGrad } from '../tensor/tape.ts';
import { batchTensors, countTargets } from './batch-tensors.ts';
import type { Batch } from './data-batches.ts';
import type { Evaluation } from './evaluate.ts';
import type { LmFigures, LmScores } from './metrics.ts';
import type { Task } from './task.ts';

export type LmTask = Task<Batch, Evaluation, LmFigures, LmScores>;

/** The loss is the mean cross-entropy over the targets that are not ignored. */
export function languageModelling(model: LanguageModel): LmTask {
  return {
    loss(batch, { state, checkpointing } = {}) {
      const { ids, targets, sequenceIds } = batchTensors(batch);
      return model.loss(ids, targets, { state, sequenceIds, checkpointing });
    },
    weight: countTargets,
    tokens: ({ inputs }) => inputs.length,
    enter: (state, { resets }) => resetRows(model, state, resets),
    figures(loss) {
      const bits = loss / Math.LN2;
      return { bitsPerToken: bits, bitsPerByte: model.tokenizer?.kind === 'bytes' ? bits : null };
    },
    scores: ({ loss, perplexity, bitsPerToken, bitsPerByte }) => ({
      loss,
      perplexity,
      bitsPerToken,
      bitsPerByte,
    }),
  };
}

/** The state with zeros in the rows that start anew; disposes the one given when it makes another. */
function resetRows(model: LanguageModel, state: State, resets: readonly boolean[] | undefined): State {
  if (!resets) return state;
  const rows = resets.flatMap((reset, row) => (reset ? [row] : []));
  if (rows.length === 0) return state;
  const zeros = model.initialState(rows.length);
  const mixed = noGrad(() => (rows.length < resets.length ? state.withRows(rows, zeros) : zeros));
  if (mixed !== zeros) zeros.dispose();
  state.dispose();
  return mixed;
}
