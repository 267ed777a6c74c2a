/** The shape of a tokenizer: what models, data readers and generators need to know of one. */
export interface Tokenizer {
  /** `bytes`: the 256 byte values are the ids; `json`: a Hugging Face tokenizer.json. */
  readonly kind: 'bytes' | 'json';
  readonly vocabSize: number;
  /** The end-of-text id, if there is one. */
  readonly eosId: number | null;
  /** Special tokens as text by role, as chat templates want them: bos_token, eos_token, pad_token, ... */
  readonly specialTokens: Readonly<Record<string, string>>;
  encode(text: string, options?: EncodeOptions): number[];
  decode(ids: readonly number[]): string;
  /**
   * Decodes token by token; never returns half a character. `isContinuation` (default false): the tokens go
   * on behind others, so a space in front of the first one is part of the text. Vocabularies in the manner of
   * Llama otherwise take it for the one that `encode` adds.
   */
  streamDecoder(options?: { isContinuation?: boolean }): StreamDecoder;
  /** The files that belong beside a checkpoint, by name (e.g. `tokenizer.json`). */
  toFiles(): Record<string, string>;
}

export interface EncodeOptions {
  /**
   * Adds what the tokenizer's own rules put around a text, e.g. a begin-of-text id. Default false: corpora
   * and chat templates bring their own. Names of special tokens inside the text become ids in any case.
   */
  addSpecialTokens?: boolean;
  /**
   * The text goes on in the middle of another. Default false. Vocabularies in the manner of Llama otherwise
   * put a space in front of the first word; all others give the same ids with and without.
   */
  isContinuation?: boolean;
}

export interface StreamDecoder {
  /** The text that became complete with this token; may be empty. */
  push(id: number): string;
  /** What is left, incomplete characters as U+FFFD. */
  flush(): string;
}
