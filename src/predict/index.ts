/** What a classifier says: of whole texts, of texts that arrive piece by piece, and why. */
export { type ExplainedToken, type ExplainOptions, type Explanation, explain } from './explain.ts';
export { type PredictOptions, predict, predictIds } from './predict.ts';
export { type OpenOptions, TextReader } from './reader.ts';
export type { Prediction } from './reading.ts';
