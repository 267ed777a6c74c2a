/** Renderings were made with Python's jinja2 3.1 as transformers sets it up; zephyr and chatml with the templates as published. */
import { describe, expect, it } from 'vitest';
import { ConfigError, FormatError } from '../../src/base/errors.ts';
import {
  CHAT_TEMPLATES,
  type ChatMessage,
  chatTemplate,
  templateFromFiles,
} from '../../src/text/chat-template.ts';

const TOKENS = { bos_token: '<s>', eos_token: '</s>' };
const CHAT: ChatMessage[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'Hi\n there ' },
  { role: 'assistant', content: ' Hello!\n' },
  { role: 'tool', content: 'x' },
  { role: 'user', content: '{{ 1 }}<b>ä</b>' },
];

/** Much of what published templates use: namespaces, macros, slices, filters, whitespace control, extra fields, own errors. */
const ALTERNATING = `{{- bos_token -}}
{% set ns = namespace(system='', turn=0) %}
{%- macro tag(name, text) -%}
[{{ name | upper }}] {{ text | trim }} [/{{ name | upper }}]
{%- endmacro -%}
{% if messages[0].role == 'system' %}
  {% set ns.system = messages[0]['content'] | trim %}
  {% set rest = messages[1:] %}
{% else %}
  {% set rest = messages %}
{% endif %}
{% if tools is not none %}TOOLS {{ tools | tojson }}{% endif %}
{% for message in rest %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('roles must alternate, got ' ~ message.role) }}
    {% endif %}
    {% if message.role == 'user' %}
        {%- set text = (ns.system ~ '\\n\\n' if loop.first and ns.system else '') + message.content -%}
{{ tag('inst', text) }}{% if message.name is defined %}({{ message.name | tojson }}){% endif %}
    {% else %}
{{ ' ' ~ message.content.strip() ~ ' ' ~ eos_token }}
    {% endif %}
    {% set ns.turn = ns.turn + 1 %}
{% endfor %}
{% if add_generation_prompt %}{{ '<' ~ ns.turn ~ '>' }}{% endif %}
`;

const render = (source: string, messages: readonly ChatMessage[], addGenerationPrompt = true) =>
  chatTemplate(source, TOKENS).render(messages, { addGenerationPrompt });

describe('rendering', () => {
  it('zephyr, as published', () => {
    const text =
      '<|system|>\nBe brief.</s>\n<|user|>\nHi\n there </s>\n<|assistant|>\n Hello!\n</s>\n<|user|>\n{{ 1 }}<b>ä</b></s>\n';
    expect(render('zephyr', CHAT)).toBe(`${text}<|assistant|>\n`);
    expect(render('zephyr', CHAT, false)).toBe(text);
    expect(render('zephyr', CHAT.slice(0, 1))).toBe('<|system|>\nBe brief.</s>\n<|assistant|>\n');
    expect(render('zephyr', [])).toBe('');
  });

  it('zephyr with the tokenizer of mamba-chat', () => {
    const template = chatTemplate('zephyr', { eos_token: '<|endoftext|>' });
    expect(template.render([{ role: 'user', content: 'Hi' }], { addGenerationPrompt: true })).toBe(
      '<|user|>\nHi<|endoftext|>\n<|assistant|>\n',
    );
  });

  it('chatml, as published', () => {
    const text =
      '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi\n there <|im_end|>\n' +
      '<|im_start|>assistant\n Hello!\n<|im_end|>\n<|im_start|>tool\nx<|im_end|>\n' +
      '<|im_start|>user\n{{ 1 }}<b>ä</b><|im_end|>\n';
    expect(render('chatml', CHAT)).toBe(`${text}<|im_start|>assistant\n`);
    expect(render('chatml', CHAT, false)).toBe(text);
    expect(render('chatml', [])).toBe('<|im_start|>assistant\n');
  });

  it('a template with everything', () => {
    const messages = [
      { role: 'system', content: '  Be brief. ' },
      { role: 'user', content: ' Hi ', name: 'Ann' },
      { role: 'assistant', content: ' Hello ' },
      { role: 'user', content: '"ä"\n' },
    ];
    expect(render(ALTERNATING, messages)).toBe(
      '<s>[INST] Be brief.\n\n Hi [/INST]("Ann") Hello </s>\n[INST] "ä" [/INST]<3>',
    );
    expect(render(ALTERNATING, messages.slice(1, 3), false)).toBe('<s>[INST] Hi [/INST]("Ann") Hello </s>\n');
  });

  it('absent begin and end tokens are empty, other variables undefined', () => {
    const template = chatTemplate('[{{ bos_token + eos_token }}{{ pad_token is defined }}]', {});
    expect(template.render([], { addGenerationPrompt: false })).toBe('[false]');
  });

  it('the date is that of the options', () => {
    const source = "{{ strftime_now('%Y-%m-%d %d %b %B %a %A %y %H:%M:%S %I %p %% %q') }}";
    const now = new Date(2024, 1, 9, 15, 4, 5);
    expect(chatTemplate(source, {}).render([], { addGenerationPrompt: true, now })).toBe(
      '2024-02-09 09 Feb February Fri Friday 24 15:04:05 03 PM % %q',
    );
  });

  it.each([
    ['{{ range(4) | join(",") }}', '0,1,2,3'],
    ['{{ range(1, 8, 3) | join(",") }}', '1,4,7'],
    ['{{ range(3, 0, -1) | join(",") }}', '3,2,1'],
    ['{{ range(3, 0) | length }}', '0'],
    ['{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}', '012'],
    ['{% generation %}a{% endgeneration %}', 'a'],
  ])('%s', (source, text) => {
    expect(render(source, [])).toBe(text);
  });
});

describe('stop', () => {
  const stopOf = (source: string, tokens: Record<string, string> = TOKENS) =>
    chatTemplate(source, tokens).stop;
  const lines = (end: string) => `{% for m in messages %}{{ m.role }}: {{ m.content }}${end}{% endfor %}`;

  it.each([
    ['zephyr', []],
    ['chatml', ['<|im_end|>']],
    [ALTERNATING, []],
    [lines('{{ "\\n\\n" }}'), ['\n\n']],
    [lines('{{ "\\n" }}'), ['\n']],
    [lines(' <|end|>{{ "\\n" }}'), ['<|end|>']],
    [lines('<|end|>{{ "\\n" + eos_token }}'), ['<|end|>']],
    [lines('{{ eos_token }}<|end|>'), []],
    [`${lines('{{ "\\n\\n" }}')}assistant:`, ['\n\n']],
    ['{% for m in messages %}{{ "\\n" + m.role + ": " + m.content }}{% endfor %}', ['\nuser:']],
    ['{% for m in messages if m.role == "user" %}{{ m.content }}{% endfor %}', []],
    ['{{ raise_exception("never") }}', []],
    ['{{ messages | nothing }}', []],
  ])('of %j', (source, stop) => {
    expect(stopOf(source)).toEqual(stop);
  });

  it('without an end token is what is left', () => {
    expect(stopOf('zephyr', {})).toEqual(['\n']);
    expect(stopOf('chatml', { eos_token: '<|im_end|>' })).toEqual([]);
  });
});

describe('choosing', () => {
  it('by name or source', () => {
    const { name, source } = chatTemplate('chatml', {});
    expect({ name, source }).toEqual({ name: 'chatml', source: CHAT_TEMPLATES.chatml });
    expect(chatTemplate(CHAT_TEMPLATES.zephyr, {}).name).toBe('zephyr');
    expect(chatTemplate('{{ 1 }}', {}).name).toBe('the chat template');
    expect(chatTemplate('{{ 1 }}', {}, 'mine.jinja').name).toBe('mine.jinja');
    expect(() => chatTemplate('zefyr', {})).toThrow(ConfigError);
    expect(() => chatTemplate('zefyr', {})).toThrow(
      'expected zephyr, chatml or a Jinja template, got "zefyr"',
    );
    expect(() => chatTemplate('constructor', {})).toThrow(ConfigError);
  });

  it('among the files of a model', () => {
    const config = (template: unknown) => ({
      'tokenizer_config.json': JSON.stringify({ chat_template: template }),
    });
    expect(templateFromFiles({})).toBe(null);
    expect(templateFromFiles(config(undefined))).toBe(null);
    expect(templateFromFiles(config(null))).toBe(null);
    expect(templateFromFiles({ 'tokenizer_config.json': 'null' })).toBe(null);
    expect(templateFromFiles({ 'tokenizer_config.json': '{' })).toBe(null);
    expect(templateFromFiles(config('{{ a }}'))).toBe('{{ a }}');
    expect(templateFromFiles({ ...config('{{ a }}'), 'chat_template.jinja': '{{ b }}' })).toBe('{{ b }}');
    const [tools, plain] = [
      { name: 'tool_use', template: '{{ t }}' },
      { name: 'default', template: '{{ d }}' },
    ];
    expect(templateFromFiles(config([tools, plain]))).toBe('{{ d }}');
    expect(templateFromFiles(config([tools]))).toBe('{{ t }}');
    for (const bad of [5, {}, [], [null], [{ name: 'default' }]]) {
      expect(() => templateFromFiles(config(bad))).toThrow(FormatError);
    }
  });
});

describe('refusals', () => {
  it("a template's own are ConfigErrors with its words", () => {
    const twice = [CHAT[1]!, CHAT[1]!];
    expect(() => render(ALTERNATING, twice)).toThrow(ConfigError);
    expect(() => render(ALTERNATING, twice)).toThrow('roles must alternate, got user');
  });

  it('messages that are not texts', () => {
    for (const bad of [
      { role: 'user' },
      { role: 1, content: '' },
      null,
      'hi',
      { role: 'user', content: [] },
    ]) {
      expect(() => render('zephyr', [bad as unknown as ChatMessage])).toThrow(ConfigError);
    }
  });

  it.each(['{% for %}', '{{ 1', '{% if x %}', '{{ "a }}', '{% nothing %}', '{{ a | }}', '{% endfor %}'])(
    'broken source %s',
    (source) => {
      expect(() => render(source, [])).toThrow(FormatError);
    },
  );

  it.each(['{{ 1 | nothing }}', '{{ messages[0].a + 1 }}', '{{ nobody() }}', '{{ none + 1 }}'])(
    'a failing template %s',
    (source) => {
      expect(() => render(source, [])).toThrow(FormatError);
    },
  );
});
