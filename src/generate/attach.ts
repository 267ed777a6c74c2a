/** Attaches generate() to LanguageModel as a method. The one place that extends its prototype; models/ knows nothing of generation. */
import { LanguageModel } from '../models/language-model.ts';
import { type GeneratedPart, type GenerateOptions, generate } from './stream.ts';

declare module '../models/language-model.ts' {
  interface LanguageModel {
    /** Streams a completion; see generate() in generate/stream.ts. */
    generate(
      prompt: string | readonly number[],
      options?: GenerateOptions,
    ): AsyncGenerator<GeneratedPart, void, undefined>;
  }
}

Object.defineProperty(LanguageModel.prototype, 'generate', {
  value(this: LanguageModel, prompt: string | readonly number[], options?: GenerateOptions) {
    return generate(this, prompt, options);
  },
  writable: true,
  configurable: true,
});
