/**
 * Cases of the selective scan: lengths around the chunk, state sizes around the vector, constant, per-token and grouped
 * B and C, every optional operand, extreme step sizes.
 */
import { SCAN_CHUNK, scanPartialSize } from '../../../src/backend/kernels.ts';
import { createReference } from '../../../src/backend/reference/index.ts';
import { type Case, inPlace, type Operands, out, run } from '../harness.ts';
import { define, pick, Values } from './values.ts';

interface Shape {
  b: number;
  l: number;
  e: number;
  n: number;
  bGroups: number;
  cGroups: number;
}

const LENGTHS = [1, 2, 7, 63, 64, 65, 130, 257, 0];
const STATES = [1, 8, 16, 3, 5, 17];
/** Channels with numbers of groups that divide them. */
const CHANNELS = [
  [1, 1],
  [6, 2],
  [17, 1],
  [6, 3],
  [33, 1],
  [20, 2],
] as const; // prettier-ignore

/** What is special about the step sizes. */
type Step = 'usual' | 'extreme';

function shapeOf(i: number): Shape {
  const [e, groups] = pick(CHANNELS, i);
  return {
    b: pick([1, 3, 2], i),
    l: pick(LENGTHS, i),
    e,
    n: pick(STATES, i + Math.floor(i / STATES.length)),
    bGroups: pick([groups, groups, 0], i),
    cGroups: pick([groups, 0, groups, 1], i),
  };
}

function common(values: Values, shape: Shape, i: number, step: Step) {
  const { b, l, e, n, bGroups, cGroups } = shape;
  const has = (bit: number) => ((i * 37) & bit) !== 0;
  const softplus = has(16) ? 0 : 1;
  const size = b * l * e;
  const usual = softplus ? values.normal(size, 2, -3) : values.logUniform(size, 1e-4, 1);
  // From steps that forget nothing to steps that forget everything; across the threshold of softplus.
  const extreme = softplus ? values.uniform(size, -60, 45) : values.logUniform(size, 1e-12, 200);
  return {
    u: values.normal(size),
    delta: step === 'usual' ? usual : extreme,
    A: values.logUniform(e * n, 0.5, 16).map((rate) => -rate),
    B: values.normal(bGroups === 0 ? e * n : b * l * bGroups * n),
    C: values.normal(cGroups === 0 ? e * n : b * l * cGroups * n),
    D: has(1) ? values.normal(e) : null,
    z: has(2) ? values.normal(size, 3) : null,
    deltaBias: has(4) && softplus ? values.normal(e) : null,
    sequenceIds: has(8) ? values.documents(b, l, pick([2, 9, 50], i)) : null,
    lengths: has(32)
      ? Int32Array.from({ length: b }, (_, row) => Math.min(l, pick([l >> 1, 0, l], row)))
      : null,
    ...shape,
    softplus,
  };
}

function nameOf(shape: Shape, step: Step, o: { [name: string]: unknown }): string {
  const optional = ['D', 'z', 'deltaBias', 'state', 'sequenceIds', 'lengths', 'dstateOut'].filter(
    (name) => o[name],
  );
  const { b, l, e, n, bGroups, cGroups } = shape;
  const kind = `(${b}, ${l}, ${e}) n ${n} groups ${bGroups}/${cGroups}${o.softplus ? ' softplus' : ''}`;
  return [kind, ...optional, ...(step === 'extreme' ? ['extreme steps'] : [])].join(', ');
}

function named<N extends 'selectiveScan' | 'selectiveScanGrad'>(
  kernel: N,
  shape: Shape,
  i: number,
  step: Step,
  make: (values: Values) => Operands<N>,
): Case {
  const test = define(kernel, `${i} ${step}`, make);
  return { ...test, name: nameOf(shape, step, test.operands as { [name: string]: unknown }) };
}

function forward(i: number, step: Step = 'usual', alias?: 'u' | 'delta' | 'z'): Case {
  const shape = shapeOf(i);
  const { b, l, e, n } = shape;
  const test = named('selectiveScan', shape, i, step, (values) => {
    const given = common(values, shape, i, step);
    return {
      ...given,
      z: alias === 'z' ? values.normal(b * l * e) : given.z,
      state: i % 3 === 1 ? values.normal(b * e * n) : null,
      y: alias ? inPlace(alias, b * l * e) : out(b * l * e),
      stateOut: out(b * e * n),
      checkpoints: i % 2 ? out(b * Math.ceil(l / SCAN_CHUNK) * e * n) : null,
    };
  });
  return alias ? { ...test, name: `${test.name}, y in ${alias}` } : test;
}

const reference = createReference();

/** The gradient of a forward case, from the checkpoints that the float32 forward pass leaves. */
async function backward(i: number, step: Step = 'usual'): Promise<Case> {
  const shape = shapeOf(i);
  const { b, l, e, n, bGroups, cGroups } = shape;
  const given = common(new Values(`scan ${i} ${step}`), shape, i, step);
  const values = new Values(`scan gradient ${i}`);
  const { checkpoints } = await run(reference, {
    kernel: 'selectiveScan',
    name: 'checkpoints',
    operands: {
      ...given,
      state: i % 3 === 1 ? values.normal(b * e * n) : null,
      y: out(b * l * e),
      stateOut: out(b * e * n),
      checkpoints: out(b * Math.ceil(l / SCAN_CHUNK) * e * n),
    },
  });
  return named('selectiveScanGrad', shape, i, step, () => ({
    ...given,
    checkpoints: Float32Array.from(checkpoints!),
    dy: values.normal(b * l * e),
    dstateOut: i % 4 === 1 ? null : values.normal(b * e * n),
    du: out(b * l * e),
    ddelta: out(b * l * e),
    dA: out(e * n),
    dB: out(given.B.length),
    dC: out(given.C.length),
    dD: given.D ? out(e) : null,
    dz: given.z ? out(b * l * e) : null,
    ddeltaBias: given.deltaBias ? out(e) : null,
    dstate: i % 3 === 1 ? out(b * e * n) : null,
    partial: out(scanPartialSize(b, l, e, n, bGroups, cGroups)),
  }));
}

const USUAL = Array.from({ length: 40 }, (_, i) => i);
const EXTREME = [4, 5, 6, 7, 14, 22, 23];

export const scan: Case[] = [
  ...USUAL.map((i) => forward(i)),
  ...EXTREME.map((i) => forward(i, 'extreme')),
  forward(4, 'usual', 'u'),
  forward(11, 'usual', 'delta'),
  forward(6, 'usual', 'z'),
  ...(await Promise.all(USUAL.map((i) => backward(i)))),
  ...(await Promise.all(EXTREME.map((i) => backward(i, 'extreme')))),
];
