/**
 * `mamba-ts/ops`: the fused operations. Each has a twin composed from primitives, named
 * `...Ref`, that it is tested against.
 */
export { type AttentionOptions, attention, attentionRef } from './attention.ts';
export {
  type CausalConvOptions,
  type CausalConvResult,
  causalConv1d,
  causalConv1dRef,
  splitCausalConv1d,
} from './causal-conv.ts';
export { crossEntropy, IGNORE_INDEX, tokenLosses, tokenLossesRef } from './cross-entropy.ts';
export {
  type GatedNormOptions,
  gatedRmsNorm,
  gatedRmsNormRef,
  siluGate,
  siluGateRef,
} from './gated-norm.ts';
export { type AppendedKeys, appendKeys, type DocumentOptions, rotaryAngles } from './key-cache.ts';
export { linear, splitLinear, splitLinearRef } from './linear.ts';
export {
  layerNorm,
  type NormOptions,
  type NormResult,
  normRef,
  rmsNorm,
} from './norm.ts';
export {
  type AngleScanOptions,
  type AngleScanResult,
  angleScan,
  angleScanRef,
  type RotateOptions,
  rotate,
  rotateRef,
} from './rotation.ts';
export {
  type SelectiveScanOptions,
  type SelectiveScanResult,
  selectiveScan,
  selectiveScanRef,
  selectiveStateUpdate,
} from './selective-scan.ts';
export { type SsdOptions, ssd, ssdRef } from './ssd.ts';
export { type LastToken, type SsdCoreOptions, type SsdResult, ssdCore, ssdCoreRef } from './ssd-core.ts';
export {
  lastToken,
  type TrapezoidOptions,
  type TrapezoidResult,
  type TrapezoidState,
  trapezoid,
  trapezoidRef,
} from './trapezoid.ts';
export {
  type HeadParameters,
  type KeysAndQueries,
  type TurnHeadsOptions,
  turnHeads,
  turnHeadsRef,
} from './turn-heads.ts';
