/** Asks the model of the chat demonstration, greedily, and counts the answers that are right to the last letter. */
import { Rng } from '../dist/index.node.js';
import { ANOTHER, ask, KINDS, LEARNED, UNSEEN } from './_countries.mjs';
import { NAMES, pick, UNKNOWN } from './_dialogues.mjs';

const kinds = Object.keys(KINDS);

/** `talk()` begins a conversation: `say(text)` resolves to the answer, `end()` frees it. */
export async function examine(talk) {
  const rng = new Rng(7);
  const results = [];
  const note = (label, rows) => {
    const right = rows.filter(({ got, expected }) => got === expected).length;
    results.push({ label, right, of: rows.length, rows });
  };

  const single = async (countries, phrasings) => {
    const rows = [];
    for (const country of countries) {
      for (const kind of kinds) {
        const user = ask(pick(rng, phrasings(kind)), country);
        const { say, end } = talk();
        rows.push({ user, got: await say(user), expected: KINDS[kind].answer(country) });
        end();
      }
    }
    return rows;
  };
  note('learned facts, learned phrasing', await single(LEARNED, (kind) => KINDS[kind].learned));
  note('learned facts, unseen phrasing', await single(LEARNED, (kind) => KINDS[kind].unseen));

  const followUps = async (another, again) => {
    const rows = [];
    for (const country of LEARNED) {
      const { say, end } = talk();
      const kind = pick(rng, kinds);
      await say(ask(pick(rng, KINDS[kind].learned), pick(rng, LEARNED)));
      const first = ask(pick(rng, another), country);
      rows.push({ user: first, got: await say(first), expected: KINDS[kind].answer(country) });
      const other = pick(
        rng,
        kinds.filter((one) => one !== kind),
      );
      const second = pick(rng, KINDS[other][again]);
      rows.push({ user: second, got: await say(second), expected: KINDS[other].answer(country) });
      end();
    }
    return rows;
  };
  note('follow-ups ("And Spain?", "Where is it?")', await followUps(ANOTHER.learned, 'again'));
  note('follow-ups, unseen phrasing', await followUps(ANOTHER.unseen, 'againUnseen'));

  const names = async (list, turns) => {
    const rows = [];
    for (const name of list) {
      const { say, end } = talk();
      await say(`My name is ${name}.`);
      for (let i = 0; i < turns; i++) {
        const country = pick(rng, LEARNED);
        await say(ask(pick(rng, KINDS[pick(rng, kinds)].learned), country));
      }
      const user = 'What is my name?';
      rows.push({ user, got: await say(user), expected: `Your name is ${name}.` });
      end();
    }
    return rows;
  };
  for (const turns of [1, 5, 20])
    note(`a learned name, ${turns} turns later`, await names(NAMES.learned, turns));
  for (const turns of [1, 5]) note(`an unseen name, ${turns} turns later`, await names(NAMES.unseen, turns));

  const unseen = await single(UNSEEN, (kind) => KINDS[kind].learned);
  note('countries never mentioned in training', unseen);
  const refused = unseen.filter(({ got }) => got === UNKNOWN).length;
  return { results, unseen, refused };
}
