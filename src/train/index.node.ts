/** The part of training that needs files: corpora, resumable runs, the report. Everything of index.ts beside it. */
export { type CorpusOptions, type CorpusProgress, openCorpus } from './corpus.node.ts';
export * from './index.ts';
export { lossChart, writeReport } from './report-file.node.ts';
export {
  METRICS_FILE,
  type TrainLmOptions,
  type TrainLmResult,
  trainLm,
} from './train-lm.node.ts';
