/** The commands on a model of every architecture: train, info, eval, generate, logits, embed, chat; states through files. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createReference, memorySource, useDevice } from '../../src/index.node.ts';
import { openSafetensors } from '../../src/io/index.ts';
import { toyText } from '../train/toy.ts';
import { cli } from './cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'mamba-ts-architectures-'));
const at = (name: string) => join(folder, name);
beforeAll(async () => {
  process.env.MAMBA_CACHE = at('cache');
  await useDevice(createReference());
  writeFileSync(at('toy.txt'), toyText);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function run(...argv: string[]): Promise<string> {
  const { code, stdout, stderr } = await cli(argv);
  expect(stderr).not.toContain('error');
  expect(code).toBe(0);
  return stdout;
}

async function logits(path: string): Promise<Float32Array> {
  const file = await openSafetensors(memorySource(readFileSync(path), path));
  return file.readAsF32('logits');
}

const MODELS: [name: string, flags: string, told: string, settings: object][] = [
  [
    'mamba2',
    '--arch mamba2 --headdim 4 --ngroups 2 --d-conv 2 --d-intermediate 8',
    'mamba2, ',
    { arch: 'mamba2', headdim: 4, ngroups: 2, d_conv: 2, d_intermediate: 8 },
  ],
  [
    'mamba3',
    '--arch mamba3 --mimo-rank 2 --rope-fraction 1',
    'mamba3, MIMO of rank 2, ',
    { arch: 'mamba3', mimo_rank: 2, rope_fraction: 1 },
  ],
  [
    'hybrid',
    '--arch mamba2 --attn-layers 1 --attn-heads 2 --attn-kv-heads 1 --attn-rotary 2 --attn-conv 3',
    'mamba2, attention in layer 1, ',
    { attnLayers: [1], attnHeads: 2, attnKvHeads: 1, attnRotary: 2, attnConv: 3 },
  ],
];

describe.each(MODELS)('%s', (name, flags, told, settings) => {
  const model = ['--model', at(name)];
  beforeAll(async () => {
    const shape = `--d-model 8 --layers 2 --d-state 4 --batch 2 --length 16 --steps 2 --json ${flags}`;
    const { stdout, stderr } = await cli([
      ...['train', 'lm', '--data', at('toy.txt'), '--out', at(name)],
      ...shape.split(' '),
    ]);
    expect(stderr).toContain(told);
    expect(JSON.parse(stdout).settings).toMatchObject(settings);
  });

  it('resumes, and refuses another shape', async () => {
    const resume = ['train', 'lm', '--out', at(name), '--resume', '--steps', '3'];
    expect(JSON.parse(await run(...resume, '--json'))).toMatchObject({ step: 3, settings });
    const other = await cli([...resume, '--arch', 'mamba1']);
    expect(other).toMatchObject({ code: 1 });
    expect(other.stderr).toContain('got "mamba1"');
  });

  it('info tells configuration and state', async () => {
    const text = await run('info', ...model);
    expect(text).toMatch(/model_type +mamba[23]\n/);
    expect(text).toMatch(
      name === 'hybrid'
        ? /bytes of state per sequence, and 32 for every token/
        : /bytes of state per sequence, for any number of tokens/,
    );
    expect(text).not.toContain('[object');
  });

  it('logits of a whole are those of its parts, through a state in a file', async () => {
    const state = at(`${name}.state`);
    await run('logits', ...model, '--ids', '1,2,3,4,5', '--out', at('whole'));
    await run('logits', ...model, '--ids', '1,2', '--out', at('first'), '--state-out', state);
    await run('logits', ...model, '--ids', '3,4,5', '--out', at('second'), '--state-in', state);
    const whole = await logits(at('whole'));
    const parts = [...(await logits(at('first'))), ...(await logits(at('second')))];
    expect(Math.max(...parts.map((x, i) => Math.abs(x - whole[i]!)))).toBeLessThan(1e-6);
  });

  it('generate goes on from a saved state', async () => {
    const greedy = ['generate', ...model, '--temperature', '0', '--max-tokens', '6'];
    const [first, second] = [at(`${name}.1`), at(`${name}.2`)];
    await run(...greedy, '--prompt', '1 whales', '--state-out', first);
    expect(await run(...greedy, '--prompt', ' and', '--state-in', first, '--state-out', second)).not.toBe('');
    const grown = statSync(second).size - statSync(first).size;
    if (name === 'hybrid') expect(grown).toBeGreaterThan(0);
    else expect(Math.abs(grown)).toBeLessThan(8); // the count of tokens has a digit more
  });

  it('eval, embed and chat', async () => {
    const inWindows = JSON.parse(await run('eval', ...model, '--data', at('toy.txt'), '--json'));
    const asStream = JSON.parse(await run('eval', ...model, '--data', at('toy.txt'), '--json', '--stream'));
    expect(asStream.tokens).toBe(inWindows.tokens);
    expect(Math.abs(asStream.loss - inWindows.loss)).toBeLessThan(0.1);
    expect(JSON.parse(await run('embed', ...model, '--text', 'a whale', '--json')).shape).toEqual([1, 8]);
    const chat = await cli(['chat', ...model, '--chat-template', 'chatml', '--max-tokens', '4'], {
      stdin: ['hello\n', 'again\n'],
    });
    expect(chat.code).toBe(0);
  });
});
