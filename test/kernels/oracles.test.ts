/**
 * The reference kernels in float64 against stored float64 results of independent implementations (test/fixtures/ops):
 * both sides may be off by the radius of the ball, shrunk from the roundoff of float32 to that of float64.
 */
import { readFileSync } from 'node:fs';
import { describe, it } from 'vitest';
import type { KernelName } from '../../src/backend/backend.ts';
import {
  attentionPartialSize,
  NORM_BLOCKS,
  SCAN_CHUNK,
  scanPartialSize,
  ssdGradPartialSize,
  ssdPartialSize,
} from '../../src/backend/kernels.ts';
import { memorySource } from '../../src/base/source.ts';
import { openSafetensors } from '../../src/io/safetensors.ts';
import { boundsOf } from './bounds.ts';
import { compare } from './check.ts';
import { type Case, type Floats, type Operands, out, type Result, truth } from './harness.ts';

const BOTH_IN_FLOAT64 = 2 * 2 ** -29;

interface Stored {
  shape: readonly number[];
  data: Float64Array;
}
/** The tensors of one fixture case by name; null where it has none. */
type Fixture = (name: string) => Stored | null;

const root = new URL('../fixtures/ops/', import.meta.url);

/** Calls `check` for every case of a fixture file, with its attributes. */
async function each(
  family: string,
  check: (fixture: Fixture, attributes: Record<string, unknown>) => Promise<void>,
) {
  const file = await openSafetensors(memorySource(readFileSync(new URL(`${family}.safetensors`, root))));
  const tensors = new Map<string, Stored>();
  for (const [name, { shape }] of file.tensors) {
    tensors.set(name, { shape, data: Float64Array.from((await file.read(name)) as Floats) });
  }
  const cases = JSON.parse(readFileSync(new URL(`${family}.json`, root), 'utf8')) as Record<
    string,
    Record<string, unknown>
  >;
  describe(family, () => {
    for (const [name, attributes] of Object.entries(cases)) {
      it(name, () => check((tensor) => tensors.get(`${name}/${tensor}`) ?? null, attributes));
    }
  });
}

/** The last axis becomes the second: (b, d, l) -> (b, l, d), (b, g, n, l) -> (b, l, g, n). */
function tokensFirst({ shape, data }: Stored): Float64Array {
  const [b, l] = [shape[0]!, shape.at(-1)!];
  const inner = data.length / (b * l);
  return data.map((_, i) => {
    const [row, t, rest] = [Math.floor(i / (l * inner)), Math.floor(i / inner) % l, i % inner];
    return data[(row * inner + rest) * l + t]!;
  });
}

async function check<N extends KernelName>(
  kernel: N,
  operands: Operands<N>,
  expected: Record<string, Float64Array | null>,
): Promise<Result> {
  const test: Case<N> = { kernel, name: 'oracle', operands };
  const result = await truth(test);
  const bounds = await boundsOf(test, result);
  for (const [name, values] of Object.entries(expected)) {
    if (!values) continue;
    const balls = bounds[name] ?? Array.from(result[name]!, (v) => ({ v, r: 0 }));
    compare(
      test,
      name,
      values,
      balls.map(({ r }, i) => ({ v: result[name]![i]!, r })),
      BOTH_IN_FLOAT64,
    );
  }
  return result;
}

await each('selective_scan', async (fixture, { delta_softplus }) => {
  const data = (name: string) => fixture(name)?.data ?? null;
  const tokens = (name: string) => {
    const stored = fixture(name);
    return stored && (stored.shape.length > 2 ? tokensFirst(stored) : stored.data);
  };
  const groups = (name: string) => {
    const { shape } = fixture(name)!;
    return shape.length === 2 ? 0 : shape.length === 3 ? 1 : shape[1]!;
  };
  const [b, e, l] = fixture('in.u')!.shape as [number, number, number];
  const n = fixture('in.A')!.shape[1]!;
  const common = {
    u: tokens('in.u')!,
    delta: tokens('in.delta')!,
    A: data('in.A')!,
    B: tokens('in.B')!,
    C: tokens('in.C')!,
    D: data('in.D'),
    z: tokens('in.z'),
    deltaBias: data('in.delta_bias'),
    sequenceIds: null,
    lengths: null,
    ...{ b, l, e, n, bGroups: groups('in.B'), cGroups: groups('in.C'), softplus: Number(delta_softplus) },
  };
  const { checkpoints } = await check(
    'selectiveScan',
    {
      ...common,
      state: null,
      y: out(b * l * e),
      stateOut: out(b * e * n),
      checkpoints: out(b * Math.ceil(l / SCAN_CHUNK) * e * n),
    },
    { y: tokens('out.y'), stateOut: data('out.last_state') },
  );
  await check(
    'selectiveScanGrad',
    {
      ...common,
      checkpoints: checkpoints as Float64Array,
      dy: tokens('cotangent.y')!,
      dstateOut: data('cotangent.last_state'),
      du: out(b * l * e),
      ddelta: out(b * l * e),
      dA: out(e * n),
      dB: out(common.B.length),
      dC: out(common.C.length),
      dD: common.D && out(e),
      dz: common.z && out(b * l * e),
      ddeltaBias: common.deltaBias && out(e),
      dstate: null,
      partial: out(scanPartialSize(b, l, e, n, common.bGroups, common.cGroups)),
    },
    {
      du: tokens('grad.u'),
      ddelta: tokens('grad.delta'),
      dA: data('grad.A'),
      dB: tokens('grad.B'),
      dC: tokens('grad.C'),
      dD: data('grad.D'),
      dz: tokens('grad.z'),
      ddeltaBias: data('grad.delta_bias'),
    },
  );
});

await each('state_update', async (fixture, { dt_softplus }) => {
  const data = (name: string) => fixture(name)?.data ?? null;
  const A = fixture('in.A')!;
  const n = A.shape.at(-1)!;
  const [b, e] = [fixture('in.x')!.shape[0]!, A.data.length / n];
  const groups = fixture('in.B')!.shape.length === 2 ? 1 : fixture('in.B')!.shape[1]!;
  await check(
    'selectiveScan',
    {
      u: data('in.x')!,
      delta: data('in.dt')!,
      A: A.data,
      B: data('in.B')!,
      C: data('in.C')!,
      D: data('in.D'),
      z: data('in.z'),
      deltaBias: data('in.dt_bias'),
      state: data('in.state'),
      sequenceIds: null,
      lengths: null,
      y: out(b * e),
      stateOut: out(b * e * n),
      checkpoints: null,
      ...{ b, l: 1, e, n, bGroups: groups, cGroups: groups, softplus: Number(dt_softplus) },
    },
    { y: data('out.y'), stateOut: data('out.state') },
  );
});

await each('causal_conv1d', async (fixture, { width, silu }) => {
  const data = (name: string) => fixture(name)?.data ?? null;
  const tokens = (name: string) => fixture(name) && tokensFirst(fixture(name)!);
  const [b, e, l] = fixture('in.x')!.shape as [number, number, number];
  const k = Number(width);
  // The stored windows hold k - 1 inputs; ours one more, of which a later token has no use.
  const padded = (name: string) => {
    const stored = data(name);
    return (
      stored &&
      Float64Array.from({ length: b * e * k }, (_, i) => (i % k ? stored[i - Math.floor(i / k) - 1]! : 0))
    );
  };
  const common = {
    x: tokens('in.x')!,
    weight: data('in.weight')!,
    bias: data('in.bias'),
    window: padded('in.init'),
    sequenceIds: null,
    lengths: null,
    ...{ b, l, e, k, silu: Number(silu) },
  };
  await check(
    'causalConv',
    { ...common, y: out(b * l * e), windowOut: out(b * e * k), cut1: e, cut2: e },
    { y: tokens('out.y'), windowOut: data('out.last_W_inputs') },
  );
  await check(
    'causalConvGrad',
    {
      ...common,
      dy: tokens('cotangent.y')!,
      dwindowOut: data('cotangent.last_W_inputs'),
      dx: out(b * l * e),
      dweight: out(e * k),
      dbias: common.bias && out(e),
      dwindow: common.window && out(b * e * k),
      partial: out(b * e * (k + 1)),
    },
    {
      dx: tokens('grad.x'),
      dweight: data('grad.weight'),
      dbias: data('grad.bias'),
      dwindow: padded('grad.init'),
    },
  );
});

await each('norms', async (fixture, { kind, eps, group_size, norm_before_gate }) => {
  const data = (name: string) => fixture(name)?.data ?? null;
  const d = fixture('in.weight')!.data.length;
  const rows = fixture('in.x')!.data.length / d;
  if (kind === 'rms_gated') {
    const common = {
      x: data('in.x')!,
      z: data('in.z'),
      weight: data('in.weight'),
      ...{ rows, d, groupSize: Number(group_size ?? d), normBeforeGate: Number(norm_before_gate) },
      eps: Number(eps),
    };
    await check('gatedNorm', { ...common, y: out(rows * d) }, { y: data('out.out') });
    await check(
      'gatedNormGrad',
      {
        ...common,
        dy: data('cotangent.out')!,
        dx: out(rows * d),
        dz: common.z && out(rows * d),
        dweight: out(d),
        partial: out(NORM_BLOCKS * d),
      },
      { dx: data('grad.x'), dz: data('grad.z'), dweight: data('grad.weight') },
    );
    return;
  }
  const center = String(kind).startsWith('layer') ? 1 : 0;
  const weight = data('in.weight');
  const statistics = await check(
    'norm',
    {
      x: data('in.x')!,
      residual: data('in.residual'),
      weight,
      bias: data('in.bias'),
      y: out(rows * d),
      sum: out(rows * d),
      mean: center ? out(rows) : null,
      rstd: out(rows),
      ...{ rows, d, eps: Number(eps), center },
    },
    { y: data('out.y'), sum: data('out.residual_out') },
  );
  await check(
    'normGrad',
    {
      s: statistics.sum as Float64Array,
      weight,
      mean: center ? (statistics.mean as Float64Array) : null,
      rstd: statistics.rstd as Float64Array,
      dy: data('cotangent.y')!,
      dsum: data('cotangent.residual_out'),
      ds: out(rows * d),
      dweight: out(d),
      dbias: center ? out(d) : null,
      partial: out(NORM_BLOCKS * 2 * d),
      ...{ rows, d, center },
    },
    { ds: data('grad.x'), dweight: data('grad.weight'), dbias: data('grad.bias') },
  );
});

await each('ssd_core', async (fixture, { chunk_size }) => {
  const data = (name: string) => fixture(name)?.data ?? null;
  const ids = (name: string) => fixture(name) && Int32Array.from(fixture(name)!.data);
  const [b, l, r, h, p] = fixture('in.x')!.shape as [number, number, number, number, number];
  const [g, n] = fixture('in.B')!.shape.slice(3) as [number, number];
  const q = Number(chunk_size);
  const common = {
    x: data('in.x')!,
    decay: data('in.decay')!,
    scale: data('in.scale')!,
    own: data('in.own'),
    B: data('in.B')!,
    C: data('in.C')!,
    D: data('in.D'),
    sequenceIds: ids('in.sequence_ids'),
    lengths: ids('in.lengths'),
    ...{ b, l, r, h, p, g, n, q, dWidth: fixture('in.D')!.shape.length === 2 ? p : 1 },
  };
  const { checkpoints } = await check(
    'ssd',
    {
      ...common,
      state: data('in.init'),
      ...{ lastX: null, lastB: null, lastWeight: null },
      y: out(common.x.length),
      stateOut: out(b * h * p * n),
      checkpoints: out(b * Math.ceil(l / q) * h * p * n),
      partial: out(ssdPartialSize(b, l, r, g, q)),
      precision: 0,
    },
    { y: data('out.y'), stateOut: data('out.final_state') },
  );
  await check(
    'ssdGrad',
    {
      ...common,
      checkpoints: checkpoints as Float64Array,
      dy: data('cotangent.y')!,
      dstateOut: data('cotangent.final_state'),
      dx: out(common.x.length),
      ddecay: out(b * l * h),
      dscale: out(b * l * h),
      down: common.own && out(b * l * h),
      dB: out(common.B.length),
      dC: out(common.C.length),
      dD: out(common.D!.length),
      dstate: out(b * h * p * n),
      partial: out(ssdGradPartialSize(b, l, r, h, p, g, n, q)),
    },
    {
      dx: data('grad.x'),
      ddecay: data('grad.decay'),
      dscale: data('grad.scale'),
      down: data('grad.own'),
      dB: data('grad.B'),
      dC: data('grad.C'),
      dD: data('grad.D'),
      dstate: data('grad.init'),
    },
  );
});

await each('attention', async (fixture, { past, scale }) => {
  const data = (name: string) => fixture(name)?.data ?? null;
  const [b, l, hq, d] = fixture('in.q')!.shape as [number, number, number, number];
  const [, c, hk] = fixture('in.k')!.shape as [number, number, number];
  const sequenceIds = fixture('in.sequence_ids');
  const common = {
    q: data('in.q')!,
    k: data('in.k')!,
    v: data('in.v')!,
    past: new Int32Array(b).fill(Number(past)),
    sequenceIds: sequenceIds && Int32Array.from(sequenceIds.data),
    lengths: null,
    ...{ b, l, c, hq, hk, d, softmaxScale: scale === null ? 1 / Math.sqrt(d) : Number(scale) },
  };
  const { y, lse } = await check(
    'attention',
    { ...common, y: out(b * l * hq * d), lse: out(b * l * hq) },
    { y: data('out.y') },
  );
  await check(
    'attentionGrad',
    {
      ...common,
      y: y as Float64Array,
      lse: lse as Float64Array,
      dy: data('cotangent.y')!,
      dq: out(common.q.length),
      dk: out(common.k.length),
      dv: out(common.v.length),
      partial: out(attentionPartialSize(b, l, c, hq, hk, d)),
    },
    { dq: data('grad.q'), dk: data('grad.k'), dv: data('grad.v') },
  );
});
