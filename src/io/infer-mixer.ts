/**
 * The sizes of a mixer from the shapes of its tensors: of each architecture what shapes
 * can tell, in the official names.
 */
import type { Shape } from '../base/shape.ts';

/** Shapes under our names; what is missing or cannot be is gathered. */
export class Shapes {
  readonly problems: string[] = [];
  readonly #found: ReadonlyMap<string, Shape>;

  constructor(found: ReadonlyMap<string, Shape>) {
    this.#found = found;
  }

  has(name: string): boolean {
    return this.#found.has(name);
  }

  /** Zeros if it is not there, or of another rank. */
  need(name: string, rank: number): Shape {
    const shape = this.#found.get(name);
    if (shape?.length === rank) return shape;
    this.problems.push(shape ? `${name} of rank ${shape.length}, not ${rank}` : `no ${name}`);
    return new Array<number>(rank).fill(0);
  }

  /** [channels, width]; the axis of 1 between them may be missing. */
  filter(name: string): readonly [number, number] {
    const shape = this.#found.get(name);
    if (shape && shape.length >= 2) return [shape[0]!, shape.at(-1)!];
    this.problems.push(`no ${name}`);
    return [0, 0];
  }
}

export function inferMamba1(shapes: Shapes, mixer: string) {
  const [d_inner, d_state] = shapes.need(`${mixer}.A_log`, 2) as [number, number];
  const [, dt_rank] = shapes.need(`${mixer}.dt_proj.weight`, 2) as [number, number];
  const [, d_conv] = shapes.filter(`${mixer}.conv1d.weight`);
  return {
    model_type: 'mamba1',
    d_inner,
    d_state,
    dt_rank,
    d_conv,
    bias: shapes.has(`${mixer}.in_proj.bias`),
    conv_bias: shapes.has(`${mixer}.conv1d.bias`),
  } as const;
}

/** Of the Mamba-2 models of the paper, which have one group. */
export const PUBLISHED_STATE = 128;

/**
 * Of ngroups and d_state shapes tell the product alone: `ngroups` null is taken to be 1 where the
 * other is PUBLISHED_STATE then.
 */
export function inferMamba2(shapes: Shapes, mixer: string, ngroups: number | null) {
  const [rows] = shapes.need(`${mixer}.in_proj.weight`, 2) as [number, number];
  const [, d_inner] = shapes.need(`${mixer}.out_proj.weight`, 2) as [number, number];
  const [heads] = shapes.need(`${mixer}.A_log`, 1) as [number];
  const [D] = shapes.need(`${mixer}.D`, 1) as [number];
  const [channels, d_conv] = shapes.filter(`${mixer}.conv1d.weight`);
  // rows = 2 (d_inner - d_ssm) + d_ssm + channels + heads
  const d_ssm = 2 * d_inner + channels + heads - rows;
  const product = (channels - d_ssm) / 2;
  const d_state = product / (ngroups ?? 1);
  const headdim = d_ssm / heads;
  const isSound = shapes.problems.length === 0;
  if (isSound && ![d_state, headdim].every((size) => Number.isInteger(size) && size > 0)) {
    shapes.problems.push(
      `${mixer} with ${heads} heads of ${d_ssm} channels and ngroups * d_state = ${product}, which does not go into ngroups ${ngroups ?? 1}`,
    );
  } else if (isSound && ngroups === null && d_state !== PUBLISHED_STATE) {
    shapes.problems.push(`ngroups * d_state = ${product}, whose factors no shape tells`);
  }
  return {
    model_type: 'mamba2',
    d_inner,
    d_ssm,
    headdim,
    ngroups: ngroups ?? 1,
    d_state,
    d_conv,
    D_has_hdim: D !== heads,
    rmsnorm: shapes.has(`${mixer}.norm.weight`),
    bias: shapes.has(`${mixer}.in_proj.bias`),
    conv_bias: shapes.has(`${mixer}.conv1d.bias`),
  } as const;
}

export function inferMamba3(shapes: Shapes, mixer: string) {
  const [rows] = shapes.need(`${mixer}.in_proj.weight`, 2) as [number, number];
  const [, d_inner] = shapes.need(`${mixer}.out_proj.weight`, 2) as [number, number];
  const [heads, rank, d_state] = shapes.need(`${mixer}.B_bias`, 3) as [number, number, number];
  // rows = 2 d_inner + 2 rank ngroups d_state + 3 heads + pairs, with pairs a quarter or a half of d_state
  const rest = rows - 2 * d_inner - 3 * heads;
  const ngroups = Math.floor(rest / (2 * rank * d_state));
  const pairs = rest - 2 * rank * ngroups * d_state;
  const rope_fraction = [0.5, 1].find((share) => Math.floor((d_state * share) / 2) === pairs);
  if (shapes.problems.length === 0 && (rope_fraction === undefined || ngroups < 1))
    shapes.problems.push(`${mixer}.in_proj.weight of ${rows} rows, which no Mamba-3 has`);
  return {
    model_type: 'mamba3',
    d_inner,
    headdim: d_inner / heads,
    d_state,
    ngroups,
    rope_fraction,
    is_mimo: shapes.has(`${mixer}.mimo_x`),
    mimo_rank: rank,
    is_outproj_norm: shapes.has(`${mixer}.norm.weight`),
  } as const;
}
