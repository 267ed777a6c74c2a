/** The shape of a tokenizer: what models, data readers and generators need to know of one. */
export interface Tokenizer {
  /** `bytes`: the 256 byte values are the ids; `json`: a Hugging Face tokenizer.json. */
  readonly kind: 'bytes' | 'json';
  readonly vocabSize: number;
  /** The end-of-text id, if there is one. */
  readonly eosId: number | null;
  encode(text: string): number[];
  decode(ids: readonly number[]): string;
  /** Decodes token by token; never returns half a character. */
  streamDecoder(): StreamDecoder;
  /** The files that belong beside a checkpoint, by name (e.g. `tokenizer.json`). */
  toFiles(): Record<string, string>;
}

export interface StreamDecoder {
  /** The text that became complete with this token; may be empty. */
  push(id: number): string;
  /** What is left, incomplete characters as U+FFFD. */
  flush(): string;
}
