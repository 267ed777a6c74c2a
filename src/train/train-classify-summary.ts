/**
 * From a finished classification run to the plain data of its report: epochs, calibration, explained texts.
 */
import type { Classifier } from '../models/classifier.ts';
import { explain } from '../predict/index.ts';
import { calibrationBins } from './calibration.ts';
import type { ExplainedText } from './explained-text.ts';
import type { ClassScores } from './scores.ts';
import type { ClassifyEpoch, ClassifyRunSummary } from './train-classify-report.ts';

/** What the classifier answered on a set of texts. */
export interface AnsweredTexts {
  examples: readonly { text: string; label: string; where: string }[];
  /** A row per example, in the order of the labels. */
  probabilities: readonly ArrayLike<number>[];
  scores: ClassScores;
}

/** The result of trainClassify() is one. */
export type FinishedClassification = Pick<
  ClassifyRunSummary,
  | 'settings'
  | 'parameterCount'
  | 'trainedCount'
  | 'device'
  | 'step'
  | 'tokens'
  | 'elapsedSeconds'
  | 'baselines'
> & {
  model: Classifier;
  metrics: ClassifyRunSummary['metrics'];
  stepsPerEpoch: number;
  valid: AnsweredTexts | null;
  test: AnsweredTexts | null;
};

export interface SummaryOptions {
  /** Wrong answers that are shown and explained. Default 20. */
  errors?: number;
  /** Right answers that are shown and explained. Default 8. */
  examples?: number;
  signal?: AbortSignal;
}

/** What the report of `run` shows. Each explained text takes a forward and a backward pass. */
export async function summarizeClassification(
  run: FinishedClassification,
  { errors = 20, examples = 8, signal }: SummaryOptions = {},
): Promise<ClassifyRunSummary> {
  const { model, settings, parameterCount, trainedCount, device, step, tokens, elapsedSeconds } = run;
  const { metrics, baselines, valid, test } = run;
  const { labels } = model.config;
  const shown = test ?? valid;
  const truth = shown?.examples.map(({ label }) => labels.indexOf(label)) ?? [];
  const history = epochsOf(metrics, run.stepsPerEpoch);
  const answers = shown ? answersOf(labels, shown) : [];
  return {
    settings,
    config: model.config,
    parameterCount,
    trainedCount,
    device,
    step,
    tokens,
    elapsedSeconds,
    metrics,
    history,
    keptStep: bestStep(history),
    validation: valid?.scores ?? null,
    test: test?.scores ?? null,
    baselines,
    calibration: calibrationBins(truth, shown?.probabilities ?? []),
    errors: await explained(model, shown ? confidentErrors(labels, shown, errors) : [], signal),
    examples: await explained(model, typicalAnswers(answers, labels, examples), signal),
  };
}

/** An entry per evaluation, with the mean training loss since the one before; `epoch` may be a fraction. */
export function epochsOf(metrics: ClassifyRunSummary['metrics'], stepsPerEpoch: number): ClassifyEpoch[] {
  const found: ClassifyEpoch[] = [];
  let [sum, begin, before] = [0, 0, 0];
  for (const { step, loss, validation } of metrics) {
    sum += loss * (step - before);
    before = step;
    if (!validation) continue;
    found.push({ epoch: step / stepsPerEpoch, step, trainLoss: sum / (step - begin), validation });
    sum = 0;
    begin = step;
  }
  return found;
}

/** As the trainer ranks them: by accuracy, of equals by the smaller loss, of equals the first. */
export function bestStep(history: readonly ClassifyEpoch[]): number | null {
  let best: ClassifyEpoch | null = null;
  for (const entry of history) {
    const [now, then] = [entry.validation, best?.validation];
    if (!now) continue;
    const isBetter =
      !then || now.accuracy > then.accuracy || (now.accuracy === then.accuracy && now.loss < then.loss);
    if (isBetter) best = entry;
  }
  return best?.step ?? null;
}

function answersOf(labels: readonly string[], { examples, probabilities }: AnsweredTexts): ExplainedText[] {
  return examples.map(({ text, label, where }, i) => {
    const row = probabilities[i]!;
    let top = 0;
    for (let k = 1; k < row.length; k++) if (row[k]! > row[top]!) top = k;
    return { text, where, label, prediction: { label: labels[top]!, score: row[top]! }, tokens: null };
  });
}

const bySureness = (a: ExplainedText, b: ExplainedText): number => b.prediction.score - a.prediction.score;

/** Wrong answers, the most confident first; not yet explained. */
export function confidentErrors(
  labels: readonly string[],
  answered: AnsweredTexts,
  count: number,
): ExplainedText[] {
  return answersOf(labels, answered)
    .filter(({ label, prediction }) => label !== prediction.label)
    .sort(bySureness)
    .slice(0, count);
}

/** Right ones, the most confident of each class in turn. */
function typicalAnswers(
  answers: readonly ExplainedText[],
  labels: readonly string[],
  count: number,
): ExplainedText[] {
  const right = answers.filter(({ label, prediction }) => label === prediction.label).sort(bySureness);
  const classes = labels.map((label) => right.filter((answer) => answer.label === label));
  const found: ExplainedText[] = [];
  for (let turn = 0; turn < right.length && found.length < count; turn++)
    found.push(...classes.flatMap((texts) => texts.slice(turn, turn + 1)));
  return found.slice(0, count);
}

/** With the weights of their tokens, which speak for the label that was predicted. */
async function explained(
  model: Classifier,
  items: readonly ExplainedText[],
  signal: AbortSignal | undefined,
): Promise<ExplainedText[]> {
  const found: ExplainedText[] = [];
  for (const item of items) {
    const [explanation] = await explain(model, [item.text], { label: item.prediction.label, signal });
    found.push({ ...item, tokens: visible(explanation!.tokens) });
  }
  return found;
}

type Tokens = { text: string; weight: number }[];

/** Tokens that end within a character add no text; their weight goes to the one that completes it. */
export function visible(tokens: Readonly<Tokens>): Tokens {
  const found: Tokens = [];
  let waiting = 0;
  for (const { text, weight } of tokens) {
    waiting += weight;
    if (text === '') continue;
    found.push({ text, weight: waiting });
    waiting = 0;
  }
  if (waiting !== 0 && found.length > 0) found.at(-1)!.weight += waiting;
  return found;
}
