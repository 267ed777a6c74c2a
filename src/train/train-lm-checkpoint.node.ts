/**
 * A run on disk: the model folder, and in trainer.json and optimizer.safetensors everything the next step depends on.
 * Restoring it gives the run as it was, bit for bit: weights and moments are stored as the float32 values they are.
 */
import { join } from 'node:path';
import { FormatError, StateError } from '../base/errors.ts';
import { type Checkpoint, saveCheckpoint } from '../io/checkpoint.node.ts';
import { isPresent } from '../io/file.ts';
import { formatJson, type JsonObject } from '../io/json.ts';
import type { LanguageModel } from '../models/language-model.ts';
import { type LayerState, State } from '../models/state.ts';
import { keep } from '../tensor/scope.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { AdamW } from './adamw.ts';
import type { BatchPosition } from './data-batches.ts';
import type { LoopPosition } from './loop.ts';
import type { LmSettings } from './train-lm-options.ts';

const VERSION = 1;

/** What trainer.json holds. */
interface TrainerRecord {
  version: number;
  settings: LmSettings;
  optimizerSteps: number;
  position: Omit<LoopPosition, 'state'>;
  /** Tokens read per row of the carried state; null without one. */
  stateTokens: number[] | null;
}

export interface Run {
  settings: LmSettings;
  model: LanguageModel;
  optimizer: AdamW;
}

/** Whether a folder holds a checkpoint, or one that is being put in place. */
export async function holdsCheckpoint(folder: string): Promise<boolean> {
  const names = ['config.json', 'model.safetensors', 'trainer.json', '.commit'];
  return (await Promise.all(names.map((name) => isPresent(join(folder, name))))).some(Boolean);
}

export async function saveRun(folder: string, run: Run, position: LoopPosition): Promise<void> {
  const { settings, model, optimizer } = run;
  const { state, ...rest } = position;
  const record: TrainerRecord = {
    version: VERSION,
    settings,
    optimizerSteps: optimizer.steps,
    position: rest,
    stateTokens: state && [...state.tokens],
  };
  const named = ([name, tensor]: [string, Tensor]) => ({
    name,
    shape: tensor.shape,
    data: () => tensor.floats(),
  });
  const stateTensors = (state?.layers ?? []).flatMap((layer, i) =>
    Object.entries(layer).map(([name, tensor]): [string, Tensor] => [`state.${i}.${name}`, tensor]),
  );
  await saveCheckpoint(folder, {
    config: model.config,
    eosId: model.tokenizer?.eosId ?? null,
    tensors: [...model.namedParameters()].map(named),
    tokenizer: model.tokenizer?.toFiles() ?? {},
    optimizer: [...optimizer.namedTensors(), ...stateTensors].map(named),
    trainer: JSON.parse(formatJson(record as unknown as JsonObject)) as JsonObject,
  });
}

/** The settings with which the checkpoint was trained. Throws StateError for a model without a run. */
export function settingsOf(checkpoint: Checkpoint, folder: string): LmSettings {
  return recordOf(checkpoint, folder).settings;
}

function recordOf(checkpoint: Checkpoint, folder: string): TrainerRecord {
  if (!checkpoint.trainer || !checkpoint.optimizer) {
    throw new StateError(
      `train lm: expected the checkpoint of a run in ${folder}, got a model only. Start a new run in another folder.`,
    );
  }
  const record = checkpoint.trainer as unknown as TrainerRecord;
  if (record.version !== VERSION || !record.settings || !record.position) {
    throw new FormatError(
      `train lm: expected version ${VERSION} of trainer.json in ${folder}, got ${String(record.version)}. ` +
        'Resume with the release that wrote it.',
    );
  }
  return record;
}

/** Fills the run with the checkpoint's values and returns where to go on. */
export async function restoreRun(
  checkpoint: Checkpoint,
  folder: string,
  run: Omit<Run, 'settings'>,
): Promise<LoopPosition> {
  const record = recordOf(checkpoint, folder);
  const file = checkpoint.optimizer!;
  for (const [name, tensor] of run.model.namedParameters()) tensor.write(await checkpoint.model.tensor(name));
  await run.optimizer.restore(record.optimizerSteps, (name) => file.readAsF32(name));
  const { position } = record;
  let state: State | null = null;
  if (record.stateTokens) {
    const rows = record.stateTokens.length;
    const layers: LayerState[] = [];
    for (const [i, shapes] of run.model.stateShapes.entries()) {
      const read = async (name: 'conv' | 'ssm') =>
        keep(Tensor.from(await file.readAsF32(`state.${i}.${name}`), [rows, ...shapes[name]]));
      layers.push({ conv: await read('conv'), ssm: await read('ssm') });
    }
    state = new State(layers, record.stateTokens, run.model);
  }
  return { ...position, data: position.data as BatchPosition, state };
}
