/** A run told in lines: one live line on a terminal, a plain line every few seconds elsewhere. */
import type { ModelConfig } from '../models/config.ts';
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
  const { bytes, steps, now } = options;
  const line = liveLine(stream, { now });
  const pace = runningPace();
  let validation = '';
  return {
    handle(event) {
      if (event.kind === 'metrics' && event.metrics.validation)
        validation = `  held-out ${formatLoss(event.metrics.validation.loss, bytes)}`;
      if (event.kind !== 'step') return;
      const { loss, speed } = pace(event);
      const parts = [
        steps ? `step ${event.step}/${steps}` : `step ${event.step}`,
        formatLoss(loss, bytes),
        speed,
      ];
      line.show(parts.join('  ') + validation, event.progress >= 1);
    },
    end: line.end,
  };
}

/** A line that is written over on a terminal, and written out every few seconds elsewhere. */
export interface LiveLine {
  /** What is going on now; not written if the last was written a moment ago, unless it must be. */
  show(text: string, isDue?: boolean): void;
  /** A line that stays, in the place of the live one. */
  print(text: string): void;
  /** Leaves the live line behind; call it before writing anything else. */
  end(): void;
}

export function liveLine(
  stream: ProgressStream,
  { now = () => performance.now() }: { now?: () => number } = {},
): LiveLine {
  const interval = stream.isTTY ? TTY_INTERVAL_MS : PLAIN_INTERVAL_MS;
  let shownAt = now();
  let isOpen = false;
  return {
    show(text, isDue = false) {
      if (!isDue && now() - shownAt < interval) return;
      shownAt = now();
      isOpen = stream.isTTY === true;
      stream.write(isOpen ? `${CLEAR}${text.slice(0, (stream.columns || 80) - 1)}` : `${text}\n`);
    },
    print(text) {
      stream.write(`${isOpen ? CLEAR : ''}${text}\n`);
      isOpen = false;
    },
    end() {
      if (isOpen) stream.write('\n');
      isOpen = false;
    },
  };
}

/** Back to the first column, and nothing on the line. */
const CLEAR = '\r\u001b[2K';

type StepEvent = Extract<TrainEvent, { kind: 'step' }>;

/** From the steps of a run: the loss, smoothed, and tokens per second with the time that is left. */
export function runningPace(): (event: StepEvent) => { loss: number; speed: string } {
  let loss = Number.NaN;
  let steps = 0;
  let last = { tokens: 0, seconds: 0 };
  let speed = 0;
  return (event) => {
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
    return { loss, speed: `${formatCount(speed)} tokens/s  ${formatDuration(left)} left` };
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

/** `mamba2, attention in layers 1, 3` or `mamba3, MIMO of rank 4`. */
export function describeArchitecture(config: ModelConfig): string {
  const { model_type, attn_layer_idx: layers } = config;
  const mimo = model_type === 'mamba3' && config.is_mimo ? [`MIMO of rank ${config.mimo_rank}`] : [];
  const where = `attention in layer${layers.length === 1 ? '' : 's'} ${layers.join(', ')}`;
  return [model_type, ...mimo, ...(layers.length > 0 ? [where] : [])].join(', ');
}
