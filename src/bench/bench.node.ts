/**
 * Measures a model on this machine: tokens per second of reading prompts, of decoding, and of
 * training, beside the limits of the machine that are measured in the same rounds. `mamba-ts
 * bench` prints what this returns.
 */
import type { LanguageModel } from '../models/language-model.ts';
import type { Precision } from '../tensor/precision.ts';
import { type Limits, leastSeconds, limitsOf, type ProductKind } from './limits.ts';
import { type Machine, peakBytes, watchMachine } from './machine.node.ts';
import { type BenchOptions, type BenchSettings, resolveBench } from './options.ts';
import { type Regime, runGeneration, tasksOf, trainer } from './regimes.ts';
import { type Spread, spreadOf } from './spread.ts';
import { type Work, workOf } from './work.ts';

/** One measurement of a regime. */
export interface Measured {
  /** Of all rows together. */
  tokensPerSecond: number;
  /** What the machine allows by its limits of the same round; null where the device cannot measure them. */
  limitTokensPerSecond: number | null;
  /** tokensPerSecond in parts of the limit: 1 is all that is possible. */
  share: number | null;
  /** What sets the limit. */
  bound: 'memory' | 'arithmetic' | null;
}

/** Null where decoding or training was left out. */
export interface BenchRound {
  prefill: Measured;
  decode: Measured | null;
  train: Measured | null;
  limits: Limits | null;
  /**
   * The most memory that the process has held so far; measuring the limits takes some, so that only the
   * first round tells the model's.
   */
  peakBytes: number;
}

/** Measured over all rounds. */
export interface RegimeResult {
  tokensPerSecond: Spread;
  limitTokensPerSecond: Spread | null;
  share: Spread | null;
  bound: Measured['bound'];
}

export interface BenchResult {
  machine: Machine;
  /** Instruction set and threads. */
  device: string;
  model: {
    model_type: string;
    d_model: number;
    n_layer: number;
    vocab_size: number;
    precision: Precision;
  } & Work;
  settings: BenchSettings;
  /** Null where decoding or training was left out. */
  prefill: RegimeResult;
  decode: RegimeResult | null;
  train: RegimeResult | null;
  /**
   * In bytes and operations per second. `product` is of the type that the matrix products are computed in.
   */
  limits: { read: Spread; float: Spread; product: Spread; productKind: ProductKind } | null;
  /** The most memory that the process held in the first round, and the device's buffers. */
  peakBytes: number;
  devicePeakBytes: number;
}

/**
 * Measures once for every call of the function that it returns, for programs that measure something
 * else in between; the first call is not as fast as the others. The current weights of `model`, as
 * they are kept; training changes them. Throws ConfigError for options out of range, UnsupportedError
 * for training with narrow weights.
 */
export function benchRounds(model: LanguageModel, options: BenchOptions = {}): () => Promise<BenchRound> {
  const settings = resolveBench(options);
  const { batch, prompt, generate } = settings;
  const work = workOf(model);
  const tasks = tasksOf(work, settings);
  const step = settings.train ? trainer(model, settings) : null;
  return async () => {
    const generation = await runGeneration(model, settings);
    const seconds = { ...generation, train: step ? await step() : 0 };
    const peak = peakBytes();
    const limits = limitsOf(model.device, productKindOf(work, model.precision), work.weightBytes);
    const measured = (regime: Regime, tokens: number): Measured => {
      const least = limits && leastSeconds(tasks[regime], limits);
      return {
        tokensPerSecond: tokens / seconds[regime],
        limitTokensPerSecond: least && tokens / least.seconds,
        share: least && least.seconds / seconds[regime],
        bound: least?.bound ?? null,
      };
    };
    return {
      limits,
      prefill: measured('prefill', batch * prompt),
      decode: generate > 0 ? measured('decode', batch * generate) : null,
      train: step && measured('train', batch * prompt),
      peakBytes: peak,
    };
  };
}

/**
 * benchRounds() as often as the options say, after a round that does not count, and
 * what it says about the machine.
 */
export async function benchModel(model: LanguageModel, options: BenchOptions = {}): Promise<BenchResult> {
  const settings = resolveBench(options);
  const { device } = model;
  const work = workOf(model);
  device.resetPeak();
  const measure = benchRounds(model, options);
  const first = await measure();
  options.onRound?.(0, settings.rounds);
  const finish = watchMachine();
  const rounds: BenchRound[] = [];
  while (rounds.length < settings.rounds) {
    rounds.push(await measure());
    options.onRound?.(rounds.length, settings.rounds);
    if (options.signal?.aborted) break;
  }
  const { model_type, d_model, n_layer, vocab_size } = model.config;
  const limits = rounds.flatMap((round) => round.limits ?? []);
  const [prefill, decode, train] = (['prefill', 'decode', 'train'] as const).map((regime) =>
    overRounds(rounds.flatMap((round) => round[regime] ?? [])),
  );
  return {
    machine: finish(),
    device: device.description,
    model: { model_type, d_model, n_layer, vocab_size, precision: model.precision, ...work },
    settings,
    prefill: prefill!,
    decode: decode!,
    train: train!,
    limits: limits.length
      ? {
          read: spreadOf(limits.map(({ read }) => read)),
          float: spreadOf(limits.map(({ float }) => float)),
          product: spreadOf(limits.map(({ product }) => product)),
          productKind: productKindOf(work, model.precision),
        }
      : null,
    peakBytes: first.peakBytes,
    devicePeakBytes: device.memory.peakBytes,
  };
}

function overRounds(rounds: readonly Measured[]): RegimeResult | null {
  if (rounds.length === 0) return null;
  const allowed = rounds.flatMap(({ limitTokensPerSecond }) => limitTokensPerSecond ?? []);
  const shares = rounds.flatMap(({ share }) => share ?? []);
  return {
    tokensPerSecond: spreadOf(rounds.map(({ tokensPerSecond }) => tokensPerSecond)),
    limitTokensPerSecond: allowed.length ? spreadOf(allowed) : null,
    share: shares.length ? spreadOf(shares) : null,
    bound: rounds[0]!.bound,
  };
}

/**
 * Where the precision says nothing, weights of 8 and 4 bits meet activations of 16 bits as integers;
 * others are widened to float32.
 */
function productKindOf({ weights }: Work, precision: Precision): ProductKind {
  const isInteger = weights === 'q8' || weights === 'q4';
  if (isInteger) return precision === 'int8' ? 'int8' : 'int16';
  return precision === 'bf16' ? 'bf16' : 'f32';
}
