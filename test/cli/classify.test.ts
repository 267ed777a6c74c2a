/** `train classify`, `eval` and `predict` of a classifier: usage errors, a whole run, resuming, what is printed. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createReference, saveModel, useDevice } from '../../src/index.node.ts';
import { toyJsonLines } from '../train/labelled-toy.ts';
import { toyModel } from '../train/toy.ts';
import { cli } from './cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'mamba-ts-classify-'));
const at = (name: string) => join(folder, name);
const SMALL = '--device reference --d-model 8 --layers 1 --d-state 4 --tokenizer bytes --batch 8'.split(' ');
const classify = (out: string, ...more: string[]) => ['train', 'classify', '--out', at(out), ...more];
const fresh = (out: string, ...more: string[]) =>
  classify(out, '--data', at('train.jsonl'), '--test', at('test.jsonl'), ...SMALL, ...more);

beforeAll(async () => {
  writeFileSync(at('train.jsonl'), toyJsonLines(24));
  writeFileSync(at('test.jsonl'), toyJsonLines(9, 5));
  writeFileSync(at('odd.csv'), 'review,kind\nthe old whale,sea\nwheat,sky\n');
  writeFileSync(at('texts.csv'), 'id,review\n1,the old whale\n2," "\n');
  await useDevice(createReference());
  const lm = toyModel();
  await saveModel(lm, at('lm'));
  lm.dispose();
  const { code, stderr } = await cli(fresh('model', '--epochs', '2', '--max-tokens', '24'));
  expect(stderr).toContain('2 classes (land, sea); 21 texts to learn from, 3 held out, 9 for the test');
  expect(code).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('usage errors', () => {
  it.each<[string, string[], string]>([
    ['epochs and steps', ['--epochs', '1', '--steps', '3'], 'cannot be used with'],
    ['epochs and minutes', ['--epochs', '1', '--minutes', '3'], 'cannot be used with'],
    ['resume and force', ['--resume', '--force'], 'cannot be used with'],
    ['an unknown pooling', ['--pooling', 'sum'], 'Allowed choices are last, mean, max'],
    ['an unknown preset', ['--preset', 'huge'], 'Allowed choices are text-small'],
    ['an unknown tuning', ['--tune', 'some'], 'Allowed choices are full, frozen, lora'],
    ['an unknown architecture', ['--arch', 'rwkv'], 'Allowed choices are mamba1'],
    ['unknown class weights', ['--class-weights', 'x'], 'Allowed choices are equal, balanced'],
    ['too much dropout', ['--dropout', '2'], 'expected a number in [0, 1]'],
    ['tokens that are no number', ['--max-tokens', 'all'], 'expected an integer'],
    ['an unknown flag', ['--text-field', 'x'], 'unknown option'],
    ['a shape beside a base', ['--from', at('lm')], '--d-model cannot be used with --from'],
    ['adapters that are not asked for', ['--lora-rank', '2'], '--lora-rank needs --tune lora'],
  ])('train classify: %s', async (_, more, message) => {
    const { code, stderr } = await cli(fresh('usage', ...more));
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });

  it('no --data', async () => {
    expect(await cli(classify('usage'))).toMatchObject({ code: 2 });
  });

  it('adapters need something that they stand beside', async () => {
    const { code, stderr } = await cli(fresh('usage', '--tune', 'lora'));
    expect(stderr).toContain('from to name a pretrained model for tune lora');
    expect(code).toBe(1);
  });

  it.each<[string, string[], string]>([
    ['nothing to read', [], 'expected texts, --data, or text on stdin'],
    ['texts twice', ['a text', '--data', 'x.csv'], 'expected one of'],
    ['whole and texts', ['a text', '--whole'], 'expected one of'],
    ['whole and data', ['--whole', '--data', 'x.csv'], 'cannot be used with'],
    ['columns of nothing', ['a text', '--text'], 'argument missing'],
    ['two forms of JSON', ['a text', '--json', '--jsonl'], 'cannot be used with'],
  ])('predict: %s', async (_, more, message) => {
    const { code, stderr } = await cli(['predict', '--model', at('model'), ...more]);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });
});

describe('train classify', () => {
  it('leaves reports and a model, and prints scores beside the baselines', async () => {
    const { code, stdout, stderr } = await cli(fresh('run', '--epochs', '1'));
    expect(code).toBe(0);
    expect(stderr).toMatch(
      /epoch 1\/1 {2}training loss \d\.\d{4} {2}evaluation loss \d\.\d{4} {2}evaluation accuracy \d\.\d{4} {2}macro-F1 \d\.\d{4} {2}best so far\n/,
    );
    expect(stdout).toMatch(/test, 9 texts +accuracy/);
    for (const name of ['this model', 'naive Bayes', 'logistic regression', 'true \\ predicted'])
      expect(stdout).toContain(name);
    expect(stdout).toMatch(/On this data|ahead of the best baseline/);
    expect(readFileSync(at('run/report.html'), 'utf8')).toContain('Which words decided');
    const report = JSON.parse(readFileSync(at('run/report.json'), 'utf8'));
    expect(report).toMatchObject({ labels: ['land', 'sea'], part: 'test', step: 3 });
    expect(report.examples.length + report.errors.length).toBeGreaterThan(0);
  });

  it('--json prints one document; baselines may be left out', async () => {
    const { stdout } = await cli(fresh('json', '--epochs', '1', '--json', '--no-baselines'));
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({
      out: at('json'),
      report: at('json/report.html'),
      stopped: 'finished',
      step: 3,
      keptStep: 3,
      labels: ['land', 'sea'],
      test: { examples: 9 },
      validation: { examples: 3 },
      baselines: [],
      verdict: [],
      settings: { d_model: 8, maxTokens: 1024, lowercase: true, textFields: ['text'] },
    });
    expect(result.history).toHaveLength(1);
    expect(result.errors).toBeUndefined();
  });

  it('flags become settings', async () => {
    const flags =
      '--steps 1 --json --no-baselines --no-lowercase --max-tokens none --pooling max --bidirectional ' +
      '--class-weights balanced --label-smoothing 0.1 --token-dropout 0.2 --patience 2 --valid-share 0.3 --save-every 7';
    const { settings } = JSON.parse((await cli(fresh('flags', ...flags.split(' ')))).stdout);
    expect(settings).toMatchObject({
      steps: 1,
      epochs: null,
      lowercase: false,
      maxTokens: null,
      pooling: 'max',
      bidirectional: true,
      classWeights: 'balanced',
      labelSmoothing: 0.1,
      tokenDropout: 0.2,
      patience: 2,
      validShare: 0.3,
      saveEvery: 7,
    });
  });

  it('refuses to overwrite; interrupted, says how to go on; resumes', async () => {
    const signal = AbortSignal.abort(); // before the first step
    const stopped = await cli(fresh('stopped', '--epochs', '1', '--no-baselines'), { signal });
    expect(stopped.stdout).toContain(
      `interrupted; go on with: mamba-ts train classify --out ${at('stopped')} --resume`,
    );
    expect((await cli(fresh('stopped'))).stderr).toContain('--resume');
    expect((await cli(classify('stopped', '--resume', '--pooling', 'max'))).stderr).toContain(
      'pooling "mean-max", got "max"',
    );
    const rest = await cli(classify('stopped', '--resume', '--json', '--device', 'reference'));
    expect(JSON.parse(rest.stdout)).toMatchObject({ stopped: 'finished', step: 3 });
  });
});

describe('eval of a classifier', () => {
  const evaluate = (...more: string[]) => cli(['eval', '--model', at('model'), ...more]);

  it('prints scores, classes, confusion and errors', async () => {
    const { code, stdout } = await evaluate('--data', at('test.jsonl'), '--errors', '3');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^accuracy +\d\.\d{4} {2}\(95 % interval \d\.\d{4} to \d\.\d{4}\)\n/);
    expect(stdout).toMatch(/\nland +3 /);
    expect(stdout).toMatch(/test\.jsonl:\d+\n/);
    expect(stdout).toContain('9 texts of');
  });

  it('gives what training gave for the same texts', async () => {
    const { stdout } = await evaluate('--data', at('test.jsonl'), '--json', '--batch', '2');
    const { test } = JSON.parse(readFileSync(at('model/report.json'), 'utf8'));
    expect(JSON.parse(stdout)).toMatchObject({ ...test, labels: ['land', 'sea'] });
    expect(JSON.parse(stdout)).not.toHaveProperty('errors');
  });

  it('names labels that the classifier does not have, by place', async () => {
    const { code, stderr } = await evaluate('--data', at('odd.csv'), '--text', 'review', '--label', 'kind');
    expect(stderr).toContain(`"sky" (${at('odd.csv')}:3)`);
    expect(code).toBe(1);
  });

  it.each([['--window', '64'], ['--stream'], ['--text-field', 'x']])('refuses %s', async (...flags) => {
    const { code, stderr } = await evaluate('--data', at('test.jsonl'), ...flags);
    expect(stderr).toContain(`${flags[0]} is for a language model`);
    expect(code).toBe(2);
  });

  it('a language model refuses what belongs to classifiers', async () => {
    const model = at('lm');
    const { code, stderr } = await cli(['eval', '--model', model, '--data', 'x', '--label', 'kind']);
    expect(stderr).toContain('--label is for a classifier');
    expect(code).toBe(2);
  });
});

describe('predict', () => {
  const predict = (more: string[], stdin?: (string | Uint8Array)[]) =>
    cli(['predict', '--model', at('model'), ...more], { stdin: stdin ?? null });

  it('a line per text, from arguments, stdin and files', async () => {
    const line = /^(land|sea ) {2}\d\.\d{4} {2}the old whale$/;
    expect((await predict(['the old whale'])).stdout.trimEnd()).toMatch(line);
    const piped = await predict([], ['the old ', 'whale\n\n', 'wheat\r\nbarn']);
    expect(piped.stdout.trimEnd().split('\n')).toHaveLength(3);
    expect(piped.stdout.split('\n')[0]).toMatch(line);
    writeFileSync(at('one.csv'), 'review\nthe old whale\n');
    const { stdout } = await predict(['--data', at('one.csv'), '--text', 'review', '--top', '2']);
    expect(stdout).toMatch(/^(land|sea ) {2}\d\.\d{4} {2}(land|sea ) {2}\d\.\d{4} {2}.*one\.csv:2\n$/);
  });

  it('--json and --jsonl give all probabilities and the place', async () => {
    const { stdout } = await predict(['--json', 'the old whale', 'wheat']);
    const { predictions } = JSON.parse(stdout);
    expect(predictions).toHaveLength(2);
    expect(predictions[0]).toMatchObject({ where: null, text: 'the old whale' });
    expect(predictions[0].scores.land + predictions[0].scores.sea).toBeCloseTo(1, 12);
    const lines = (await predict(['--jsonl', '--batch', '1'], ['\nwheat\nthe old whale\n'])).stdout;
    const records = lines
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(records.map(({ where }) => where)).toEqual(['stdin:2', 'stdin:3']);
    expect(records[1].scores).toEqual(predictions[0].scores);
  });

  it('--whole reads stdin as one text, and says when it was cut', async () => {
    const pieces = ['the old ', 'whale\nand wheat'];
    const { stdout } = await predict(['--whole', '--json'], pieces);
    const whole = JSON.parse(stdout);
    const one = JSON.parse((await predict(['--json', pieces.join('')])).stdout);
    expect(whole).toMatchObject({ tokens: 23, isFull: false, scores: one.predictions[0].scores });
    const long = await predict(['--whole'], ['wheat '.repeat(10)]);
    expect(long.stdout).toContain('24 tokens');
    expect(long.stderr).toContain('--max-tokens none');
    const all = await predict(['--whole', '--max-tokens', 'none'], ['wheat '.repeat(10)]);
    expect(all.stdout).toContain('60 tokens');
    expect(all.stderr).toBe('');
    const line = JSON.parse((await predict(['--whole', '--jsonl'], pieces)).stdout);
    expect(line).toMatchObject({ where: 'stdin', tokens: 23, isFull: false, scores: whole.scores });
    const none = await predict(['--whole'], [' \n']);
    expect(none).toMatchObject({ code: 1, stdout: '' });
    expect(none.stderr).toContain('stdin: expected some text, got none.');
  });

  it('names the line of stdin that is not UTF-8', async () => {
    const bytes = Buffer.from('wheat\nsch\u00f6n\ngr\u00fcn\n');
    const wheat = Buffer.from('wheat\n');
    const bad = Buffer.from('a\nb \xe9t\xe9\n', 'latin1');
    for (const cut of [1, 9, 10, 11]) {
      const input = [wheat, bytes.subarray(0, cut), bytes.subarray(cut), bad];
      const { code, stderr } = await predict(['--max-tokens', '8'], input);
      expect(stderr).toContain('stdin:6: expected UTF-8');
      expect(code).toBe(1);
    }
    const open = await predict(['--whole'], [wheat, Buffer.from([0xe2, 0x82])]);
    expect(open.stderr).toContain('stdin:2: expected UTF-8');
  });

  it('--explain names the words that decided', async () => {
    const { stdout } = await predict(['--explain', 'the old whale']);
    const [, words = ''] = stdout.split('\n');
    expect(
      words
        .trim()
        .split('  ')
        .map((word) => word.split(' ')[0])
        .sort(),
    ).toEqual(['old', 'the', 'whale']);
    expect(words).toMatch(/[+-]?\d+\.\d\d/);
    const { predictions } = JSON.parse((await predict(['--explain', '--json', 'the old whale'])).stdout);
    const { tokens } = predictions[0];
    expect(tokens.map((token: { text: string }) => token.text).join('')).toBe('the old whale');
  });

  it('names empty texts and labels of control characters stay harmless', async () => {
    expect((await predict(['wheat', ' '])).stderr).toContain('at index 1');
    expect((await predict(['--data', at('texts.csv'), '--text', 'review'])).stderr).toContain('texts.csv:3');
    expect((await predict([], ['\n \n'])).stderr).toContain('stdin: expected at least one line');
    const { stdout } = await predict(['wheat \u001b[31mred']);
    expect(stdout).not.toContain('\u001b');
  });

  it('refuses a language model', async () => {
    const model = at('lm');
    const { code, stderr } = await cli(['predict', '--model', model, 'a text']);
    expect(stderr).toContain('expected a classifier, got a language model');
    expect(code).toBe(1);
  });
});
