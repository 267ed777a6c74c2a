/** `mamba-ts info`: what runs where on this machine, and what a model folder holds. */
import { availableParallelism } from 'node:os';
import type { Command } from 'commander';
import { KERNELS } from '../../backend/index.ts';
import {
  currentDevice,
  type DeviceName,
  isaVariants,
  LanguageModel,
  type OpenOptions,
  openDevice,
  openPretrained,
  registeredDevices,
  State,
  useDevice,
  VERSION,
} from '../../index.node.ts';
import { type FetchOptions, fetching } from '../fetching.ts';
import { addCommonOptions, addFetchOptions, MODEL } from '../options.ts';
import { outputOf } from '../output.ts';

export function register(program: Command): void {
  const command = program
    .command('info')
    .description('Devices, instruction sets and kernels; with --model what the folder holds.');
  addFetchOptions(addCommonOptions(command).option('--model <model>', MODEL)).action(run);
}

async function run(
  options: FetchOptions & { model?: string; device?: DeviceName },
  command: Command,
): Promise<void> {
  const out = outputOf(command);
  const model =
    options.model === undefined ? null : await describeModel(options.model, fetching(out, options));
  if (options.device) await useDevice(options.device);
  const current = currentDevice();
  const devices = await Promise.all(registeredDevices().map(describeDevice));
  const report = {
    version: VERSION,
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    processors: availableParallelism(),
    instructionSets: instructionSets(),
    device: current.name,
    devices,
    model,
  };
  out.json(report);
  out.text(`mamba-ts ${VERSION}, Node ${report.node}, ${report.platform}, ${report.processors} processors\n`);
  out.text(`native instruction sets: ${report.instructionSets.join(', ') || 'none'}\n`);
  for (const { name, description, missingKernels, error } of devices) {
    const mark = name === report.device ? '*' : ' ';
    const missing = missingKernels?.length ? `; not there: ${missingKernels.join(', ')}` : '; all kernels';
    out.text(`${mark} ${name.padEnd(10)} ${error ?? `${description}${missing}`}\n`);
  }
  if (model) {
    out.text(`\n${model.path}\n`);
    for (const [field, value] of Object.entries({ ...model.config, ...model.classifier }))
      out.text(`  ${field.padEnd(26)} ${fieldText(value)}\n`);
    out.text(`${model.parameters} parameters, ${model.weightBytes} bytes in float32\n`);
    const { stateBytes, stateBytesPerToken } = model;
    const growth =
      stateBytesPerToken > 0 ? `and ${stateBytesPerToken} for every token` : 'for any number of tokens';
    out.text(`${stateBytes} bytes of state per sequence, ${growth}\n`);
    out.text(`tokenizer: ${model.tokenizer.join(', ') || 'none'}\n`);
    for (const note of model.notes) out.text(`note: ${note}\n`);
  }
}

function fieldText(value: unknown): string {
  if (Array.isArray(value)) return value.join(', ') || 'none';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

function instructionSets(): string[] {
  try {
    return isaVariants();
  } catch {
    return []; // no addon; describeDevice tells why
  }
}

/** Opens the device; the error is the answer when it does not. */
async function describeDevice(name: DeviceName) {
  try {
    const { description, kernels } = await openDevice(name);
    const missingKernels = Object.keys(KERNELS).filter((kernel) => !(kernel in kernels));
    return { name, isAvailable: true, description, missingKernels };
  } catch (error) {
    return { name, isAvailable: false, error: (error as Error).message };
  }
}

/** From configuration and headers; no weights are read. */
async function describeModel(idOrPath: string, options: OpenOptions) {
  const files = await openPretrained(idOrPath, options);
  try {
    const { config } = files;
    let parameters = 0;
    for (const shape of files.tensors.values()) parameters += shape.reduce((a, b) => a * b, 1);
    const stateBytes = (positions: number) => {
      const shapes = State.namedShapes(new LanguageModel(config, { seed: null }), [positions]);
      return [...shapes.values()].reduce((sum, shape) => sum + 4 * shape.reduce((a, b) => a * b, 1), 0);
    };
    const tokenizer = Object.keys(files.tokenizer);
    const notes = files.notes ?? [];
    return {
      path: files.path,
      config,
      classifier: files.head,
      parameters,
      weightBytes: 4 * parameters,
      stateBytes: stateBytes(0),
      /** Of attention layers, for every token of the document. */
      stateBytesPerToken: stateBytes(1) - stateBytes(0),
      tokenizer,
      notes,
    };
  } finally {
    await files.close();
  }
}
