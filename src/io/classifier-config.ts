/**
 * What makes config.json that of a classifier: labels as Hugging Face writes them (id2label, label2id,
 * num_labels), the rest under `mamba_ts.classifier`. Whoever reads such a file as a language model would
 * compute something else, so its model_type is ours.
 */
import {
  type ClassifierHead,
  headProblems,
  type LoraConfig,
  type Pooling,
} from '../models/classifier-config.ts';
import type { ModelConfig } from '../models/config.ts';
import { linearNames } from './expected-tensors.ts';
import type { JsonObject } from './json.ts';
import { Fields } from './json-fields.ts';

const ARCHITECTURE = 'MambaForSequenceClassification';
const SEQUENCE_CLASSIFIER = /ForSequenceClassification$/;
const OWN_KEY = 'classifier';
/** The fields of a classifier's config.json, and its block under `mamba_ts`. */
export function headToJson(head: ClassifierHead): { fields: JsonObject; own: JsonObject } {
  const { labels, pooling, bidirectional, maxTokens, lora } = head;
  return {
    fields: {
      architectures: [ARCHITECTURE],
      num_labels: labels.length,
      id2label: Object.fromEntries(labels.map((label, id) => [String(id), label])),
      label2id: Object.fromEntries(labels.map((label, id) => [label, id])),
    },
    own: { [OWN_KEY]: { pooling, bidirectional, max_tokens: maxTokens, lora: lora && { ...lora } } },
  };
}

/**
 * The head that a config.json describes, and all that is wrong with it; null for a language model.
 * `own`: its block `mamba_ts`.
 */
export function headFromJson(
  json: JsonObject,
  own: JsonObject,
): { head: ClassifierHead | null; problems: string[] } {
  const { architectures } = json;
  const isNamed =
    Array.isArray(architectures) && architectures.some((name) => SEQUENCE_CLASSIFIER.test(`${name}`));
  const parent = new Fields(own, 'mamba_ts.');
  if (!parent.has(OWN_KEY)) {
    const problem = `mamba_ts.${OWN_KEY} is missing, which says how ${JSON.stringify(architectures)} pools what it read`;
    return { head: null, problems: isNamed ? [problem] : [] };
  }
  const top = new Fields(json);
  const fields = new Fields(parent.object(OWN_KEY), `mamba_ts.${OWN_KEY}.`);
  const loraFields = new Fields(fields.object('lora'), `mamba_ts.${OWN_KEY}.lora.`);
  fields.unknown(['pooling', 'bidirectional', 'max_tokens', 'lora']);
  const head = {
    labels: readLabels(top),
    pooling: fields.required('pooling', 'string') as Pooling,
    bidirectional: fields.required('bidirectional', 'boolean') as boolean,
    maxTokens: fields.optional('max_tokens', 'number') ?? null,
    lora: fields.has('lora') ? readLora(loraFields) : null,
  };
  const problems = [parent, top, fields, loraFields].flatMap((part) => part.problems);
  if (problems.length === 0)
    problems.push(...headProblems(head).map((problem) => `classifier: expected ${problem}`));
  return { head: problems.length === 0 ? head : null, problems };
}

/** id2label numbers the classes from 0; label2id and num_labels agree with it. */
function readLabels(fields: Fields): string[] {
  const { problems } = fields;
  for (const key of ['id2label', 'label2id']) if (!fields.has(key)) problems.push(`${key} is missing`);
  const names = new Map(Object.entries(fields.object('id2label')));
  const ids = new Map(Object.entries(fields.object('label2id')));
  const count = fields.optional('num_labels', 'number');
  if (problems.length > 0) return [];
  if (count !== undefined && count !== names.size)
    problems.push(`num_labels ${count} contradicts the ${names.size} of id2label`);
  const labels: string[] = [];
  for (let id = 0; id < names.size; id++) {
    const label = names.get(`${id}`);
    const what = JSON.stringify(label);
    if (label === undefined) {
      problems.push(`id2label must number its ${names.size} labels from 0, got none with ${id}`);
      return [];
    }
    if (typeof label !== 'string') problems.push(`id2label.${id} must be a string, got ${what}`);
    else if (ids.get(label) !== id)
      problems.push(
        `id2label.${id} is ${what}, label2id gives it ${JSON.stringify(ids.get(label)) ?? 'nothing'}`,
      );
    else labels.push(label);
  }
  const known = new Set(names.values());
  for (const label of ids.keys())
    if (!known.has(label)) problems.push(`label2id has ${JSON.stringify(label)}, id2label has not`);
  return labels;
}

function readLora(fields: Fields): LoraConfig {
  fields.unknown(['rank', 'alpha', 'targets']);
  const rank = fields.required('rank', 'number') ?? 0;
  const alpha = fields.required('alpha', 'number') ?? 0;
  return { rank, alpha, targets: fields.texts('targets') };
}

/** Targets of adapters that the backbone does not have. */
export function loraProblems(head: ClassifierHead | null, config: ModelConfig): string[] {
  if (!head?.lora) return [];
  const known = linearNames(config);
  const unknown = head.lora.targets.filter((target) => !known.includes(target));
  return unknown.map(
    (target) => `mamba_ts.${OWN_KEY}.lora.targets must be among ${known.join(', ')}, got ${target}`,
  );
}
