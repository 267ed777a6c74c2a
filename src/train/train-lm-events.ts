/** What a language-model run tells while it goes on. */
import type { ModelConfig } from '../models/config.ts';
import type { TrainEvent } from './loop.ts';
import type { LmSettings } from './train-lm-options.ts';

export type TrainLmEvent =
  | TrainEvent
  /** Hashing, encoding or checking the text, in `openCorpus`. */
  | { kind: 'data'; progress: { phase: string; doneBytes: number; totalBytes: number } }
  | { kind: 'download'; doneBytes: number; totalBytes: number | null }
  | { kind: 'evaluation'; doneTokens: number; totalTokens: number }
  /** Everything is open; training starts now. */
  | {
      kind: 'begin';
      settings: LmSettings;
      config: ModelConfig;
      parameterCount: number;
      device: string;
      trainTokens: number;
      validTokens: number;
      /** Steps done before; 0 for a new run. */
      step: number;
    };
