/** A run told in lines: one live line on a terminal, a plain line every few seconds elsewhere. */
import type { TrainEvent } from './loop.ts';

/** Where lines go, such as process.stderr. */
export interface ProgressStream {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
}

export interface ProgressOptions {
  /** Whether a token is a byte, so that the loss is shown in bits per byte. */
  bytes: boolean;
  /** Of a run that is limited by steps. */
  steps?: number | null;
  /** A clock in milliseconds, default performance.now. */
  now?: () => number;
}

export interface Progress {
  handle(event: TrainEvent): void;
  /** Leaves the live line behind; call it before writing anything else. */
  end(): void;
}

const TTY_INTERVAL_MS = 100;
const PLAIN_INTERVAL_MS = 5000;
/** The shown loss is an average over about this many steps. */
const SMOOTHING = 20;

/** Feed it the events of train() or trainLm(). */
export function progressLine(stream: ProgressStream, options: ProgressOptions): Progress {
  const { now = () => performance.now() } = options;
  const interval = stream.isTTY ? TTY_INTERVAL_MS : PLAIN_INTERVAL_MS;
  let shownAt = now();
  let loss = Number.NaN;
  let steps = 0;
  let line = '';
  let isOpen = false;
  let validation = '';
  let last = { tokens: 0, seconds: 0 };
  let speed = 0;
  const show = (): void => {
    const text = line + validation;
    if (stream.isTTY) {
      const width = (stream.columns ?? 80) - 1;
      stream.write(`\r\u001b[2K${text.slice(0, width)}`);
      isOpen = true;
    } else stream.write(`${text}\n`);
    shownAt = now();
  };
  return {
    handle(event) {
      if (event.kind === 'metrics' && event.metrics.validation) {
        validation = `  held-out ${formatLoss(event.metrics.validation.loss, options.bytes)}`;
      }
      if (event.kind !== 'step') return;
      steps++;
      const weight = 1 / Math.min(steps, SMOOTHING);
      loss = steps === 1 ? event.loss : loss + (event.loss - loss) * weight;
      const seconds = event.elapsedSeconds - last.seconds;
      if (steps > 1 && seconds > 0) {
        const current = (event.tokens - last.tokens) / seconds;
        speed = speed === 0 ? current : speed + (current - speed) * weight;
      }
      last = { tokens: event.tokens, seconds: event.elapsedSeconds };
      const left = (event.elapsedSeconds * (1 - event.progress)) / event.progress;
      line = [
        options.steps ? `step ${event.step}/${options.steps}` : `step ${event.step}`,
        formatLoss(loss, options.bytes),
        `${formatCount(speed)} tokens/s`,
        `${formatDuration(left)} left`,
      ].join('  ');
      if (event.progress >= 1 || now() - shownAt >= interval) show();
    },
    end() {
      if (isOpen) stream.write('\n');
      isOpen = false;
    },
  };
}

/** The loss in nats, and in the unit people compare. */
export function formatLoss(loss: number, bytes: boolean): string {
  const bits = (loss / Math.LN2).toFixed(3);
  return `loss ${loss.toFixed(3)}  ${bits} bits/${bytes ? 'byte' : 'token'}`;
}

/** 12345678 -> 12.3M. */
export function formatCount(count: number): string {
  if (count < 1000) return count.toFixed(0);
  if (count < 1e6) return `${(count / 1e3).toFixed(1)}k`;
  if (count < 1e9) return `${(count / 1e6).toFixed(1)}M`;
  return `${(count / 1e9).toFixed(1)}G`;
}

/** Seconds as 1:02:03 or 2:03. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value: number): string => String(value).padStart(2, '0');
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}
