/**
 * A classified text as a report keeps it: what was said of it, which tokens
 * decided, an excerpt where it is long.
 */

export interface ExplainedText {
  text: string;
  /** Where it stands: file:line or a path. */
  where: string;
  /** The true label; null where nobody knows. */
  label: string | null;
  prediction: { label: string; score: number };
  /** How much each token speaks for the predicted label (above 0) or against it; null where nobody asked. */
  tokens: readonly { text: string; weight: number }[] | null;
}

export interface ExcerptedText extends ExplainedText {
  /** Whether something was left out before and after `text` and `tokens`. */
  cut: { before: boolean; after: boolean };
}

/** Most characters of a text that reports show. */
const EXCERPT_CHARS = 800;

/** The beginning of a long text; with tokens, those in a row that decided most. A short text stays whole. */
export function excerpt(item: ExplainedText): ExcerptedText {
  const text = clip(item.text, EXCERPT_CHARS);
  const { tokens } = item;
  if (!tokens) return { ...item, text, cut: { before: false, after: text.length < item.text.length } };
  const [from, to] = heaviest(tokens);
  const kept = tokens.slice(from, to);
  const cut = { before: from > 0, after: to < tokens.length };
  const isCut = cut.before || cut.after;
  return { ...item, text: isCut ? kept.map((token) => token.text).join('') : text, tokens: kept, cut };
}

/**
 * The tokens in a row, at most EXCERPT_CHARS characters, with the largest sum of
 * |weight|; of equals the first.
 */
function heaviest(tokens: readonly { text: string; weight: number }[]): [from: number, to: number] {
  const total = tokens.reduce((count, token) => count + token.text.length, 0);
  if (total <= EXCERPT_CHARS) return [0, tokens.length];
  let best: [number, number] = [0, 0];
  let most = -1;
  let from = 0;
  let chars = 0;
  let sum = 0;
  tokens.forEach((token, i) => {
    chars += token.text.length;
    sum += magnitude(token.weight);
    while (chars > EXCERPT_CHARS && from < i) {
      chars -= tokens[from]!.text.length;
      sum -= magnitude(tokens[from]!.weight);
      from++;
    }
    if (sum > most) {
      most = sum;
      best = [from, i + 1];
    }
  });
  return best;
}

/** The weight without its sign; 0 for what is not a number. */
export function magnitude(weight: number): number {
  return Number.isFinite(weight) ? Math.abs(weight) : 0;
}

/** At most `length` UTF-16 units of a text, no character cut in two. */
export function clip(text: string, length: number): string {
  if (text.length <= length) return text;
  const isPair = (text.codePointAt(length - 1) ?? 0) > 0xffff;
  return text.slice(0, isPair ? length - 1 : length);
}
