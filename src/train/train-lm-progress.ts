/** A language-model run told in lines: reading the text, what is trained on what, then the live line. */
import type { Progress, ProgressStream } from './progress.ts';
import { describeArchitecture, formatCount, progressLine } from './progress.ts';
import type { TrainLmEvent } from './train-lm-events.ts';

const SHARE_INTERVAL_MS = 2000;

/** Feed it the events of trainLm(); call end() before writing anything else. */
export function trainLmProgress(
  stream: ProgressStream,
  { now = () => performance.now() }: { now?: () => number } = {},
): { handle(event: TrainLmEvent): void; end(): void } {
  let line: Progress | null = null;
  let toldAt = now();
  const share = (what: string, done: number, total: number | null): void => {
    if (now() - toldAt < SHARE_INTERVAL_MS) return;
    toldAt = now();
    line?.end();
    stream.write(
      `${what}: ${total ? `${Math.floor((100 * done) / total)} %` : `${formatCount(done)} bytes`}\n`,
    );
  };
  return {
    handle(event) {
      if (event.kind === 'begin') {
        const { config, settings, step } = event;
        stream.write(
          `${describeArchitecture(config)}, ${formatCount(event.parameterCount)} parameters ` +
            `(d_model ${config.d_model}, ${config.n_layer} layers) on ${event.device}\n` +
            `${formatCount(event.trainTokens)} tokens to learn from, ${formatCount(event.validTokens)} held out\n` +
            (step > 0 ? `resumed after step ${step}\n` : ''),
        );
        line = progressLine(stream, { bytes: settings.tokenizer === 'bytes', steps: settings.steps, now });
      } else if (event.kind === 'data') {
        const { phase, doneBytes, totalBytes } = event.progress;
        share(`reading the text (${phase})`, doneBytes, totalBytes);
      } else if (event.kind === 'download') share('download', event.doneBytes, event.totalBytes);
      else if (event.kind === 'evaluation') share('evaluating', event.doneTokens, event.totalTokens);
      else line?.handle(event);
    },
    end: () => line?.end(),
  };
}
