/** Generation: samplers, the token engine for batches, text streaming. */
export {
  type FinishReason,
  generateTokens,
  type RowToken,
  type TokenOptions,
  type TokenStep,
} from './engine.ts';
export { greedy, resolveSampler, type Sampler, type SamplerOptions, sample } from './sampler.ts';
export { type GeneratedPart, type GenerateOptions, generate } from './stream.ts';
