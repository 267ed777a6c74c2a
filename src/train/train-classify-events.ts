/** What a classification run tells while it goes on. */
import type { ClassifierConfig } from '../models/classifier-config.ts';
import type { TrainEvent } from './loop.ts';
import type { StepMetrics } from './metrics.ts';
import type { ClassifyFigures, ClassifyScores } from './task-classify.ts';
import type { ClassifySettings } from './train-classify-options.ts';

export type TrainClassifyEvent =
  | TrainEvent<ClassifyFigures, ClassifyScores>
  | { kind: 'download'; doneBytes: number; totalBytes: number | null }
  /** Examples read so far. */
  | { kind: 'read'; examples: number }
  | { kind: 'notice'; message: string }
  /** Answering held-out texts. */
  | { kind: 'evaluation'; doneTexts: number; totalTexts: number }
  /** The baselines are being computed. */
  | { kind: 'baselines' }
  /** Everything is open; training starts now. */
  | {
      kind: 'begin';
      settings: ClassifySettings;
      config: ClassifierConfig;
      parameterCount: number;
      /** Parameters that are trained. */
      trainedCount: number;
      device: string;
      /** Texts of each part. */
      texts: { train: number; valid: number; test: number };
      /** Training texts that are longer than maxTokens. */
      cutTexts: number;
      stepsPerEpoch: number;
      /** In all; null when `minutes` decide. */
      steps: number | null;
      /** Steps done before; 0 for a new run. */
      step: number;
      /** Those of the steps before. */
      metrics: StepMetrics<ClassifyFigures, ClassifyScores>[];
    };
