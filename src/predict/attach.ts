/**
 * Attaches predict(), open() and explain() to Classifier as methods. The one place that extends its
 * prototype; models/ knows nothing of texts.
 */
import { Classifier } from '../models/classifier.ts';
import { type ExplainOptions, type Explanation, explain } from './explain.ts';
import { type PredictOptions, predict } from './predict.ts';
import { type OpenOptions, TextReader } from './reader.ts';
import type { Prediction } from './reading.ts';

declare module '../models/classifier.ts' {
  interface Classifier {
    /** A prediction per text; see predict() in predict/predict.ts. */
    predict(texts: readonly string[], options?: PredictOptions): Promise<Prediction[]>;
    /** A text that is classified while it arrives; see TextReader in predict/reader.ts. */
    open(options?: OpenOptions): TextReader;
    /** Which tokens decided; see explain() in predict/explain.ts. */
    explain(texts: readonly string[], options?: ExplainOptions): Promise<Explanation[]>;
  }
}

const methods: Pick<Classifier, 'predict' | 'open' | 'explain'> & ThisType<Classifier> = {
  predict(texts, options) {
    return predict(this, texts, options);
  },
  open(options) {
    return new TextReader(this, options);
  },
  explain(texts, options) {
    return explain(this, texts, options);
  },
};

for (const [name, value] of Object.entries(methods)) {
  Object.defineProperty(Classifier.prototype, name, { value, writable: true, configurable: true });
}
