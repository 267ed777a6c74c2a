/**
 * `mamba-ts/train`: optimizer, schedules, data, the training loop, evaluation,
 * reports. Importable in a browser.
 */
export { AdamW, type AdamWOptions, decays } from './adamw.ts';
export { type BaselineOptions, type BaselineResult, type BaselineText, runBaselines } from './baselines.ts';
export {
  type Batch,
  type BatchOptions,
  type BatchPosition,
  type BatchStream,
  contiguousStreams,
  IGNORE_INDEX,
  randomWindows,
} from './data-batches.ts';
export {
  ATTENTION_CONTEXT,
  carriedTokens,
  evaluationStream,
  evaluationWindows,
  targetTextBytes,
} from './data-evaluation.ts';
export { batchesPerEpoch, type LabelledText, labelledBatches } from './data-labelled.ts';
export { packedWindows } from './data-packed.ts';
export { type PagedTokensOptions, pagedTokens } from './data-paged.ts';
export {
  checkVocabulary,
  type MemoryTokensOptions,
  memoryTokens,
  sliceTokens,
  splitTokens,
  type TokenData,
} from './data-tokens.ts';
export { type EvaluateOptions, type Evaluation, evaluate } from './evaluate.ts';
export { type Answers, evaluateClassifier } from './evaluate-classifier.ts';
export {
  checkLabels,
  type Example,
  type ExampleParts,
  inferLabels,
  missingLabels,
  sortLabels,
  splitExamples,
} from './examples.ts';
export { type ExcerptedText, type ExplainedText, excerpt } from './explained-text.ts';
export {
  type Budget,
  DivergenceError,
  type LoopPosition,
  startPosition,
  type TrainEvent,
  type TrainOptions,
  type TrainResult,
  train,
} from './loop.ts';
export { formatMetrics, type LmFigures, type LmScores, parseMetrics, type StepMetrics } from './metrics.ts';
export { PRESETS, type Preset } from './model-presets.ts';
export {
  formatCount,
  formatDuration,
  formatLoss,
  type LiveLine,
  liveLine,
  type Progress,
  type ProgressOptions,
  type ProgressStream,
  progressLine,
} from './progress.ts';
export {
  type Chart,
  type ChartLine,
  curves,
  type ReportAssets,
  type ReportData,
  type ReportSection,
  renderReport,
} from './report.ts';
export { type Content, type Html, html } from './report-html.ts';
export { RUN_DEFAULTS, type RunSettings, TRAIN_PRECISIONS } from './run-settings.ts';
export {
  makeSchedule,
  rateAtProgress,
  rateAtStep,
  SCHEDULES,
  type Schedule,
  type ScheduleKind,
  shapeAt,
} from './schedule.ts';
export { type ClassScore, type ClassScores, scoreClasses } from './scores.ts';
export {
  accuracyInterval,
  columnsOf,
  confusionText,
  type ScoredModel,
  scoresTable,
  textTable,
  verdict,
} from './scores-text.ts';
export { SHAPE_DEFAULTS, type ShapeSettings, shapeInput } from './shape-settings.ts';
export { type Loss, type StepOptions, type StepOutcome, trainStep } from './step.ts';
export type { Figures, LossOptions, Task } from './task.ts';
export {
  type ClassifyFigures,
  type ClassifyScores,
  type ClassifyTask,
  type ClassifyTaskOptions,
  classification,
} from './task-classify.ts';
export { type LmTask, languageModelling } from './task-lm.ts';
export type { TrainClassifyEvent } from './train-classify-events.ts';
export {
  CLASS_WEIGHTS,
  CLASSIFY_DEFAULTS,
  CLASSIFY_PRESETS,
  type ClassifyPreset,
  type ClassifySettings,
  TUNINGS,
  type Tuning,
} from './train-classify-options.ts';
export { trainClassifyProgress } from './train-classify-progress.ts';
export {
  type ClassifyRunSummary,
  classifyReport,
  classifyReportJson,
} from './train-classify-report.ts';
export {
  confidentErrors,
  type FinishedClassification,
  type SummaryOptions,
  summarizeClassification,
  visible,
} from './train-classify-summary.ts';
export type { TrainLmEvent } from './train-lm-events.ts';
export { type LmSettings, modelInput, SAMPLINGS } from './train-lm-options.ts';
export { trainLmProgress } from './train-lm-progress.ts';
export { type LmRunSummary, lmReport, type WrittenSample } from './train-lm-report.ts';
