/**
 * A classifier's answers as lines: label and probability, where the text stands, and the words that decided.
 */
import type { Prediction } from '../index.node.ts';
import { columnsOf, type ExplainedText, excerpt } from '../train/index.ts';
import { harmless } from './chat-view.ts';

/** Label and probability in columns for labels like `labels`; the `top` most probable ones side by side. */
export function answerLine(
  { scores }: Pick<Prediction, 'scores'>,
  labels: readonly string[],
  top: number,
): string {
  const width = Math.max(...labels.map(columnsOf));
  return Object.entries(scores)
    .sort(([, a], [, b]) => b - a)
    .slice(0, top)
    .map(([label, score]) => `${pad(oneLine(label), width)}  ${score.toFixed(4)}`)
    .join('  ');
}

/** A wrong answer, where it stands and its beginning. */
export function errorLines({ label, prediction, where, text }: ExplainedText, columns: number): string {
  const said = `${oneLine(prediction.label)} ${prediction.score.toFixed(4)}, truth ${oneLine(label ?? '')}`;
  return `${said}  ${where}\n  ${oneLine(text, columns - 2)}\n`;
}

/** A text as one line of at most `columns`: white space becomes one space, controls go. */
export function oneLine(text: string, columns = Number.POSITIVE_INFINITY): string {
  const line = harmless(text.slice(0, 4 * columns))
    .replace(/\s+/g, ' ')
    .trim();
  const [...characters] = line;
  if (columnsOf(line) <= columns) return line;
  while (characters.length > 0 && columnsOf(characters.join('')) >= columns) characters.pop();
  return `${characters.join('').trimEnd()}…`;
}

function pad(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - columnsOf(text)));
}

/** Words shown without colours. */
const SHOWN_WORDS = 8;

/**
 * What decided: with colours the text (of a long one the part that decided most), shaded blue where
 * it speaks for the explained label and orange where against it; without, the words with the
 * largest weights, in units of logits.
 */
export function explanationLines(item: ExplainedText, hasColors: boolean): string {
  const { tokens, cut } = excerpt(item);
  if (!hasColors) return `  ${weightedWords(item.tokens ?? [])}\n`;
  const most = Math.max(...tokens!.map(({ weight }) => Math.abs(weight)));
  const body = tokens!
    .map(({ text, weight }) => shaded(harmless(text).replace(/\s+/g, ' '), weight / most))
    .join('');
  return `  ${cut.before ? '… ' : ''}${body.trim()}${cut.after ? ' …' : ''}\n`;
}

/** Of 256 colours, the strongest last. */
const FOR = [195, 153, 117, 75];
const AGAINST = [230, 223, 216, 208];

/** `share`: -1..1; the faintest tenth stays plain. */
function shaded(text: string, share: number): string {
  const level = Math.ceil(Math.abs(share) * 5 - 0.5) - 1;
  const color = (share > 0 ? FOR : AGAINST)[Math.min(level, FOR.length - 1)];
  if (color === undefined || text.trim() === '') return text;
  const [, before, word] = /^(\s*)(.*)$/.exec(text)!;
  return `${before}\u001b[30;48;5;${color}m${word}\u001b[0m`;
}

/** Tokens of one word together: gradient x input adds up. Where a script has no spaces, tokens are words. */
function weightedWords(tokens: readonly { text: string; weight: number }[]): string {
  const words: { text: string; weight: number }[] = [];
  let isOpen = false;
  for (const { text, weight } of tokens) {
    if (isOpen && !/^[\s\p{Lo}]/u.test(text)) {
      words.at(-1)!.text += text;
      words.at(-1)!.weight += weight;
    } else words.push({ text, weight });
    isOpen = !/(\S\s+|\p{Lo})$/u.test(text);
  }
  return words
    .sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight))
    .slice(0, SHOWN_WORDS)
    .map(({ text, weight }) => `${oneLine(text)} ${weight > 0 ? '+' : ''}${weight.toFixed(2)}`)
    .join('  ');
}
