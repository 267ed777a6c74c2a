/** `mamba-ts predict`: what a classifier says of texts. */
import { type Command, Option } from 'commander';
import { type Classifier, FormatError, loadClassifier } from '../../index.node.ts';
import { liveLine, visible } from '../../train/index.ts';
import { answerLine, explanationLines, oneLine } from '../answer-lines.ts';
import { type AskedSources, type AskedText, askedTexts } from '../asked-texts.ts';
import { inputPieces } from '../input-lines.ts';
import {
  addCommonOptions,
  addModelOption,
  integer,
  type Limit,
  limit,
  limitOf,
  type ModelOptions,
  modelOptions,
} from '../options.ts';
import { type Output, outputOf } from '../output.ts';

interface Options extends ModelOptions, Omit<AskedSources, 'texts'> {
  model: string;
  whole?: boolean;
  top: number;
  explain?: boolean;
  maxTokens?: Limit;
  batch?: number;
  jsonl?: boolean;
}

export function register(program: Command): void {
  const command = program
    .command('predict')
    .description(
      'What a classifier says of texts: arguments, files, or the lines of stdin, blank ones left out. ' +
        'A line per text: label and probability.',
    )
    .argument('[texts...]', 'the texts');
  addCommonOptions(addModelOption(command))
    .option('--data <path...>', '.jsonl, .json, .csv, .tsv, .parquet, .txt (a text each), or folders of .txt')
    .option('--text <column...>', 'columns of --data that hold the text (text)')
    .addOption(new Option('--whole', 'all of stdin is one text of any length').conflicts(['data', 'explain']))
    .option('--top <n>', 'the n most probable labels', integer(1), 1)
    .option(
      '--explain',
      'also the words that decided: blue for the label, orange against it; without colours the heaviest',
    )
    .option('--max-tokens <n>', 'texts are cut to; none = never (as it was trained)', limit)
    .option('--batch <n>', 'texts at once (as many as make about 2048 tokens)', integer(1))
    .addOption(new Option('--jsonl', 'print a JSON object per text, as they are answered').conflicts('json'))
    .action(run);
}

async function run(texts: string[], options: Options, command: Command): Promise<void> {
  const { model, data, whole, explain, jsonl } = options;
  const out = outputOf(command);
  const sources = [texts.length > 0, data !== undefined, whole].filter(Boolean).length;
  if (sources > 1) command.error('error: expected one of texts, --data and --whole, got more.');
  if (options.text && !data) command.error('error: --text names columns of --data, and there is none.');
  if (out.io.stdin.isTTY && texts.length === 0 && !data)
    command.error('error: expected texts, --data, or text on stdin, got none.');
  const classifier = await loadClassifier(model, modelOptions(options, out));
  if (whole) return predictWhole(classifier, options, out);
  const { stdout, stderr } = out.io;
  const live = liveLine(stderr);
  const columns = stdout.columns || 80;
  const hasColors = stdout.isTTY === true && !process.env.NO_COLOR;
  const began = performance.now();
  const predictions: object[] = [];
  let count = 0;
  for await (const group of askedTexts({ ...options, texts }, out)) {
    for (const { asked, answer } of await answers(classifier, group, options)) {
      count++;
      const { text, where } = asked;
      const record = { where, text, ...answer };
      if (out.isJson) predictions.push(record);
      else if (jsonl) out.text(`${JSON.stringify(record)}\n`);
      else {
        const line = answerLine(answer, classifier.config.labels, options.top);
        const isBelow = explain && hasColors; // shaded
        const place = data ? where! : isBelow ? '' : oneLine(text, Math.max(20, columns - line.length - 3));
        out.text(`${`${line}  ${place}`.trimEnd()}\n`);
        if (explain)
          out.text(
            explanationLines(
              { text, where: '', label: null, prediction: answer, tokens: answer.tokens! },
              hasColors,
            ),
          );
      }
    }
    if (out.isJson || !stdout.isTTY) live.show(`${count} texts`);
  }
  live.end();
  classifier.dispose();
  out.json({ model, predictions, seconds: (performance.now() - began) / 1000 });
}

/** With the tokens that decided where they were asked for. */
async function answers(classifier: Classifier, group: readonly AskedText[], options: Options) {
  const { explain, batch } = options;
  const maxTokens = limitOf(options.maxTokens);
  const texts = group.map(({ text }) => text);
  const found = explain
    ? (await classifier.explain(texts, { maxTokens })).map((answer) => ({
        ...answer,
        tokens: visible(answer.tokens),
      }))
    : (await classifier.predict(texts, { maxTokens, batchSize: batch })).map((answer) => ({
        ...answer,
        tokens: undefined,
      }));
  return found.map((answer, i) => ({ asked: group[i]!, answer }));
}

/** Through the state: memory does not grow with the text. */
async function predictWhole(
  classifier: Classifier,
  { model, top, jsonl, ...options }: Options,
  out: Output,
): Promise<void> {
  const maxTokens = limitOf(options.maxTokens);
  const reader = classifier.open({ maxTokens });
  const began = performance.now();
  let hasText = false;
  for await (const piece of inputPieces(out.io.stdin)) {
    hasText ||= piece.trim() !== '';
    await reader.push(piece);
    if (reader.isFull) break;
  }
  if (!hasText) throw new FormatError('stdin: expected some text, got none. Write the text to it.');
  const answer = await reader.answer();
  const { tokens } = reader;
  const isFull = tokens === (maxTokens === undefined ? classifier.config.maxTokens : maxTokens);
  const seconds = (performance.now() - began) / 1000;
  reader.dispose();
  if (jsonl) out.text(`${JSON.stringify({ where: 'stdin', ...answer, tokens, isFull })}\n`);
  else out.text(`${answerLine(answer, classifier.config.labels, top)}  ${tokens} tokens\n`);
  if (isFull)
    out.log(`The text fills the ${tokens} tokens that are read; --max-tokens none reads all of it.`);
  classifier.dispose();
  out.json({ model, ...answer, tokens, isFull, seconds });
}
