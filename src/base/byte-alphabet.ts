/**
 * The byte alphabet of GPT-2: every byte value has one printable character, so that a vocabulary of byte
 * strings can be written as JSON text. Printable Latin-1 bytes stand for themselves, the other 68 are U+0100
 * and up in order. Source: openai/gpt-2, encoder.py, bytes_to_unicode.
 */
export const CHAR_OF_BYTE: readonly string[] = buildAlphabet();
export const BYTE_OF_CHAR: ReadonlyMap<string, number> = new Map(
  CHAR_OF_BYTE.map((char, byte) => [char, byte]),
);

function buildAlphabet(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    return String.fromCharCode(printable ? byte : next++);
  });
}
