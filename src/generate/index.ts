/** Generation: samplers, the token engine for batches, text streaming, embeddings. */
export { type BatchOptions, type BatchPart, generateBatch, type Prompt } from './batch.ts';
export {
  CHAT_DEFAULTS,
  type ChatOptions,
  type ChatPart,
  type ChatSessionOptions,
  type ChatTurnOptions,
  chat,
} from './chat.ts';
export { ChatSession, type ChatStats } from './chat-session.ts';
export { type Completion, complete, completions } from './complete.ts';
export { cosineSimilarity, type EmbedOptions, embed, type Pooling } from './embed.ts';
export {
  type FinishReason,
  generateTokens,
  type RowToken,
  type TokenOptions,
  type TokenStep,
} from './engine.ts';
export type { TokenLogprob } from './logprobs.ts';
export { greedy, resolveSampler, type Sampler, type SamplerOptions, sample } from './sampler.ts';
export { type GeneratedPart, type GenerateOptions, generate } from './stream.ts';
