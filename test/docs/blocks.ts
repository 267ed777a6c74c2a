/** The code blocks of a Markdown file that are marked `ts`, and whether they ask to be run (`ts run`). */
export interface Block {
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
    if (fence[1] !== 'ts') continue;
    blocks.push({
      where: `${name}:${begin + 1}`,
      code: lines.slice(begin, i).join('\n'),
      run: fence[2]!.split(/\s+/).includes('run'),
    });
  }
  return blocks;
}
