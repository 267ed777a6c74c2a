/**
 * A text that is classified while it arrives: through the state, with memory that does not grow with its
 * length. Two directions keep the ids, 4 bytes per token, because the second begins at the end.
 */
import { ConfigError, StateError } from '../base/errors.ts';
import { turn } from '../base/turn.ts';
import type { Classifier } from '../models/classifier.ts';
import { PieceEncoder } from '../text/piece-encoder.ts';
import { hasText, SLICE, tokenizerOf } from './encode.ts';
import { IdList } from './id-list.ts';
import { PIECE, type Prediction, predictionOf, probabilitiesOf, Reading } from './reading.ts';

export interface OpenOptions {
  /**
   * The text is cut to this many tokens, special tokens included; null: never. Default:
   * as the classifier was trained.
   */
  maxTokens?: number | null;
}

/**
 * Made by classifier.open(). Calls may overlap: each waits for those before it. The answer has the bits that
 * predict() gives for the text so far, however it was cut into pieces.
 */
export class TextReader {
  readonly #classifier: Classifier;
  readonly #encoder: PieceEncoder;
  readonly #forward: Reading;
  /** Certain ids that make no whole piece yet. */
  readonly #rest: number[] = [];
  /** All certain ids, for the second direction. */
  readonly #all: IdList | null;
  #count = 0;
  #hasText = false;
  #before: Promise<unknown> = Promise.resolve();
  #running = 0;
  #isDisposed = false;

  constructor(classifier: Classifier, options: OpenOptions = {}) {
    const { maxTokens = classifier.config.maxTokens } = options;
    this.#classifier = classifier;
    this.#encoder = new PieceEncoder(tokenizerOf('open', classifier), { maxTokens });
    this.#forward = new Reading(classifier, 'forward');
    this.#all = classifier.backbone_reverse ? new IdList() : null;
  }

  /** Tokens of the text so far, special tokens included: the last word may have others when it goes on. */
  get tokens(): number {
    return this.#count + this.#encoder.end().length;
  }

  /** Whether the text has maxTokens tokens: what comes now changes nothing. */
  get isFull(): boolean {
    return this.#encoder.isFull;
  }

  /** The next characters, which may end within a word or a character. */
  async push(piece: string): Promise<void> {
    if (typeof piece !== 'string') {
      throw new ConfigError(`push: expected a piece of text, got ${typeof piece}. Pass a string.`);
    }
    return this.#inTurn('push', async () => {
      for (let at = 0; at < piece.length && !this.#encoder.isFull; at += SLICE) {
        const part = piece.slice(at, at + SLICE);
        this.#hasText ||= hasText(part);
        const ids = this.#encoder.push(part);
        this.#count += ids.length;
        this.#all?.push(ids);
        for (const id of ids) this.#rest.push(id);
        await readPieces(this.#forward, this.#rest);
      }
    });
  }

  /**
   * What the classifier says of the text so far. The text can go on behind it as if nothing had been asked.
   * One direction reads the last few thousand characters for it, two the whole text from its end. Throws
   * StateError before there is anything to read.
   */
  async answer(): Promise<Prediction> {
    return this.#inTurn('answer', async () => {
      const end = this.#encoder.end();
      if (!this.#hasText || this.#count + end.length === 0) {
        throw new StateError('answer: expected some text, got none so far. Push a piece with words first.');
      }
      const features = [await this.#forwardTo(end)];
      if (this.#all) features.push(await this.#reverseFrom(end, this.#all));
      const probabilities = await probabilitiesOf(this.#classifier, features);
      return predictionOf(this.#classifier.config.labels, probabilities);
    });
  }

  /** Frees the state, when the calls that are under way have ended. The reader cannot be used any more. */
  dispose(): void {
    this.#isDisposed = true;
    if (this.#running === 0) this.#forward.dispose();
  }

  async #forwardTo(end: readonly number[]): Promise<Float32Array> {
    const reading = this.#forward.fork();
    try {
      const ids = [...this.#rest, ...end];
      await readPieces(reading, ids);
      if (ids.length > 0) await reading.read([Int32Array.from(ids)]);
      return reading.features(0);
    } finally {
      reading.dispose();
    }
  }

  async #reverseFrom(end: readonly number[], all: IdList): Promise<Float32Array> {
    const reading = new Reading(this.#classifier, 'reverse');
    try {
      let piece: number[] = [];
      const flush = async (): Promise<void> => {
        await turn();
        await reading.read([Int32Array.from(piece)]);
        piece = [];
      };
      for (const id of fromEnd(end, all)) {
        if (piece.push(id) === PIECE) await flush();
      }
      if (piece.length > 0) await flush();
      return reading.features(0);
    } finally {
      reading.dispose();
    }
  }

  /** Runs behind the calls before it. */
  #inTurn<T>(op: string, run: () => Promise<T>): Promise<T> {
    if (this.#isDisposed) {
      throw new StateError(`${op}: expected a reader in use, got one that was disposed. Open another.`);
    }
    this.#running++;
    const result = this.#before.then(run).finally(() => {
      this.#running--;
      if (this.#isDisposed && this.#running === 0) this.#forward.dispose();
    });
    this.#before = result.catch(() => {}); // its own caller hears of it
    return result;
  }
}

/** Reads whole pieces, each of which leaves the list when it is read. */
async function readPieces(reading: Reading, ids: number[]): Promise<void> {
  while (ids.length >= PIECE) {
    await turn();
    await reading.read([Int32Array.from(ids.slice(0, PIECE))]);
    ids.splice(0, PIECE);
  }
}

function* fromEnd(end: readonly number[], all: IdList): Generator<number> {
  for (let i = end.length - 1; i >= 0; i--) yield end[i]!;
  yield* all.fromEnd();
}
