/** A measurement as lines of text. */
import { textTable } from '../train/scores-text.ts';
import type { BenchResult, RegimeResult } from './bench.node.ts';
import type { ProductKind } from './limits.ts';
import type { Spread } from './spread.ts';

/**
 * From this share of the processors on, or this load per processor, others slow a measurement down visibly.
 */
export const BUSY = 0.1;

const PRODUCTS: Readonly<Record<ProductKind, string>> = {
  f32: 'float32 products',
  bf16: 'bfloat16 products',
  int16: 'products of 16-bit activations and 8-bit weights',
  int8: '8-bit products',
};

/** `name` is what the model is called. Ends with a line break. */
export function benchText(name: string, result: BenchResult): string {
  const { machine, model, settings, limits } = result;
  const { batch, prompt, generate, rounds } = settings;
  const rowsOf = batch === 1 ? '' : `${batch} x `;
  const regimes: [string, RegimeResult | null][] = [
    [`prefill ${rowsOf}${prompt}`, result.prefill],
    [`decode ${rowsOf}${generate}`, result.decode],
    [`train ${batch} x ${prompt}`, result.train],
  ];
  const lines = [
    `${name}: ${model.model_type}, d_model ${model.d_model}, ${model.n_layer} layers, vocabulary ${model.vocab_size}`,
    `${count(model.parameters)} parameters, matrices in ${model.weights}, precision ${model.precision}; a token reads ${bytes(model.weightBytes)}`,
    `${machine.cpu}, ${machine.processors} processors; ${result.device}; mamba-ts ${machine.version}, Node ${machine.node}`,
    `load average ${machine.load.toFixed(2)} before${others(machine.takenByOthers)}; median (least..most) of ${rounds} rounds`,
    '',
    textTable([
      ['', 'tokens/s', 'of the limit', 'limit, tokens/s', 'set by'],
      ...regimes.flatMap(([label, regime]) => (regime ? [[label, ...cells(regime)]] : [])),
    ]),
    '',
  ];
  if (limits) {
    lines.push(
      `limits of this machine: reads ${rate(limits.read)}B/s; ${rate(limits.float)}FLOP/s in float32` +
        (limits.productKind === 'f32'
          ? ''
          : `; ${rate(limits.product)}OP/s in ${PRODUCTS[limits.productKind]}`),
    );
  }
  lines.push(
    `memory at most ${bytes(result.peakBytes)}, ${bytes(result.devicePeakBytes)} of it on the device`,
  );
  const warning = busyWarning(result);
  if (warning) lines.push(warning);
  return `${lines.join('\n')}\n`;
}

function busyWarning({ machine }: BenchResult): string | null {
  const taken = machine.takenByOthers ?? 0;
  if (taken <= BUSY && machine.load <= 0.5 * machine.processors) return null;
  return 'warning: this machine was busy with other work, so it can do more than this. Compare the shares, or measure again.';
}

function cells({ tokensPerSecond, share, limitTokensPerSecond, bound }: RegimeResult): string[] {
  const limit = limitTokensPerSecond ? figure(limitTokensPerSecond.median) : '-';
  const percent = share
    ? spread(share, (x) => `${(100 * x).toFixed(0)}`).replace(/^(\d+)/, '$1 %')
    : 'not measured';
  return [spread(tokensPerSecond, figure), percent, limit, bound ?? '-'];
}

function spread({ median, min, max }: Spread, show: (x: number) => string): string {
  return `${show(median)} (${show(min)}..${show(max)})`;
}

const figure = (x: number) => (x < 100 ? x.toPrecision(3) : x.toFixed(0));
const rate = ({ median }: Spread) => `${(median / 1e9).toFixed(1)} G`;
const bytes = (x: number) => `${(x / 1e6).toFixed(1)} MB`;
const count = (x: number) => (x < 1e6 ? String(x) : `${(x / 1e6).toFixed(1)} M`);

function others(share: number | null): string {
  return share === null ? '' : `, others took ${(100 * share).toFixed(0)} % of the processors`;
}
