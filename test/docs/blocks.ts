/** The code blocks of a Markdown file that are marked `ts` or `sh`, and whether they ask to be run (`ts run`, `sh run`). */
export interface Block {
  /** The document. */
  readonly name: string;
  readonly language: 'ts' | 'sh';
  /** For messages: file and line of the first code line. */
  readonly where: string;
  readonly code: string;
  readonly run: boolean;
}

/** Throws for a block that is not closed: everything after it would be lost. */
export function codeBlocks(name: string, markdown: string): Block[] {
  const blocks: Block[] = [];
  const lines = markdown.split('\n');
  for (let i = 0; i < lines.length; i++) {
    const fence = /^```(\S*)\s*(.*)$/.exec(lines[i]!);
    if (!fence) continue;
    const begin = i + 1;
    do i++;
    while (i < lines.length && lines[i] !== '```');
    if (i === lines.length) throw new Error(`${name}:${begin}: a code block is not closed.`);
    const [, language, marks] = fence;
    if (language !== 'ts' && language !== 'sh') continue;
    blocks.push({
      name,
      language,
      where: `${name}:${begin + 1}`,
      code: lines.slice(begin, i).join('\n'),
      run: marks!.split(/\s+/).includes('run'),
    });
  }
  return blocks;
}

/** What two languages must have in common: comments of a shell are translated. */
export function sharedCode({ language, code, run }: Block): string {
  return `${language}${run ? ' run' : ''}\n${language === 'sh' ? code.replace(/\s+#.*$/gm, '') : code}`;
}
