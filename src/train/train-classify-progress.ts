/**
 * A classification run told in lines: reading, what is trained on what, the live
 * line, and a line per evaluation.
 */
import type { ProgressStream } from './progress.ts';
import { describeArchitecture, formatCount, liveLine, runningPace } from './progress.ts';
import type { TrainClassifyEvent } from './train-classify-events.ts';
import { bestStep, epochsOf } from './train-classify-summary.ts';

type Begin = Extract<TrainClassifyEvent, { kind: 'begin' }>;

/** Feed it the events of trainClassify(); call end() before writing anything else. */
export function trainClassifyProgress(
  stream: ProgressStream,
  options: { now?: () => number } = {},
): { handle(event: TrainClassifyEvent): void; end(): void } {
  const line = liveLine(stream, options);
  const pace = runningPace();
  let run: Begin | null = null;
  let metrics: Begin['metrics'] = [];
  return {
    handle(event) {
      switch (event.kind) {
        case 'begin':
          run = event;
          metrics = [...event.metrics];
          for (const text of beginning(event)) line.print(text);
          break;
        case 'notice':
          line.print(event.message);
          break;
        case 'download': {
          const { doneBytes, totalBytes } = event;
          const share = totalBytes && `${Math.floor((100 * doneBytes) / totalBytes)} %`;
          line.show(`download: ${share || `${formatCount(doneBytes)} bytes`}`);
          break;
        }
        case 'read':
          line.show(`reading: ${event.examples} texts`);
          break;
        case 'evaluation':
          line.show(`evaluating: ${event.doneTexts} of ${event.totalTexts} texts`);
          break;
        case 'baselines':
          line.print('scoring the baselines: naive Bayes, TF-IDF with logistic regression');
          break;
        case 'step': {
          const { loss, speed } = pace(event);
          line.show(`${place(event.step, run!)}  loss ${loss.toFixed(3)}  ${speed}`);
          break;
        }
        case 'metrics':
          metrics.push(event.metrics);
          if (event.metrics.validation) line.print(evaluated(metrics, run!));
      }
    },
    end: line.end,
  };
}

function* beginning(event: Begin): Generator<string> {
  const { settings, config, parameterCount, trainedCount, device, texts, cutTexts, stepsPerEpoch } = event;
  const { backbone, labels, bidirectional, pooling } = config;
  const shape = [
    `d_model ${backbone.d_model}`,
    `${backbone.n_layer} ${backbone.n_layer === 1 ? 'layer' : 'layers'}`,
    ...(bidirectional ? ['two directions'] : []),
    `${pooling} pooling`,
  ];
  yield `${describeArchitecture(backbone)}, ${formatCount(parameterCount)} parameters (${shape.join(', ')}) on ${device}`;
  if (settings.from !== null) yield `starting from ${settings.from}`;
  if (trainedCount < parameterCount) {
    const share = ((100 * trainedCount) / parameterCount).toFixed(2);
    yield `${formatCount(trainedCount)} of the parameters are trained (${share} %, ${settings.tune})`;
  }
  const test = texts.test > 0 ? `, ${texts.test} for the test` : '';
  yield `${labels.length} classes (${someOf(labels)}); ${texts.train} texts to learn from, ${texts.valid} held out${test}`;
  if (cutTexts > 0) {
    const share = ((100 * cutTexts) / texts.train).toFixed(cutTexts * 100 < texts.train ? 1 : 0);
    yield `${cutTexts} of the texts to learn from (${share} %) fill the ${settings.maxTokens} tokens that are read; what comes after is not seen`;
  }
  yield `${stepsPerEpoch} steps per epoch`;
  if (event.step > 0) yield `resumed after step ${event.step}`;
}

const SHOWN_LABELS = 6;

/** The labels, a few of them where there are many. */
function someOf(labels: readonly string[]): string {
  const shown = labels
    .slice(0, SHOWN_LABELS)
    .join(', ')
    .replace(/\p{Cc}/gu, '?');
  return labels.length > SHOWN_LABELS ? `${shown}, ...` : shown;
}

/** Where a step stands in its epoch. */
function place(step: number, { stepsPerEpoch, steps }: Begin): string {
  const epoch = Math.ceil(step / stepsPerEpoch);
  const within = step - (epoch - 1) * stepsPerEpoch;
  return `epoch ${epoch}${ofAll(steps, stepsPerEpoch)}  step ${within}/${stepsPerEpoch}`;
}

/** The line of the last evaluation. */
function evaluated(metrics: Begin['metrics'], { stepsPerEpoch, steps }: Begin): string {
  const history = epochsOf(metrics, stepsPerEpoch);
  const { epoch, step, trainLoss, validation } = history.at(-1)!;
  const { loss, accuracy, macroF1 } = validation!;
  return [
    `epoch ${Number(epoch.toFixed(2))}${ofAll(steps, stepsPerEpoch)}`,
    `training loss ${trainLoss.toFixed(4)}`,
    `evaluation loss ${loss.toFixed(4)}`,
    `evaluation accuracy ${accuracy.toFixed(4)}`,
    `macro-F1 ${macroF1.toFixed(4)}`,
    ...(bestStep(history) === step ? ['best so far'] : []),
  ].join('  ');
}

function ofAll(steps: number | null, stepsPerEpoch: number): string {
  return steps === null ? '' : `/${Number((steps / stepsPerEpoch).toFixed(2))}`;
}
