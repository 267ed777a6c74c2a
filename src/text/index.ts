/** Text and tokens: byte and Hugging Face tokenizers, streaming decoding, BPE training. Runs anywhere. */
export type { EncodeOptions, StreamDecoder, Tokenizer } from '../base/tokenizer.ts';
export { byteTokenizer } from './bytes.ts';
export {
  CHAT_TEMPLATES,
  type ChatMessage,
  type ChatTemplate,
  chatTemplate,
  type RenderOptions,
  templateFromFiles,
} from './chat-template.ts';
export type { JsonObject } from './library-json.ts';
export {
  type JsonTokenizer,
  type TokenizerOptions,
  tokenizerFromFiles,
  tokenizerFromJson,
} from './tokenizer.ts';
export { type TrainBpeOptions, type TrainedBpe, trainBpe } from './train-bpe.ts';
export { type TrainedWords, type TrainWordsOptions, trainWords } from './train-words.ts';
