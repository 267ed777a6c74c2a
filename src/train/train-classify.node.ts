/**
 * `train classify` as a function: opens the labelled texts, builds or restores the classifier, trains, and
 * leaves a folder with the best one, the optimizer and metrics.jsonl. Node only; prints nothing.
 */
import { join } from 'node:path';
import type { Tokenizer } from '../base/tokenizer.ts';
import { removeAdapter, saveAdapter } from '../io/adapter.node.ts';
import type { Pretrained } from '../io/pretrained.node.ts';
import type { Classifier } from '../models/classifier.ts';
import { tokenizerFromFiles } from '../text/tokenizer.ts';
import { type BaselineResult, runBaselines } from './baselines.ts';
import { buildClassifier, openBase, restoredClassifier } from './classifier-start.node.ts';
import { batchesPerEpoch, type LabelledText, labelledBatches } from './data-labelled.ts';
import { type Answers, answersOf, encodeExamples } from './evaluate-classifier.ts';
import { openExamples } from './examples.node.ts';
import type { Example, ExampleParts } from './examples.ts';
import { type RunOptions, type RunResult, type RunSpec, runTraining } from './run.node.ts';
import { openTokenizer } from './run-tokenizer.node.ts';
import type { ClassScores } from './scores.ts';
import { type ClassifyFigures, type ClassifyScores, classification } from './task-classify.ts';
import type { TrainClassifyEvent } from './train-classify-events.ts';
import {
  type ClassifySettings,
  resolveClassifySettings,
  resumeClassifySettings,
} from './train-classify-options.ts';

/** Below the run's folder: low-rank adapters and the head alone. */
export const ADAPTER_FOLDER = 'adapter';

export interface TrainClassifyOptions extends RunOptions<ClassifySettings, TrainClassifyEvent> {
  /** Also scores naive Bayes and logistic regression on the same texts. Default true. */
  baselines?: boolean;
}

export interface TrainClassifyResult
  extends RunResult<ClassifySettings, ClassScores, ClassifyFigures, ClassifyScores> {
  /** The best one, with its tokenizer. The caller disposes it. */
  model: Classifier;
  stepsPerEpoch: number;
  trainedCount: number;
  /** Of the best classifier; null when interrupted. */
  valid: Answers | null;
  /** Null when interrupted, or without test texts. */
  test: Answers | null;
  /** On the test texts, or without any on the held-out ones; empty when interrupted. */
  baselines: BaselineResult[];
}

/**
 * Throws ConfigError for wrong settings or a folder that is taken, FileError and FormatError for what cannot
 * be read, DivergenceError when training fails; the last checkpoint stays.
 */
export async function trainClassify(options: TrainClassifyOptions): Promise<TrainClassifyResult> {
  const { out, onProgress } = options;
  let trained: Classifier | null = null;
  let stepsPerEpoch = 0;
  let trainedCount = 0;
  let valid: Answers | null = null;
  let test: Answers | null = null;
  let baselines: BaselineResult[] = [];
  const spec: RunSpec<ClassifySettings, LabelledText[], ClassScores, ClassifyFigures, ClassifyScores> = {
    name: 'train classify',
    makes: 'classifier',
    resolve: resolveClassifySettings,
    resume: resumeClassifySettings,
    async open(settings, checkpoint, closing) {
      const parts = await openExamples({ ...settings, onProgress });
      const base = settings.from !== null && !checkpoint ? await openBase(settings.from, onProgress) : null;
      if (base) closing.push(() => base.close());
      const tokenizer = checkpoint
        ? tokenizerFromFiles(checkpoint.model.tokenizer)
        : settings.tokenizer === null
          ? tokenizerFromFiles(base!.tokenizer)
          : await openTokenizer(settings.tokenizer, async () => parts.train.map(({ text }) => text), {
              lowercase: settings.lowercase,
            });
      if (base && isForeign(tokenizer, base)) {
        const message = `the tokenizer is not that of ${settings.from}: its embeddings were learned for other tokens`;
        onProgress?.({ kind: 'notice', message });
      }
      const model = checkpoint
        ? restoredClassifier(checkpoint.model, settings)
        : await buildClassifier(settings, { labels: parts.labels, vocabSize: tokenizer.vocabSize, base });
      model.tokenizer = tokenizer;
      model.precision = settings.precision;
      trained = model;
      const texts = encodeExamples(parts.train, model);
      const validTexts = encodeExamples(parts.valid, model);
      const { batch, seed, maxTokens } = settings;
      stepsPerEpoch = Math.ceil(batchesPerEpoch(texts.length, batch) / settings.accumulate);
      trainedCount = model
        .parameters()
        .reduce((sum, { requiresGrad, size }) => sum + (requiresGrad ? size : 0), 0);
      const steps = settings.epochs === null ? settings.steps : settings.epochs * stepsPerEpoch;
      const { backbone, ...head } = model.config;
      const answer = (examples: Example[], encoded: readonly LabelledText[]): Promise<Answers> =>
        answersOf(model, examples, encoded, {
          onProgress: (doneTexts, totalTexts) => onProgress?.({ kind: 'evaluation', doneTexts, totalTexts }),
        });
      return {
        task: classification(model, {
          ...settings,
          classWeights: classWeightsOf(settings, texts, head.labels.length),
        }),
        model,
        batches: labelledBatches({ texts, batch, seed }),
        content: () => ({ config: backbone, head, tokenizer: tokenizer.toFiles() }),
        ...(settings.epochs !== null && { steps: steps! }),
        evaluateEvery: settings.evalEvery || stepsPerEpoch,
        best: {
          rank: ({ accuracy, logLoss }) => [accuracy, -logLoss],
          patience: settings.patience || null,
        },
        evaluate: async () => (await answer(parts.valid, validTexts)).scores,
        begin: (step, metrics) =>
          onProgress?.({
            kind: 'begin',
            settings,
            config: model.config,
            parameterCount: model.parameterCount,
            trainedCount,
            device: model.device.description,
            texts: { train: texts.length, valid: validTexts.length, test: parts.test.length },
            cutTexts: texts.filter(({ ids }) => ids.length === maxTokens).length,
            stepsPerEpoch,
            steps,
            step,
            metrics,
          }),
        async finish() {
          valid = await answer(parts.valid, validTexts);
          if (parts.test.length > 0) test = await answer(parts.test, encodeExamples(parts.test, model));
          if (options.baselines ?? true) baselines = await baselinesOf(parts, options);
          if (head.lora)
            await saveAdapter(join(out, ADAPTER_FOLDER), {
              root: model,
              head,
              base: settings.from!,
              fingerprint: await model.baseFingerprint(),
              tokenizer: tokenizer.toFiles(),
            });
          else if (options.start === 'replace') await removeAdapter(join(out, ADAPTER_FOLDER)); // that of the run before
        },
      };
    },
  };
  const result = await runTraining(spec, options);
  const model = trained as unknown as Classifier; // opened by now
  await model.refreshFingerprint();
  return { ...result, model, stepsPerEpoch, trainedCount, valid, test, baselines };
}

function isForeign(tokenizer: Tokenizer, { tokenizer: files }: Pretrained): boolean {
  const known = files['tokenizer.json'];
  const used = tokenizer.toFiles()['tokenizer.json'];
  if (known === undefined || used === undefined) return known !== used;
  return JSON.stringify(JSON.parse(known)) !== JSON.stringify(JSON.parse(used));
}

async function baselinesOf(
  { train, valid, test, labels }: ExampleParts,
  { onProgress, signal }: TrainClassifyOptions,
): Promise<BaselineResult[]> {
  onProgress?.({ kind: 'baselines' });
  const labelled = (examples: readonly Example[]) =>
    examples.map(({ text, label }) => ({ text, label: labels.indexOf(label) }));
  return runBaselines({
    train: labelled(train),
    test: labelled(test.length > 0 ? test : valid),
    labels,
    signal,
  });
}

/** Undefined when all weigh the same; their mean over the texts is 1. */
function classWeightsOf(
  { classWeights }: ClassifySettings,
  texts: readonly LabelledText[],
  classes: number,
): number[] | undefined {
  if (classWeights === 'equal') return undefined;
  const counts = new Array<number>(classes).fill(0);
  for (const { label } of texts) counts[label]!++;
  return counts.map((count) => texts.length / (classes * count));
}
