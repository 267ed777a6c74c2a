/**
 * Measures a model on this machine: tokens per second of reading prompts, of decoding, and of training, beside the limits of the machine
 * that are measured in the same rounds. `mamba-ts bench` prints what this returns.
 */
import type { LanguageModel } from '../models/language-model.ts';
import { type Limits, leastSeconds, limitsOf, type ProductKind } from './limits.ts';
import { type Machine, peakBytes, watchMachine } from './machine.node.ts';
import { type BenchOptions, type BenchSettings, resolveBench } from './options.ts';
import { type Regime, runGeneration, tasksOf, trainer } from './regimes.ts';
import { type Spread, spreadOf } from './spread.ts';
import { type Work, workOf } from './work.ts';

export interface RegimeResult {
  /** Of all rows together. */
  tokensPerSecond: Spread;
  /** What the machine allows by its limits of the same rounds; null where the device cannot measure them. */
  limitTokensPerSecond: Spread | null;
  /** tokensPerSecond in parts of the limit of its round: 1 is all that is possible. */
  share: Spread | null;
  /** What sets the limit. */
  bound: 'memory' | 'arithmetic' | null;
}

export interface BenchResult {
  machine: Machine;
  /** Instruction set and threads. */
  device: string;
  model: { model_type: string; d_model: number; n_layer: number; vocab_size: number } & Work;
  settings: BenchSettings;
  /** Null where decoding or training was left out. */
  prefill: RegimeResult;
  decode: RegimeResult | null;
  train: RegimeResult | null;
  /** In bytes and operations per second. `product` is of the type that the matrix products are computed in. */
  limits: { read: Spread; float: Spread; product: Spread; productKind: ProductKind } | null;
  /** The most memory the process held before the limits were measured, and the device's buffers. */
  peakBytes: number;
  devicePeakBytes: number;
}

/**
 * The current weights of `model`, as they are kept; training changes them. Throws ConfigError for options out of range,
 * UnsupportedError for training with narrow weights.
 */
export async function benchModel(model: LanguageModel, options: BenchOptions = {}): Promise<BenchResult> {
  const settings = resolveBench(options);
  const { device } = model;
  const work = workOf(model);
  const productKind = productKindOf(work);
  const step = settings.train ? trainer(model, settings) : null;
  device.resetPeak();
  const once = async (): Promise<Record<Regime, number>> => {
    const generation = await runGeneration(model, settings);
    return { ...generation, train: step ? await step() : 0 };
  };
  await once();
  const peak = { process: peakBytes(), device: device.memory.peakBytes };
  options.onRound?.(0, settings.rounds);

  const finish = watchMachine();
  const rounds: { seconds: Record<Regime, number>; limits: Limits | null }[] = [];
  while (rounds.length < settings.rounds) {
    const limits = limitsOf(device, productKind, work.weightBytes);
    rounds.push({ limits, seconds: await once() });
    options.onRound?.(rounds.length, settings.rounds);
    if (options.signal?.aborted) break;
  }
  const machine = finish();

  const { batch, prompt, generate } = settings;
  const tasks = tasksOf(work, settings);
  const result = (regime: Regime, tokens: number): RegimeResult => {
    const measured = rounds.map(({ seconds, limits }) => ({
      seconds: seconds[regime],
      least: limits && leastSeconds(tasks[regime], limits),
    }));
    const least = measured.flatMap((round) => round.least ?? []);
    return {
      tokensPerSecond: spreadOf(measured.map(({ seconds }) => tokens / seconds)),
      limitTokensPerSecond: least.length ? spreadOf(least.map(({ seconds }) => tokens / seconds)) : null,
      share: least.length ? spreadOf(measured.map(({ seconds, least }) => least!.seconds / seconds)) : null,
      bound: least[0]?.bound ?? null,
    };
  };
  const of = (pick: (limits: Limits) => number) => spreadOf(rounds.map(({ limits }) => pick(limits!)));
  const { model_type, d_model, n_layer, vocab_size } = model.config;
  return {
    machine,
    device: device.description,
    model: { model_type, d_model, n_layer, vocab_size, ...work },
    settings,
    prefill: result('prefill', batch * prompt),
    decode: generate > 0 ? result('decode', batch * generate) : null,
    train: step && result('train', batch * prompt),
    limits: rounds[0]!.limits && {
      read: of(({ read }) => read),
      float: of(({ float }) => float),
      product: of(({ product }) => product),
      productKind,
    },
    peakBytes: peak.process,
    devicePeakBytes: peak.device,
  };
}

/** Weights of 8 and 4 bits meet activations of 16 bits as integers; all others are widened to float32. */
function productKindOf({ weights }: Work): ProductKind {
  return weights === 'q8' || weights === 'q4' ? 'int16' : 'f32';
}
