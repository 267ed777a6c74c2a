/**
 * Public surface of `mamba-ts/io`: formats over byte sources, importable in a
 * browser. Files are in the Node entry.
 */
export { type ByteSource, memorySource } from '../base/source.ts';
export {
  type Adapter,
  type AdapterConfig,
  adapterConfigFromJson,
  adapterConfigToJson,
  applyAdapter,
  fromPeftName,
  readAdapter,
  toPeftName,
} from './adapter.ts';
export {
  configFromJson,
  type HuggingFaceOptions,
  type ModelDescription,
  modelFromJson,
  toHuggingFaceConfig,
} from './config-json.ts';
export { toOriginalConfig } from './config-original.ts';
export { expectedTensors } from './expected-tensors.ts';
export { type GgufFile, openGguf } from './gguf.ts';
export type { GgufValue } from './gguf-cursor.ts';
export type { GgufHeader, GgufTensor } from './gguf-header.ts';
export { type GgufModel, openGgufModel } from './gguf-model.ts';
export {
  formatJson,
  type Json,
  type JsonObject,
  type ParseJsonOptions,
  parseJson,
  parseJsonObject,
} from './json.ts';
export { describeNonFinite, type NonFinite, reportNonFinite } from './non-finite.ts';
export { checkTensors, normaliseName, normaliseNames } from './pretrained.ts';
export { openSafetensors } from './safetensors.ts';
export { encodeSafetensors, safetensorsChunks, type TensorEntry } from './safetensors-write.ts';
export { openSharded } from './shards.ts';
export type { StoredArray, StoredDType, TensorFile, TensorInfo } from './tensor-file.ts';
export { openTorchBin } from './torch-bin.ts';
export type { StoredWeight, WeightPiece } from './weight-pieces.ts';
export { openWeights } from './weights.ts';
