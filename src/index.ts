/**
 * `mamba-ts` where there is no Node: tensors, modules, models, text, generation, and the wasm
 * and reference devices. Call `await useDevice('wasm')` before making tensors. index.node.ts
 * adds files and the native device.
 */
// These give Tensor, LanguageModel and Classifier their methods; bundlers keep them because
// package.json lists them under sideEffects.
import './generate/attach.ts';
import './predict/attach.ts';
import './tensor/fluent.ts';
import { registerBackend } from './backend/backend.ts';
import { referenceFactory } from './backend/reference/index.ts';
import { wasmFactory } from './backend/wasm.ts';

export {
  type Backend,
  currentDevice,
  type DeviceName,
  type MemoryStats,
  openDevice,
  registerBackend,
  registeredDevices,
  useDevice,
  withDevice,
} from './backend/backend.ts';
export { createReference } from './backend/reference/index.ts';
export { openWasm } from './backend/wasm.ts';
export type { DType, HostArray, NarrowDType, TypedArray } from './base/dtype.ts';
export {
  ConfigError,
  DTypeError,
  FormatError,
  MambaError,
  ShapeError,
  StateError,
  UnsupportedError,
} from './base/errors.ts';
export { Rng } from './base/rng.ts';
export type { Shape } from './base/shape.ts';
export { type ByteSource, memorySource } from './base/source.ts';
export type { WeightDType } from './base/weight-types.ts';
export * from './generate/index.ts';
export { Classifier, type ClassifyOptions, type Direction } from './models/classifier.ts';
export {
  type ClassifierConfig,
  type ClassifierHead,
  type LoraConfig,
  POOLINGS,
  type Pooling as ClassifierPooling,
} from './models/classifier-config.ts';
export {
  A_ACTIVATIONS,
  type AActivation,
  ARCHITECTURES,
  type Architecture,
  type ModelConfig,
  type ModelConfigInput,
  paddedVocabSize,
  resolveConfig,
} from './models/config.ts';
export type { AttentionMask, Ids, InputOptions } from './models/inputs.ts';
export {
  type EncodeResult,
  type ForwardOptions,
  type ForwardResult,
  LanguageModel,
} from './models/language-model.ts';
export type { LayerShapes, LayerState } from './models/mixer.ts';
export { State, type StateModel } from './models/state.ts';
export * from './nn/index.ts';
export * from './ops/index.ts';
export * from './predict/index.ts';
export { currentPrecision, PRECISIONS, type Precision, withPrecision } from './tensor/precision.ts';
export * from './tensor/primitives.ts';
export { keep, scope, TENSORS, type TensorOwner } from './tensor/scope.ts';
export { backward, backwardFrom, gradEnabled, noGrad, recompute } from './tensor/tape.ts';
export { Tensor, type TensorOptions } from './tensor/tensor.ts';
export * from './text/index.ts';
export { VERSION } from './version.ts';

registerBackend(wasmFactory);
registerBackend(referenceFactory);
