/**
 * config.json of the type `mamba_ts`: models that no class of transformers computes. The whole
 * configuration stands under `mamba_ts.config` in the official names and is read strictly: nothing
 * more, nothing less, no default.
 */
import type { ModelConfig } from '../models/config.ts';
import { type ConfigJson, OWN_TYPE, type ReadConfig } from './config-reading.ts';
import { isObject, type Json, type JsonObject, tagFloats, untagFloats } from './json.ts';
import { Fields } from './json-fields.ts';

const PATH = `${OWN_TYPE}.config`;

export function readOwn(json: JsonObject): ReadConfig {
  const top = new Fields(json);
  const own = new Fields(top.object(OWN_TYPE), `${OWN_TYPE}.`);
  own.unknown(['config', 'classifier']);
  const input = untagFloats(own.object('config')) as JsonObject;
  return { input, problems: [...top.problems, ...own.problems] };
}

/** What `config`, which resolveConfig made of what was read, adds or changes: there must be nothing. */
export function ownDifferences(json: JsonObject, config: ModelConfig): string[] {
  const own = new Fields(json).object(OWN_TYPE);
  return differences(PATH, untagFloats(own.config!), config as unknown as Json);
}

function differences(path: string, given: Json, resolved: Json): string[] {
  if (!isObject(given) || !isObject(resolved))
    return JSON.stringify(tagFloats(given)) === JSON.stringify(tagFloats(resolved))
      ? []
      : [`${path} must be ${JSON.stringify(tagFloats(resolved))}, got ${JSON.stringify(tagFloats(given))}`];
  const keys = new Set([...Object.keys(resolved), ...Object.keys(given)]);
  return [...keys].flatMap((key) => {
    const at = `${path}.${key}`;
    if (!(key in given)) return [`${at} is missing`];
    return key in resolved ? differences(at, given[key]!, resolved[key]!) : [`${at} is not a known field`];
  });
}

export function writeOwn(config: ModelConfig): ConfigJson {
  return {
    fields: { architectures: [], model_type: OWN_TYPE },
    own: { config: tagFloats(config as unknown as Json) },
  };
}
