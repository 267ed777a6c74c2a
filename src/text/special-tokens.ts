/**
 * The special tokens by role, from what stands beside a tokenizer.json:
 * tokenizer_config.json, special_tokens_map.json and the model's own eos_token_id. Tokens are
 * named as text or as an object with `content`.
 */

import { ConfigError } from '../base/errors.ts';
import type { JsonObject } from './library-json.ts';

/**
 * Member names such as `bos_token`; others (add_bos_token, additional_special_tokens) are no single token.
 */
const ROLE = /^(bos|eos|unk|sep|pad|cls|mask)_token$/;
/** What ends a text where no file says. */
const USUAL_EOS = ['<|endoftext|>', '</s>'];

/** `config` with the roles it lacks taken from a special_tokens_map.json. */
export function withSpecialTokensMap(config: JsonObject, map: JsonObject): JsonObject {
  const roles = Object.entries(map).filter(([role]) => ROLE.test(role) && contentOf(config[role]) === null);
  return roles.length > 0 ? { ...config, ...Object.fromEntries(roles) } : config;
}

/** The tokens a tokenizer_config.json names, as text by role. */
export function namedTokens(config: JsonObject): Record<string, string> {
  const named: Record<string, string> = {};
  for (const [role, token] of Object.entries(config)) {
    const content = ROLE.test(role) ? contentOf(token) : null;
    if (content !== null) named[role] = content;
  }
  return named;
}

/**
 * The end-of-text id: the token that the files name, else the model's id, else a usual name among the
 * special tokens, else null. A named token that the vocabulary lacks falls back to the model's id;
 * without one it is a ConfigError.
 */
export function findEos(
  idOf: (token: string) => number | undefined,
  isSpecial: (token: string) => boolean,
  named: string | undefined,
  ofModel: number | null,
): number | null {
  const id = named === undefined ? undefined : idOf(named);
  if (id !== undefined) return id;
  if (ofModel !== null) return ofModel;
  if (named !== undefined) {
    throw new ConfigError(
      `tokenizer: expected the eos_token ${JSON.stringify(named)} in the vocabulary, got none. ` +
        'tokenizer.json and tokenizer_config.json do not belong together.',
    );
  }
  const usual = USUAL_EOS.find(isSpecial);
  return usual === undefined ? null : idOf(usual)!;
}

function contentOf(token: unknown): string | null {
  if (typeof token === 'string') return token;
  const content = (token as { content?: unknown } | null | undefined)?.content;
  return typeof content === 'string' ? content : null;
}
