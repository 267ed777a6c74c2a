/** The command as a whole: through pipes, on a terminal, and as a process that can be killed. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { run } from '../../src/cli/main.ts';
import { byteTokenizer, ChatSession, LanguageModel, loadModel, saveModel } from '../../src/index.node.ts';
import { bundle } from '../support/bundle.ts';
import { FakeTerminal } from './chat-screen.ts';
import { cli } from './cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'mamba-ts-chat-'));
const at = (name: string) => join(folder, name);
const modelFolder = at('model');
const TEMPLATE =
  "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|end|>{% endfor %}" +
  '{% if add_generation_prompt %}assistant: {% endif %}';

beforeAll(async () => {
  vi.stubEnv('MAMBA_CACHE', at('cache'));
  const model = new LanguageModel({ vocab_size: 256, d_model: 16, n_layer: 2, d_state: 4 }, { seed: 5 });
  model.tokenizer = byteTokenizer();
  await saveModel(model, at('plain'));
  model.chatTemplate = TEMPLATE;
  await saveModel(model, modelFolder);
  model.dispose();
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

const base = ['chat', '--model', modelFolder];
const SHORT = ['--max-tokens', '12', '--seed', '3'];
const short = [...base, ...SHORT];

/** What the library says to these messages, one after the other. */
async function answers(messages: readonly string[], seed = 3): Promise<string[]> {
  const model = await loadModel(modelFolder);
  const session = model.startChat({ maxTokens: 12, seed });
  const result: string[] = [];
  for (const message of messages) {
    for await (const part of session.send(message)) if (part.message) result.push(part.message.content);
  }
  session.dispose();
  model.dispose();
  return result;
}

describe('through a pipe', () => {
  it('every line is a message, and stdout holds the answers', async () => {
    const bytes = new TextEncoder().encode('hé\r\n\n  \n/help\nlast');
    const { code, stdout, stderr } = await cli(short, { stdin: [bytes.slice(0, 2), bytes.slice(2)] });
    const expected = await answers(['hé', '/help', 'last']);
    expect(stdout).toBe(expected.map((answer) => answer.replace(/\n?$/, '\n')).join(''));
    expect(stderr).toBe('');
    expect(code).toBe(0);
  });

  it('--prompt answers once, in the same way', async () => {
    const [expected] = await answers(['one\ntwo']);
    const { stdout } = await cli([...short, '--prompt', 'one\ntwo']);
    expect(stdout.trimEnd()).toBe(expected!.trimEnd());
  });

  it('--json is one document at the end', async () => {
    const argv = [...short, '--json', '--system', 'Be brief.', '--session', at('json.session')];
    const { code, stdout } = await cli(argv, { stdin: ['a\nb\n'] });
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    const roles = report.messages.map(({ role }: { role: string }) => role);
    expect(roles).toEqual(['system', 'user', 'assistant', 'user', 'assistant']);
    expect(report.messages[0].content).toBe('Be brief.');
    expect(report.session).toBe(at('json.session'));
    const model = await loadModel(modelFolder);
    expect(report.stateBytes).toBe(model.initialState().sizeBytes);
    expect(report.turns).toHaveLength(2);
    for (const turn of report.turns) {
      expect(turn).toMatchObject({ tokens: 12, finishReason: 'length' });
      expect(turn.tokensPerSecond).toBeCloseTo(12 / turn.seconds, 6);
    }
    expect(report.turns[0].readTokens).toBe('system: Be brief.<|end|>user: a<|end|>assistant: '.length);
    // An answer that was cut off has no end yet: it is read with the next message.
    expect(report.turns[1].readTokens).toBeLessThan(report.turns[0].readTokens);
  });

  it('--session goes on as if the program had never ended', async () => {
    const expected = await answers(['a', 'b', 'c']);
    const argv = [...short, '--session', at('two.session')];
    const first = await cli(argv, { stdin: ['a\n'] });
    // The seed and the limit are those of the file.
    const second = await cli([...base, '--session', at('two.session')], { stdin: ['b\n', 'c\n'] });
    expect(first.stdout + second.stdout).toBe(expected.map((text) => text.replace(/\n?$/, '\n')).join(''));
    const { messages } = ChatSession.fromBytes(readFileSync(at('two.session')), await loadModel(modelFolder));
    expect(messages).toHaveLength(6);
    const third = await cli([
      ...base,
      '--session',
      at('two.session'),
      '--system',
      'New.',
      '--max-tokens',
      '1',
      '--json',
      '--prompt',
      'd',
    ]);
    const report = JSON.parse(third.stdout);
    expect(report.messages[0]).toEqual({ role: 'system', content: 'New.' });
    expect(report.messages).toHaveLength(9);
    expect(report.turns[0].tokens).toBe(1);
  });

  it('takes a template by name or from a file', async () => {
    const plain = ['chat', '--model', at('plain'), ...SHORT, '--prompt', 'a'];
    writeFileSync(at('own.jinja'), TEMPLATE);
    const own = await cli([...plain, '--chat-template', at('own.jinja')]);
    expect(own.stdout).toBe((await cli([...short, '--prompt', 'a'])).stdout);
    const chatml = await cli([...plain, '--chat-template', 'chatml', '--json']);
    const length = '<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n'.length;
    expect(JSON.parse(chatml.stdout).turns[0].readTokens).toBe(length);
  });

  it('--session brings its template, for a model that has none', async () => {
    const plain = ['chat', '--model', at('plain'), ...SHORT, '--session', at('plain.session')];
    await cli([...plain, '--chat-template', 'zephyr', '--prompt', 'a']);
    const { code, stdout, stderr } = await cli([...plain, '--json', '--prompt', 'b']);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(JSON.parse(stdout).messages).toHaveLength(4);
  });

  it.each<[string, string[], string]>([
    ['a model without a template', ['--model', 'plain'], 'expected a chat template'],
    ['a template that is nowhere', ['--chat-template', 'nowhere'], 'expected --chat-template zephyr, chatml'],
    [
      'another template than before',
      ['--session', 'two.session', '--chat-template', 'zephyr'],
      'was begun with',
    ],
    ['a session that is none', ['--session', 'own.jinja'], 'expected the bytes of a saved chat session'],
    ['a conversation too long', ['--max-length', '5'], 'maxLength 5'],
  ])('%s: exit code 1 and what to do', async (_, options, message) => {
    const paths = options.map((word, i) =>
      /^--(model|session)$/.test(options[i - 1] ?? '') ? at(word) : word,
    );
    const { code, stdout, stderr } = await cli([...base, ...paths, '--prompt', 'a']);
    expect(stderr).toContain(message);
    expect([code, stdout]).toEqual([1, '']);
  });

  it.each([
    [['--prompt', ' '], '--prompt: expected some text'],
    [['--top-p', '2'], 'above 0, at most 1'],
    [['--max-tokens', '0'], 'expected an integer of at least 1'],
  ])('%j: exit code 2', async (options, message) => {
    const { code, stderr } = await cli([...base, ...options]);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });

  it('an error ends it, and the file has the turns before', async () => {
    const argv = [...short, '--max-length', '70', '--session', at('short.session')];
    const { code, stdout, stderr } = await cli(argv, { stdin: ['a\n', `${'b'.repeat(70)}\n`, 'c\n'] });
    expect(code).toBe(1);
    expect(stderr).toContain('maxLength 70');
    expect(stdout.trimEnd()).toBe((await answers(['a']))[0]!.trimEnd());
    const { messages } = ChatSession.fromBytes(
      readFileSync(at('short.session')),
      await loadModel(modelFolder),
    );
    expect(messages).toHaveLength(2);
  });

  it('a line typed on a terminal is a message where answers go elsewhere', async () => {
    const { code, stderr } = await cli(short, { stdin: null });
    expect(stderr).toBe('Every line is a message. Ctrl-D ends.\n');
    expect(code).toBe(0);
  });
});

describe('on a terminal', () => {
  function talk(argv: readonly string[]) {
    const terminal = new FakeTerminal(200);
    const done = run(argv, {
      stdin: terminal.input,
      stdout: terminal.output,
      stderr: { write: (text) => terminal.output.write(text) },
      interrupts: () => new AbortController().signal,
    });
    return { terminal, done };
  }

  it('talks, stops, edits, saves, loads, and remembers what was typed', async () => {
    const long = [...base, '--seed', '3', '--temperature', '2', '--top-p', '1', '--max-tokens', '1000000'];
    const { terminal, done } = talk(long);
    await terminal.shows("template: the model's own");
    await terminal.type('hello\r', () => terminal.screen.length > 200);
    await terminal.type('\u0003', '\n2>');
    expect(terminal.screen).toContain('\nstopped · ');
    await terminal.type('/edit\r', () => terminal.screen.endsWith('\n1> hello'));
    await terminal.type(' you\r', () => (terminal.screen.split('\n1> hello you\n')[1] ?? '').length > 100);
    await terminal.type('\u0003', () => terminal.screen.endsWith('\n2>'));
    await terminal.type(`/save ${at('talk')}\r`, 'Saved');
    await terminal.type('/reset\r', 'A new conversation.');
    await terminal.type(`/load ${at('talk')}\r`, '2 messages');
    await terminal.type('\u0004');
    expect(await done).toBe(0);
    expect(terminal.isRaw).toBe(false);
    const { messages } = ChatSession.fromBytes(readFileSync(at('talk')), await loadModel(modelFolder));
    expect(messages[0]).toEqual({ role: 'user', content: 'hello you' });
    expect(messages[1]!.content.length).toBeGreaterThan(0);

    const next = talk(short);
    await next.terminal.shows('1>');
    await next.terminal.type('\u001b[A\u001b[A\u001b[A\u001b[A', '1> hello you');
    await next.terminal.type('\u0004\u0003\u0003');
    expect(await next.done).toBe(0);
  });

  it('shows where a conversation stands, and keeps no history when it must not', async () => {
    const { terminal, done } = talk([...base, '--session', at('two.session'), '--no-history']);
    await terminal.shows('9 messages');
    await terminal.shows('\n4> d\n');
    await terminal.type('/exit\r');
    expect(await done).toBe(0);
    const history = readFileSync(join(at('cache'), 'chat-history'), 'utf8');
    expect(history).toContain('"hello you"');
    expect(history).not.toContain('/exit');
  });
});

describe('as a process', () => {
  let program: string | undefined;

  /** Writes lines one by one, each when the answer before is there, and resolves with what came out when it ends. */
  async function child(argv: readonly string[], lines: readonly string[], kill: NodeJS.Signals | null) {
    program ??= await bundle("import './src/cli/main.ts';", folder);
    const process_ = spawn(process.execPath, [program, ...argv], {
      env: { ...process.env, MAMBA_DEVICE: 'reference' },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    let stdout = '';
    const ended = new Promise<number | null>((resolve) => process_.on('close', resolve));
    process_.stdin.on('error', () => {}); // it may be gone before it has read everything
    process_.stdin.write(`${lines.join('\n')}\n`);
    process_.stdout.setEncoding('utf8');
    process_.stdout.on('data', (chunk) => {
      stdout += chunk;
      if (kill && !process_.killed && existsSync(at('process.session'))) process_.kill(kill);
    });
    if (!kill) process_.stdin.end();
    return { code: await ended, stdout };
  }

  it('killed in an answer, it loses that turn and nothing else', async () => {
    const argv = [...base, '--max-tokens', '300', '--session', at('process.session'), '--seed', '3'];
    const lines = Array.from({ length: 1000 }, (_, i) => `message ${i}`);
    const killed = await child(argv, lines, 'SIGKILL');
    const model = await loadModel(modelFolder);
    const { messages } = ChatSession.fromBytes(readFileSync(at('process.session')), model);
    expect(messages.slice(0, 2)).toMatchObject([{ content: 'message 0' }, { role: 'assistant' }]);
    const kept = messages
      .filter(({ role }) => role === 'assistant')
      .map(({ content }) => content.replace(/\n?$/, '\n'));
    expect(killed.stdout.startsWith(kept.join(''))).toBe(true);
    expect(killed.stdout.length - kept.join('').length).toBeLessThanOrEqual(301); // one answer and its line break
    const rest = readdirSync(folder).filter((name) => name.includes('process.session'));
    const { code, stdout } = await child([...argv, '--max-tokens', '12'], ['again'], null);
    expect(code).toBe(0);
    expect(stdout.length).toBeGreaterThan(0);
    // What the kill may have left half-written is gone with the next write.
    expect(rest.length).toBeLessThanOrEqual(2);
    expect(readdirSync(folder).filter((name) => name.includes('process.session'))).toEqual([
      'process.session',
    ]);
  });

  it.skipIf(process.platform === 'win32')(
    'SIGINT ends the answer, keeps what was said, and ends the program',
    async () => {
      const argv = [...base, '--max-tokens', '1000000', '--session', at('process.session'), '--seed', '3'];
      const before = ChatSession.fromBytes(readFileSync(at('process.session')), await loadModel(modelFolder));
      const { code, stdout } = await child(argv, ['go'], 'SIGINT');
      expect(code).toBe(0);
      const after = ChatSession.fromBytes(readFileSync(at('process.session')), await loadModel(modelFolder));
      expect(after.messages).toHaveLength(before.messages.length + 2);
      expect(stdout.trimEnd()).toBe(after.messages.at(-1)!.content.trimEnd());
    },
  );
});
