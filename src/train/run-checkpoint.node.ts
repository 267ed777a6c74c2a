/**
 * A run on disk: the model folder, and in trainer.json and optimizer.safetensors everything the next step
 * depends on. Restoring it gives the run as it was, bit for bit: weights and moments are stored as the
 * float32 values they are. A run that keeps its best weights has those in model.safetensors, and the current
 * ones beside the moments as `current.NAME`.
 */
import { join } from 'node:path';
import { FormatError, StateError } from '../base/errors.ts';
import { type Checkpoint, type CheckpointContent, saveCheckpoint } from '../io/checkpoint.node.ts';
import { isPresent } from '../io/file.ts';
import { formatJson, type JsonObject } from '../io/json.ts';
import type { TensorFile } from '../io/tensor-file.ts';
import { State, type StateModel } from '../models/state.ts';
import type { Module } from '../nn/module.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { AdamW } from './adamw.ts';
import type { BatchPosition } from './data-batches.ts';
import type { LoopPosition } from './loop.ts';
import type { RunSettings } from './run-settings.ts';

const VERSION = 1;

/** What trainer.json holds. */
interface TrainerRecord {
  version: number;
  settings: RunSettings;
  optimizerSteps: number;
  position: Omit<LoopPosition, 'state'>;
  /** Tokens read per row of the carried state; null without one. */
  stateTokens: number[] | null;
}

/** What is trained, and what stands in its folder beside the weights. */
export interface Trained {
  model: Module & Partial<StateModel>;
  content(): Omit<CheckpointContent, 'tensors' | 'optimizer' | 'trainer'>;
}

export interface Run {
  settings: RunSettings;
  trained: Trained;
  optimizer: AdamW;
  /** Weights of the best evaluation, of the parameters that are trained; empty before the first one. */
  best?: ReadonlyMap<string, Float32Array>;
}

/** Name prefix of the current weights, where model.safetensors holds the best. */
const CURRENT = 'current.';

/** Name prefix of the carried state, where State says `layers`. */
const STATE = 'state';

/** Whether a folder holds a checkpoint, or one that is being put in place. */
export async function holdsCheckpoint(folder: string): Promise<boolean> {
  const names = ['config.json', 'model.safetensors', 'trainer.json', '.commit'];
  return (await Promise.all(names.map((name) => isPresent(join(folder, name))))).some(Boolean);
}

export async function saveRun(folder: string, run: Run, position: LoopPosition): Promise<void> {
  const { settings, trained, optimizer, best } = run;
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
  const stateTensors = [...(state?.namedTensors() ?? [])].map(([name, tensor]): [string, Tensor] => [
    name.replace(/^layers/, STATE),
    tensor,
  ]);
  const parameters = [...trained.model.namedParameters()];
  const current = parameters
    .filter(([name]) => best?.has(name))
    .map(([name, tensor]): [string, Tensor] => [CURRENT + name, tensor]);
  await saveCheckpoint(folder, {
    ...trained.content(),
    tensors: parameters.map(([name, tensor]) => {
      const kept = best?.get(name);
      return kept ? { name, shape: tensor.shape, data: async () => kept } : named([name, tensor]);
    }),
    optimizer: [...optimizer.namedTensors(), ...stateTensors, ...current].map(named),
    trainer: JSON.parse(formatJson(record as unknown as JsonObject)) as JsonObject,
  });
}

/** The settings with which the checkpoint was trained. Throws StateError for a model without a run. */
export function settingsOf(checkpoint: Checkpoint, folder: string): RunSettings {
  return recordOf(checkpoint, folder).settings;
}

function recordOf(checkpoint: Checkpoint, folder: string): TrainerRecord {
  if (!checkpoint.trainer || !checkpoint.optimizer) {
    throw new StateError(
      `train: expected the checkpoint of a run in ${folder}, got a model only. Start a new run in another folder.`,
    );
  }
  const record = checkpoint.trainer as unknown as TrainerRecord;
  if (record.version !== VERSION || !record.settings || !record.position) {
    throw new FormatError(
      `train: expected version ${VERSION} of trainer.json in ${folder}, got ${String(record.version)}. ` +
        'Resume with the release that wrote it.',
    );
  }
  return record;
}

/**
 * Fills the run with the checkpoint's values, `best` with the weights to keep, and returns where to go on.
 */
export async function restoreRun(
  checkpoint: Checkpoint,
  folder: string,
  { trained: { model }, optimizer }: Omit<Run, 'settings'>,
  best: Map<string, Float32Array>,
): Promise<LoopPosition> {
  const record = recordOf(checkpoint, folder);
  const file = checkpoint.optimizer!;
  for (const [name, tensor] of model.namedParameters()) {
    const stored = await checkpoint.model.tensor(name);
    const isKept = file.tensors.has(CURRENT + name);
    if (isKept) best.set(name, stored);
    tensor.write(isKept ? await file.readAsF32(CURRENT + name) : stored);
  }
  await optimizer.restore(record.optimizerSteps, (name) => file.readAsF32(name));
  const { position, stateTokens } = record;
  const state = stateTokens && (await readState(file, model as StateModel, stateTokens));
  return { ...position, data: position.data as BatchPosition, state };
}

async function readState(file: TensorFile, model: StateModel, tokens: readonly number[]): Promise<State> {
  const values = new Map<string, Float32Array>();
  for (const name of State.namedShapes(model, tokens).keys())
    values.set(name, await file.readAsF32(name.replace(/^layers/, STATE)));
  return State.fromValues(values, model, tokens);
}
