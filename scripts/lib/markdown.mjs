/** Puts measured tables into documents, between two marks, so that no number is typed by hand. */

/**
 * The document with everything between `<!-- begin NAME -->` and `<!-- end NAME -->` replaced by `text`.
 * Throws when the marks are missing or out of order.
 */
export function replaceBetween(markdown, name, text) {
  const [begin, end] = [`<!-- begin ${name} -->`, `<!-- end ${name} -->`];
  const from = markdown.indexOf(begin);
  const to = markdown.indexOf(end);
  if (from < 0 || to < from)
    throw new Error(`replaceBetween: expected ${begin} before ${end}. Add both marks.`);
  return `${markdown.slice(0, from + begin.length)}\n${text.trim()}\n${markdown.slice(to)}`;
}

/** A Markdown table. Numbers go to the right. */
export function table(header, rows) {
  const aligned = header.map((_, column) =>
    rows.every((row) => typeof row[column] === 'number') ? '--:' : '---',
  );
  return [header, aligned, ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
