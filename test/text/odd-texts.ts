/** Texts that break careless tokenizers: multi-byte characters, joiners, controls, odd spaces, contractions. */
export const ODD_TEXTS: readonly string[] = [
  '',
  ' ',
  '\n',
  'a',
  "Hello, world! It's 2024; they'll say \"we've won\".",
  '  leading and   inner    spaces \t\ttabs\r\n\r\nline breaks \n \n',
  'emoji 😀👩‍👩‍👧‍👦🇨🇭 and more 🙂',
  '中文字符，没有空格。日本語のテキスト 한국어',
  'café cafe\u0301 naïve Ωμέγα Привет',
  'control \u0000\u0001\u001f\u007f\u0085 characters \ufeff bom',
  'math 𝒜𝓁𝓁 𐍈 ∑∞ …—–',
  'replacement \ufffd itself',
  '<|endoftext|>between<|endoftext|> tokens<|endoftext|>',
  '__proto__ constructor 0 1 23 000 1e9 x²',
  'a'.repeat(300),
];
