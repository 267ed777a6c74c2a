/** `eval` of a classifier: how good its labels are. */
import { loadClassifier, readExamples } from '../index.node.ts';
import { confidentErrors, evaluateClassifier, liveLine } from '../train/index.ts';
import { errorLines } from './answer-lines.ts';
import { scoresText } from './classify-result.ts';
import { type Limit, limitOf, type ModelOptions, modelOptions } from './options.ts';
import type { Output } from './output.ts';

interface Options extends ModelOptions {
  model: string;
  data: string[];
  text?: string[];
  label?: string;
  batch?: number;
  maxTokens?: Limit;
  errors: number;
}

export async function evaluateLabels(options: Options, out: Output): Promise<void> {
  const { data, text, label, batch, maxTokens } = options;
  const live = liveLine(out.io.stderr);
  const examples = await readExamples(data, {
    textFields: text,
    labelField: label,
    onProgress: (event) => event.kind === 'notice' && live.print(event.message),
  });
  const classifier = await loadClassifier(options.model, modelOptions(options, out));
  const { labels } = classifier.config;
  const started = performance.now();
  const answers = await evaluateClassifier(classifier, examples, {
    batchSize: batch,
    maxTokens: limitOf(maxTokens),
    onProgress: (done, total) => live.show(`${done} of ${total} texts`),
  });
  live.end();
  const seconds = (performance.now() - started) / 1000;
  const errors = confidentErrors(labels, answers, options.errors);
  out.text(scoresText(labels, answers.scores));
  if (errors.length > 0) out.text('\nthe most confident errors\n');
  for (const error of errors) out.text(errorLines(error, out.io.stdout.columns || 80));
  out.text(
    `\n${examples.length} texts of ${data.join(', ')}, ${(examples.length / seconds).toFixed(0)} texts/s\n`,
  );
  const told = errors.map(({ tokens: _tokens, ...error }) => error);
  out.json({ ...answers.scores, labels, data, seconds, errors: options.errors > 0 ? told : undefined });
}
