/** Text and tokens: byte and Hugging Face tokenizers, streaming decoding, BPE training. Runs anywhere. */
export type { EncodeOptions, StreamDecoder, Tokenizer } from '../base/tokenizer.ts';
export { byteTokenizer } from './bytes.ts';
export { type JsonObject, type JsonTokenizer, tokenizerFromFiles, tokenizerFromJson } from './tokenizer.ts';
export { type TrainBpeOptions, type TrainedBpe, trainBpe } from './train-bpe.ts';
