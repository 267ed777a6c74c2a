/**
 * `train lm` as a function: opens the text, builds or restores the run, trains, and leaves a folder with the model, the
 * optimizer and metrics.jsonl. Node only; prints nothing.
 */
import { appendFile } from 'node:fs/promises';
import { join, resolve, sep } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import { Rng } from '../base/rng.ts';
import { loadCheckpoint } from '../io/checkpoint.node.ts';
import { readTextIfPresent, writeFileAtomic } from '../io/file.ts';
import { LanguageModel } from '../models/language-model.ts';
import { tokenizerFromFiles } from '../text/index.ts';
import { AdamW } from './adamw.ts';
import { type CorpusProgress, openCorpus } from './corpus.node.ts';
import { type CorpusFile, listCorpusFiles } from './corpus-files.node.ts';
import { type BatchStream, contiguousStreams, randomWindows } from './data-batches.ts';
import { packedWindows } from './data-packed.ts';
import { sliceTokens, splitTokens, type TokenData } from './data-tokens.ts';
import { openEnwik8 } from './enwik8.node.ts';
import { type Evaluation, evaluate } from './evaluate.ts';
import { type Budget, startPosition, type TrainResult, train } from './loop.ts';
import { formatMetrics, parseMetrics, type StepMetrics } from './metrics.ts';
import { makeSchedule } from './schedule.ts';
import { languageModelling } from './task-lm.ts';
import { holdsCheckpoint, restoreRun, saveRun, settingsOf } from './train-lm-checkpoint.node.ts';
import type { TrainLmEvent } from './train-lm-events.ts';
import { type LmSettings, modelInput, resolveSettings, resumeSettings } from './train-lm-options.ts';
import { openTokenizer } from './train-lm-tokenizer.node.ts';

export const METRICS_FILE = 'metrics.jsonl';

export interface TrainLmOptions {
  /** The folder of the run. */
  out: string;
  /** Of a new run: at least `data`, and `steps` or `minutes`. Of a resumed one: what should change. */
  settings: Partial<LmSettings>;
  /** `new` (default) refuses a folder with a checkpoint, `resume` wants one, `replace` begins anew over one. */
  start?: 'new' | 'resume' | 'replace';
  onProgress?: (event: TrainLmEvent) => void;
  /** Finishes the step, saves and returns. */
  signal?: AbortSignal;
  /** A clock in milliseconds, default performance.now. */
  now?: () => number;
}

export interface TrainLmResult extends TrainResult<Evaluation> {
  out: string;
  settings: LmSettings;
  /** The trained model with its tokenizer. The caller disposes it. */
  model: LanguageModel;
  parameterCount: number;
  /** What it ran on. */
  device: string;
  /** All of metrics.jsonl. */
  metrics: StepMetrics[];
  /** Of the test text after the last step; null when interrupted or without one. */
  test: Evaluation | null;
}

/**
 * Throws ConfigError for wrong settings or a folder that is taken, FileError and FormatError for what cannot be read,
 * DivergenceError when training fails; the last checkpoint stays.
 */
export async function trainLm(options: TrainLmOptions): Promise<TrainLmResult> {
  const { out, start = 'new', onProgress } = options;
  const isTaken = await holdsCheckpoint(out);
  if (start === 'new' && isTaken) {
    throw new ConfigError(
      `train lm: expected a folder without a checkpoint, got ${out}. Resume it (--resume), replace it (--force) or choose another folder.`,
    );
  }
  if (start === 'resume' && !isTaken) {
    throw new ConfigError(`train lm: expected a checkpoint to resume in ${out}, got none. Start a new run.`);
  }
  const checkpoint = start === 'resume' ? await loadCheckpoint(out) : null;
  const closing: (() => Promise<void>)[] = [];
  let unread = checkpoint;
  closing.push(async () => unread?.close());
  try {
    const settings = checkpoint
      ? resumeSettings(settingsOf(checkpoint, out), options.settings)
      : resolveSettings(options.settings);
    const sources = await openSources(settings, out, onProgress);
    const tokenizer = checkpoint
      ? tokenizerFromFiles(checkpoint.model.tokenizer)
      : await openTokenizer(settings.tokenizer, sources.train, settings.textField);
    const open = async (files: readonly (string | CorpusFile)[]): Promise<TokenData> => {
      const report = (progress: CorpusProgress) => onProgress?.({ kind: 'data', progress });
      const tokens = await openCorpus(files, {
        tokenizer,
        textField: settings.textField,
        onProgress: report,
      });
      closing.push(() => tokens.close());
      return tokens;
    };
    const all = await open(sources.train);
    const parts =
      sources.valid.length > 0 ? { train: all, valid: await open(sources.valid) } : splitTokens(all);
    const valid = sliceTokens(parts.valid, 0, Math.min(parts.valid.length, settings.evalTokens));

    const model = checkpoint
      ? new LanguageModel(checkpoint.model.config, { seed: null })
      : new LanguageModel(modelInput(settings, tokenizer.vocabSize), { seed: settings.seed });
    model.tokenizer = tokenizer;
    const { weightDecay, clip } = settings;
    const optimizer = new AdamW(model.namedParameters(), { weightDecay, maxNorm: clip === 0 ? null : clip });
    closing.push(async () => optimizer.dispose());
    const batches = openBatches(settings, parts.train);
    const run = { settings, model, optimizer };
    let position = startPosition(batches);
    if (checkpoint) {
      position = await restoreRun(checkpoint, out, run);
      batches.restore(position.data);
      unread = null;
      await checkpoint.close(); // saving replaces its files; held open, they would stay on the disk
    } else {
      await saveRun(out, run, position); // tells now whether the folder can be written, and a killed run can be resumed
    }
    const metrics = await openMetrics(out, position.step);
    const { parameterCount } = model;
    const device = model.parameters()[0]!.device.description;
    onProgress?.({
      kind: 'begin',
      settings,
      config: model.config,
      parameterCount,
      device,
      trainTokens: parts.train.length,
      validTokens: valid.length,
      step: position.step,
    });
    const result = await train({
      task: languageModelling(model),
      optimizer,
      batches,
      position,
      schedule: makeSchedule({
        kind: settings.schedule,
        peak: settings.lr,
        warmup: settings.warmup,
        final: settings.finalLr,
      }),
      budget: budgetOf(settings),
      accumulate: settings.accumulate,
      checkpointing: settings.checkpointing,
      carryState: settings.sampling === 'stream',
      logEvery: settings.logEvery,
      evaluateEvery: settings.evalEvery || null,
      saveEvery: settings.saveEvery || null,
      evaluate: () =>
        evaluate(model, valid, {
          batch: evaluationBatch(settings),
          onProgress: (doneTokens, totalTokens) =>
            onProgress?.({ kind: 'evaluation', doneTokens, totalTokens }),
        }),
      save: (at) => saveRun(out, run, at),
      signal: options.signal,
      now: options.now,
      onProgress: async (event) => {
        if (event.kind === 'metrics') {
          metrics.push(event.metrics);
          await appendFile(join(out, METRICS_FILE), formatMetrics([event.metrics]));
        }
        onProgress?.(event);
      },
    });
    await model.refreshFingerprint();
    const isTested = result.stopped === 'finished' && sources.test.length > 0;
    const test = isTested
      ? await evaluate(model, await open(sources.test), { batch: evaluationBatch(settings) })
      : null;
    return { ...result, test, out, settings, model, parameterCount, device, metrics };
  } finally {
    for (const close of closing.reverse()) await close();
  }
}

function budgetOf({ steps, minutes }: LmSettings): Budget {
  return steps === null ? { minutes: minutes! } : { steps };
}

/** As many windows of 1024 tokens as a training step reads, so that evaluation needs no more memory. */
function evaluationBatch({ batch, length }: LmSettings): number {
  return Math.max(1, Math.floor((batch * length) / 1024));
}

function openBatches(settings: LmSettings, tokens: TokenData): BatchStream {
  const { batch, length, sampling, seed } = settings;
  const options = { tokens, batch, length };
  if (sampling === 'stream') return contiguousStreams(options);
  const rng = new Rng(seed).fork('data');
  return sampling === 'pack' ? packedWindows({ ...options, rng }) : randomWindows({ ...options, rng });
}

async function openSources(
  settings: LmSettings,
  out: string,
  onProgress: TrainLmOptions['onProgress'],
): Promise<Record<'train' | 'valid' | 'test', readonly (string | CorpusFile)[]>> {
  if (settings.data[0] !== 'enwik8') {
    return { train: await filesOutside(out, settings.data), valid: settings.valid, test: settings.test };
  }
  const { train, valid, test } = await openEnwik8({
    onProgress: (progress) => onProgress?.({ kind: 'download', ...progress }),
  });
  return {
    train: [train],
    valid: settings.valid.length > 0 ? settings.valid : [valid],
    test: settings.test.length > 0 ? settings.test : [test],
  };
}

/** The files of the corpus without what the run itself writes, unless that is named outright. */
async function filesOutside(out: string, sources: readonly string[]): Promise<CorpusFile[]> {
  const named = new Set(sources.map((source) => resolve(source)));
  const files = await listCorpusFiles(sources);
  const kept = files.filter(
    ({ path }) => named.has(resolve(path)) || !resolve(path).startsWith(resolve(out) + sep),
  );
  if (kept.length > 0) return kept;
  throw new ConfigError(
    `data: expected text outside the run's own folder ${out}, got none. Name other files.`,
  );
}

/** The entries up to `step`; the file is cut behind them, so that a resumed run writes what an unbroken one would have. */
async function openMetrics(out: string, step: number): Promise<StepMetrics[]> {
  const path = join(out, METRICS_FILE);
  const kept = step === 0 ? [] : parseMetrics((await readTextIfPresent(path)) ?? '', step);
  await writeFileAtomic(path, formatMetrics(kept));
  return kept;
}
