/** `mamba-ts` in Node: all of index.ts, the native device (opened by itself), models and corpora on disk. */
import { registerBackend, setDefaultDevice } from './backend/backend.ts';
import { nativeFactory } from './backend/native.ts';
import { wasmFileFactory } from './backend/wasm.node.ts';
import { openDefaultDevice } from './default-device.node.ts';

export {
  isaVariants,
  type NativeBackend,
  type NativeOptions,
  openNative,
  type PeakKind,
} from './backend/native.ts';
export { openWasmFile, type WasmFileOptions } from './backend/wasm.node.ts';
export {
  type BenchResult,
  type BenchRound,
  benchModel,
  benchRounds,
  type Measured,
  type RegimeResult,
} from './bench/bench.node.ts';
export type { ProductKind } from './bench/limits.ts';
export type { Machine } from './bench/machine.node.ts';
export type { BenchOptions, BenchSettings } from './bench/options.ts';
export { randomModel } from './bench/random-model.ts';
export { BUSY, benchText } from './bench/report.node.ts';
export type { Spread } from './bench/spread.ts';
export type { Work } from './bench/work.ts';
export {
  type ConvertOptions,
  convertModel,
  MODEL_FORMATS,
  type ModelFormat,
  type WriteGgufOptions,
  type WrittenModel,
  writeGguf,
} from './convert.node.ts';
export { onDeviceNotice, openDefaultDevice } from './default-device.node.ts';
export * from './index.ts';
export { type AdapterContent, openAdapter, saveAdapter } from './io/adapter.node.ts';
export { type Adapter, applyAdapter } from './io/adapter.ts';
export {
  type Checkpoint,
  type CheckpointContent,
  loadCheckpoint,
  type NamedTensor,
  saveCheckpoint,
} from './io/checkpoint.node.ts';
export type { ConfigOverrides } from './io/config-overrides.ts';
export { FileError, fileSource, makeFolder, readText, writeFileAtomic } from './io/file.ts';
export { DownloadError } from './io/http.node.ts';
export type { HubOptions, LoadEvent } from './io/hub.node.ts';
export { formatBytes } from './io/hub-choice.ts';
export type { LocateOptions } from './io/locate.node.ts';
export { type OpenOptions, openPretrained, openTensorFile, type Pretrained } from './io/pretrained.node.ts';
export { loadClassifier, modelKind, saveClassifier } from './load-classifier.node.ts';
export { type LoadModelOptions, loadModel, saveModel } from './load-model.node.ts';
export {
  type Comparison,
  type QuantizedModel,
  type QuantizeOptions,
  quantizeModel,
  type TextScore,
  type WeightSize,
} from './quantize.node.ts';
export { type CorpusOptions, type CorpusProgress, openCorpus } from './train/corpus.node.ts';
export { cacheFolder } from './train/corpus-cache.node.ts';
export { type CorpusFile, listCorpusFiles } from './train/corpus-files.node.ts';
export { type Enwik8, type Enwik8Options, openEnwik8 } from './train/enwik8.node.ts';
export {
  type ExamplesEvent,
  type OpenExamplesOptions,
  openExamples,
  type ReadExamplesOptions,
  readExamples,
} from './train/examples.node.ts';
export { type Imdb, type ImdbOptions, openImdb } from './train/imdb.node.ts';
export { lossChart, writeReport } from './train/report-file.node.ts';
export { METRICS_FILE } from './train/run.node.ts';
export {
  ADAPTER_FOLDER,
  type TrainClassifyOptions,
  type TrainClassifyResult,
  trainClassify,
} from './train/train-classify.node.ts';
export { type TrainLmOptions, type TrainLmResult, trainLm } from './train/train-lm.node.ts';

// After index.ts has run: these take the place of the browser's.
registerBackend(wasmFileFactory);
registerBackend(nativeFactory);
setDefaultDevice(openDefaultDevice);
