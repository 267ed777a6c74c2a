/**
 * What the layers of a stack have in common: a mixer reads tokens from a state and
 * hands on the state after them.
 */
import type { Module } from '../nn/module.ts';
import type { Tensor } from '../tensor/tensor.ts';

/**
 * The state of one layer by name: conv and ssm of Mamba-1 and -2, angle, ssm, k and v of
 * Mamba-3, k, v and conv of attention.
 */
export type LayerState = Readonly<Record<string, Tensor>>;

/**
 * Shapes of one row of a layer's state. The axis `positions` grows: one entry for each
 * token of the current document.
 */
export type LayerShapes = Readonly<Record<string, readonly (number | 'positions')[]>>;

/** How the tokens of a batch belong together; see LanguageModel.forward. */
export interface SequenceContext {
  /** i32 (b, l). */
  sequenceIds?: Tensor | null;
  /** i32 (b). */
  lengths?: Tensor | null;
  /**
   * Tokens of each row's current document that were read before: what attention
   * looks back on. Zeros when omitted.
   */
  positions?: readonly number[] | null;
}

export interface Mixer extends Module {
  /** Of one row. */
  readonly stateShapes: LayerShapes;
  /**
   * u (b, l, d), any l >= 0, from any state (null = before any token) -> y (b, l, d) and
   * the state after the last token.
   */
  forward(u: Tensor, state: LayerState | null, context?: SequenceContext): { y: Tensor; state: LayerState };
}
