/**
 * `train lm` as a function: opens the text, builds or restores the run, trains, and leaves a folder with the
 * model, the optimizer and metrics.jsonl. Node only; prints nothing.
 */
import { resolve, sep } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import { Rng } from '../base/rng.ts';
import { LanguageModel } from '../models/language-model.ts';
import { tokenizerFromFiles } from '../text/index.ts';
import { type CorpusProgress, openCorpus } from './corpus.node.ts';
import { type CorpusFile, listCorpusFiles } from './corpus-files.node.ts';
import { collectText } from './corpus-sample.node.ts';
import { type Batch, type BatchStream, contiguousStreams, randomWindows } from './data-batches.ts';
import { packedWindows } from './data-packed.ts';
import { sliceTokens, splitTokens, type TokenData } from './data-tokens.ts';
import { openEnwik8 } from './enwik8.node.ts';
import { type Evaluation, evaluate } from './evaluate.ts';
import type { LmFigures, LmScores } from './metrics.ts';
import { type RunOptions, type RunResult, type RunSpec, runTraining } from './run.node.ts';
import { openTokenizer } from './run-tokenizer.node.ts';
import { languageModelling } from './task-lm.ts';
import type { TrainLmEvent } from './train-lm-events.ts';
import { type LmSettings, modelInput, resolveSettings, resumeSettings } from './train-lm-options.ts';

export type TrainLmOptions = RunOptions<LmSettings, TrainLmEvent>;

export interface TrainLmResult extends RunResult<LmSettings, Evaluation, LmFigures, LmScores> {
  /** The trained model with its tokenizer. The caller disposes it. */
  model: LanguageModel;
  /** Of the test text after the last step; null when interrupted or without one. */
  test: Evaluation | null;
}

/**
 * Throws ConfigError for wrong settings or a folder that is taken, FileError and FormatError for what cannot
 * be read, DivergenceError when training fails; the last checkpoint stays.
 */
export async function trainLm(options: TrainLmOptions): Promise<TrainLmResult> {
  const { out, onProgress } = options;
  let trained: LanguageModel | null = null;
  let test: Evaluation | null = null;
  const spec: RunSpec<LmSettings, Batch, Evaluation, LmFigures, LmScores> = {
    name: 'train lm',
    makes: 'language model',
    resolve: resolveSettings,
    resume: resumeSettings,
    async open(settings, checkpoint, closing) {
      const sources = await openSources(settings, out, onProgress);
      const tokenizer = checkpoint
        ? tokenizerFromFiles(checkpoint.model.tokenizer)
        : await openTokenizer(settings.tokenizer, () => collectText(sources.train, settings.textField));
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
      model.precision = settings.precision;
      trained = model;
      const { config, parameterCount } = model;
      return {
        task: languageModelling(model),
        model,
        batches: openBatches(settings, parts.train),
        carryState: settings.sampling === 'stream',
        content: () => ({ config, eosId: tokenizer.eosId, tokenizer: tokenizer.toFiles() }),
        evaluate: () =>
          evaluate(model, valid, {
            batch: evaluationBatch(settings),
            onProgress: (doneTokens, totalTokens) =>
              onProgress?.({ kind: 'evaluation', doneTokens, totalTokens }),
          }),
        begin: (step) =>
          onProgress?.({
            kind: 'begin',
            settings,
            config,
            parameterCount,
            device: model.device.description,
            trainTokens: parts.train.length,
            validTokens: valid.length,
            step,
          }),
        async finish() {
          if (sources.test.length === 0) return;
          test = await evaluate(model, await open(sources.test), { batch: evaluationBatch(settings) });
        },
      };
    },
  };
  const result = await runTraining(spec, options);
  const model = trained as unknown as LanguageModel; // opened by now
  await model.refreshFingerprint();
  return { ...result, test, model };
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
