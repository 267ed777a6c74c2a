/**
 * Adapters in the format of PEFT (github.com/huggingface/peft): adapter_config.json, and tensors with names
 * such as `base_model.model.backbone.layers.0.mixer.in_proj.lora_A.weight`, beside those of the classifier's
 * head. What a classifier needs besides stands under `mamba_ts`, which PEFT passes over.
 */
import { ConfigError, FormatError, UnsupportedError } from '../base/errors.ts';
import { type Shape, sameShape, showShape, sizeOf } from '../base/shape.ts';
import type { ClassifierHead, LoraConfig } from '../models/classifier-config.ts';
import { addLora, loraLinears, loraParameters } from '../nn/lora.ts';
import type { Module } from '../nn/module.ts';
import { keep } from '../tensor/scope.ts';
import { Tensor } from '../tensor/tensor.ts';
import { headFromJson, headToJson } from './classifier-config.ts';
import { isObject, type Json, type JsonObject } from './json.ts';
import { Fields } from './json-fields.ts';
import { describeNonFinite, reportNonFinite } from './non-finite.ts';
import { listProblems } from './problems.ts';
import type { TensorFile } from './tensor-file.ts';

export const ADAPTER_CONFIG_FILE = 'adapter_config.json';
export const ADAPTER_WEIGHTS_FILE = 'adapter_model.safetensors';

/** What adapter_config.json says. */
export interface AdapterConfig {
  lora: LoraConfig;
  /** Null in an adapter that another program saved. Its `lora` is the one above. */
  head: ClassifierHead | null;
  /** The model it stands beside, as written there: a path or a hub id. */
  base: string | null;
  /** Of that model's weights, where the adapter was saved here; null otherwise. */
  fingerprint: string | null;
}

export interface Adapter extends AdapterConfig {
  /** For messages. */
  path: string;
  /**
   * By the paths of the parameters: `backbone.layers.0.mixer.in_proj.lora.A` (rank, in), `.lora.B` (out,
   * rank), `score.weight`.
   */
  tensors: ReadonlyMap<string, { shape: Shape; values: Float32Array }>;
}

const OWN_KEY = 'mamba_ts';
/** Of the weights that the adapter stands beside. */
const FINGERPRINT = 'base_fingerprint';
const PREFIX = 'base_model.model.';
const HEAD = 'score';
/** PEFT names both for every sequence classifier, whichever it has. */
const HEAD_MODULES = ['classifier', HEAD];
const TASKS: readonly Json[] = ['SEQ_CLS', 'CAUSAL_LM'];
/** Initial values that leave the weights beside the adapter as they are. */
const INITIAL_VALUES: readonly Json[] = [true, false, 'gaussian', 'orthogonal', 'eva'];
/** Fields that are read here, or that say nothing about what a trained adapter computes. */
const KNOWN_FIELDS = [
  'peft_type',
  'task_type',
  'r',
  'lora_alpha',
  'target_modules',
  'modules_to_save',
  'base_model_name_or_path',
  'bias',
  'init_lora_weights',
  OWN_KEY,
  'auto_mapping',
  'inference_mode',
  'lora_dropout',
  'megatron_core',
  'peft_version',
  'qalora_group_size',
  'revision',
];

/** PEFT's name of an adapter's or the head's parameter. */
export function toPeftName(path: string): string {
  return PREFIX + path.replace(/\.lora\.([AB])$/, '.lora_$1.weight');
}

/** The parameter's path; null for a name that is neither an adapter's of a linear layer nor the head's. */
export function fromPeftName(name: string): string | null {
  const path = name.startsWith(PREFIX) ? name.slice(PREFIX.length) : '';
  if (/.\.lora_[AB]\.weight$/.test(path)) return path.replace(/\.lora_([AB])\.weight$/, '.lora.$1');
  return path === `${HEAD}.weight` || path === `${HEAD}.bias` ? path : null;
}

/** The parameters of the head: `score.weight` (classes, features), `score.bias`. */
function headParameters(root: Module): [string, Tensor][] {
  return [...root.namedParameters()].filter(([path]) => path === `${HEAD}.weight` || path === `${HEAD}.bias`);
}

/** The parameters of `root` that an adapter's file holds: the adapters' and the head's. */
export function adapterParameters(root: Module): [string, Tensor][] {
  return [...loraParameters(root), ...headParameters(root)];
}

/** The adapter_config.json of a classifier's adapter. */
export function adapterConfigToJson(
  lora: LoraConfig,
  head: ClassifierHead,
  base: string,
  fingerprint: string | null = null,
): JsonObject {
  const { fields, own } = headToJson({ ...head, lora: null });
  return {
    peft_type: 'LORA',
    task_type: 'SEQ_CLS',
    base_model_name_or_path: base,
    r: lora.rank,
    lora_alpha: lora.alpha,
    target_modules: [...lora.targets],
    modules_to_save: [HEAD],
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    lora_dropout: 0,
    use_dora: false,
    use_rslora: false,
    [OWN_KEY]: { ...fields, ...own, ...(fingerprint !== null && { [FINGERPRINT]: fingerprint }) },
  };
}

/**
 * Reads a parsed adapter_config.json; `name` is the file for messages. Throws UnsupportedError that lists
 * what makes it other than plain LoRA on linear layers, ConfigError that lists what is missing or wrong.
 */
export function adapterConfigFromJson(json: JsonObject, name = ADAPTER_CONFIG_FILE): AdapterConfig {
  refuseVariants(json, name);
  const fields = new Fields(json);
  const { problems } = fields;
  const lora = {
    rank: fields.required('r', 'number') ?? 0,
    alpha: fields.required('lora_alpha', 'number') ?? 0,
    targets: fields.texts('target_modules'),
  };
  const base = fields.optional('base_model_name_or_path', 'string') ?? null;
  if (fields.has('r') && !(Number.isSafeInteger(lora.rank) && lora.rank > 0))
    problems.push(`r must be a positive integer, got ${JSON.stringify(json.r)}`);
  if (fields.has('lora_alpha') && !(lora.alpha > 0 && Number.isFinite(lora.alpha)))
    problems.push(`lora_alpha must be a number above 0, got ${JSON.stringify(json.lora_alpha)}`);
  const own = fields.object(OWN_KEY);
  const read = fields.has(OWN_KEY) ? headFromJson(own, own) : { head: null, problems: [] };
  problems.push(...read.problems.map((problem) => `${OWN_KEY}: ${problem}`));
  if (problems.length > 0) {
    throw new ConfigError(
      `openAdapter: expected a complete and consistent ${name}, got: ${listProblems(problems)}. Correct these fields.`,
    );
  }
  const fingerprint = typeof own[FINGERPRINT] === 'string' ? own[FINGERPRINT] : null;
  return { lora, head: read.head && { ...read.head, lora }, base, fingerprint };
}

function refuseVariants(json: JsonObject, name: string): void {
  const found: string[] = [];
  const refuse = (key: string): number => found.push(`${key} ${JSON.stringify(json[key])}`);
  if (json.peft_type !== 'LORA') refuse('peft_type');
  if (!isEmpty(json.task_type) && !TASKS.includes(json.task_type!)) refuse('task_type');
  if (!isEmpty(json.bias) && json.bias !== 'none') refuse('bias');
  if (!isEmpty(json.init_lora_weights) && !INITIAL_VALUES.includes(json.init_lora_weights!))
    refuse('init_lora_weights');
  const { target_modules: targets, modules_to_save: saved } = json;
  // A pattern or a path: which layers it means depends on the model.
  if (typeof targets === 'string' || (Array.isArray(targets) && targets.some((t) => `${t}`.includes('.'))))
    refuse('target_modules');
  const isHead =
    Array.isArray(saved) && saved.every((module) => HEAD_MODULES.some((known) => known === module));
  if (!isEmpty(saved) && !isHead) refuse('modules_to_save');
  for (const key of Object.keys(json)) if (!KNOWN_FIELDS.includes(key) && !isEmpty(json[key])) refuse(key);
  if (found.length === 0) return;
  throw new UnsupportedError(
    `openAdapter: expected plain LoRA on linear layers in ${name}, got ${listProblems(found)}. ` +
      'Merge the adapter with the program that trained it and load the model.',
  );
}

/** PEFT writes every field it knows; an option that is not used is null, false or empty. */
function isEmpty(value: Json | undefined): boolean {
  if (Array.isArray(value)) return value.length === 0;
  return isObject(value)
    ? Object.keys(value).length === 0
    : value === undefined || value === null || value === false;
}

/**
 * Reads all tensors. Throws UnsupportedError for those of other adapters, FormatError for incomplete,
 * misshapen or non-finite ones.
 */
export async function readAdapter(config: AdapterConfig, file: TensorFile): Promise<Adapter> {
  const named = [...file.tensors].map(([name, { shape }]) => ({ name, shape, path: fromPeftName(name) }));
  const other = named.filter(({ path }) => path === null).map(({ name }) => name);
  if (other.length > 0) {
    throw new UnsupportedError(
      `openAdapter: expected lora_A, lora_B and ${HEAD} in ${file.name}, got ${listProblems(other)}. ` +
        'Merge the adapter with the program that trained it and load the model.',
    );
  }
  const shapes = new Map(named.map(({ path, shape }) => [path!, shape]));
  const problems = [...shapes].flatMap(([path, shape]) =>
    shapeProblems(path, shape, shapes, config.lora.rank),
  );
  if (shapes.size === 0) problems.push('no tensors');
  if (problems.length === 0) {
    const tensors = new Map<string, { shape: Shape; values: Float32Array }>();
    for (const { name, shape, path } of named) {
      const values = await file.readAsF32(name);
      const report = reportNonFinite(name, values);
      if (report) problems.push(describeNonFinite([report]));
      tensors.set(path!, { shape, values });
    }
    if (problems.length === 0) return { ...config, path: file.name, tensors };
  }
  throw new FormatError(
    `openAdapter: expected finite pairs lora_A (${config.lora.rank}, in) and lora_B (out, ${config.lora.rank}) in ${file.name}, got ${listProblems(problems)}. Do ${ADAPTER_CONFIG_FILE} and the weights belong together?`,
  );
}

function shapeProblems(path: string, shape: Shape, all: ReadonlyMap<string, Shape>, rank: number): string[] {
  const side = /\.lora\.([AB])$/.exec(path)?.[1];
  if (side === undefined) return [];
  const problems: string[] = [];
  const partner = path.slice(0, -1) + (side === 'A' ? 'B' : 'A');
  if (!all.has(partner)) problems.push(`${toPeftName(path)} without ${toPeftName(partner)}`);
  if (shape.length !== 2 || shape[side === 'A' ? 0 : 1] !== rank)
    problems.push(`${toPeftName(path)} ${showShape(shape)}`);
  return problems;
}

/**
 * Puts the adapter beside the weights of `root` and its head in place; the adapters collect gradients as
 * those of addLora do. A head without bias, as transformers has it, gets one of zeros. Throws ConfigError for
 * targets that `root` has not, FormatError that lists tensors that do not fit; then nothing has changed.
 */
export function applyAdapter(root: Module, adapter: Adapter): void {
  const { lora, tensors, path: file } = adapter;
  const expected = new Map<string, Shape>();
  for (const [path, { weight }] of loraLinears(root, lora.targets)) {
    expected.set(`${path}.lora.A`, [lora.rank, weight.shape[1]!]);
    expected.set(`${path}.lora.B`, [weight.shape[0]!, lora.rank]);
  }
  if (adapter.head || tensors.has(`${HEAD}.weight`))
    for (const [path, { shape }] of headParameters(root)) expected.set(path, shape);
  const problems: string[] = [];
  for (const [path, shape] of expected) {
    const got = tensors.get(path)?.shape;
    if (!got && path !== `${HEAD}.bias`) problems.push(`${path} ${showShape(shape)} is missing`);
    if (got && !sameShape(got, shape)) problems.push(`${path} is ${showShape(got)}, not ${showShape(shape)}`);
  }
  for (const path of tensors.keys()) if (!expected.has(path)) problems.push(`${path} is unknown`);
  if (problems.length > 0) {
    throw new FormatError(
      `applyAdapter: expected the ${expected.size} tensors of this model in ${file}, got ${problems.length} differences: ${listProblems(problems)}. Was the adapter trained for this model?`,
    );
  }
  addLora(root, lora, { rng: null, samples: [] });
  for (const [path, tensor] of adapterParameters(root)) {
    const shape = expected.get(path);
    if (shape) fill(root, path, tensor, tensors.get(path)?.values ?? new Float32Array(sizeOf(shape)));
  }
}

/** Values that were trained in float32 stay so, in a model with narrow weights too. */
function fill(root: Module, path: string, tensor: Tensor, values: Float32Array): void {
  if (tensor.dtype === 'f32') tensor.write(values);
  else root.replaceParameter(path, keep(Tensor.from(values, tensor.shape, { device: tensor.device })));
}
