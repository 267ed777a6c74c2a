/**
 * Pieces of an HTML page. The tag `html` makes them and escapes whatever is not a piece itself, so that no
 * text of a data set can become markup.
 */

export class Html {
  readonly markup: string;

  /** Of markup that is known to be safe; texts go through the tag `html`. */
  constructor(markup: string) {
    this.markup = markup;
  }
}

/** What may stand in a page: texts and numbers are escaped, pieces stay, null leaves nothing. */
export type Content = string | number | Html | null | readonly Content[];

/** Markup with escaped values: html`<b>${text}</b>`. Attribute values stand in double quotes. */
export function html(strings: TemplateStringsArray, ...values: Content[]): Html {
  return new Html(strings.map((part, i) => part + (i < values.length ? markupOf(values[i]!) : '')).join(''));
}

function markupOf(content: Content): string {
  if (content === null) return '';
  if (content instanceof Html) return content.markup;
  if (typeof content === 'object') return content.map(markupOf).join('');
  return escapeHtml(String(content));
}

/** Rows of a name and a value. */
export function fields(entries: readonly (readonly [string, unknown])[]): Html {
  return html`${entries.map(([label, value]) => html`<tr><th>${label}</th><td>${show(value)}</td></tr>\n`)}`;
}

/** A table with a head; the first column holds names, the others numbers. `strong` sets the rows apart. */
export function table(
  head: readonly Content[],
  rows: readonly (readonly Content[])[],
  strong: (row: number) => boolean = () => false,
): Html {
  const body = rows.map((row, i) => {
    const cells = row.map((cell, column) => (column === 0 ? html`<th>${cell}</th>` : html`<td>${cell}</td>`));
    return html`<tr${strong(i) ? html` class="strong"` : null}>${cells}</tr>\n`;
  });
  const names = head.map((name) => html`<th>${name}</th>`);
  return html`<div class="wide"><table class="grid"><thead><tr>${names}</tr></thead><tbody>\n${body}</tbody></table></div>`;
}

function show(value: unknown): string {
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) return value.map(show).join(', ');
  if (typeof value === 'object' && value !== null) return JSON.stringify(value);
  return value === null || value === undefined ? '-' : String(value);
}

const ENTITIES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => ENTITIES[char]!);
}

/** JSON that may stand in a script element. */
export function escapeJson(value: unknown): Html {
  return new Html(JSON.stringify(value).replace(/</g, '\\u003c'));
}
