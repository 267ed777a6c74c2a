/**
 * Conversations for the chat demonstration, made up as they are needed: questions about countries, follow-ups that only make sense
 * after the turn before, a name to keep in mind, small talk, and questions to which the only right answer is that one does not know.
 */
import { ANOTHER, ask, KINDS, LEARNED } from './_countries.mjs';

/** Names it learns to keep in mind, and names that it is only told in the exam. */
export const NAMES = {
  learned: (
    'Alice Ben Clara David Emma Felix Grace Hugo Ines Jonas Kira Leo Maria Noah Olga Paul Quinn ' +
    'Rosa Sam Tina Uma Victor Wen Yusuf Zoe'
  ).split(' '),
  unseen: (
    'Amir Boris Camila Dana Esther Farid Greta Henry Irina Jasper Kenji Laila Marcus Nora Oscar ' +
    'Priya Ravi Stella'
  ).split(' '),
};

const TALK = {
  hello: {
    ask: ['Hello!', 'Hi.', 'Hi!', 'Hello', 'Good morning.', 'Hey!'],
    answer: 'Hello! Ask me about a country.',
  },
  thanks: {
    ask: ['Thanks!', 'Thank you.', 'Thank you very much.', 'Great, thanks.'],
    answer: 'You are welcome.',
  },
  bye: { ask: ['Bye!', 'Goodbye.', 'See you!', 'Bye.'], answer: 'Goodbye!' },
  self: {
    ask: ['Who are you?', 'What are you?', 'What can you do?', 'What do you know?'],
    answer: 'I am a very small model. I know capitals, continents and currencies.',
  },
};

const TELL_NAME = [
  'My name is {n}.',
  'I am {n}.',
  "I'm {n}.",
  'Call me {n}.',
  'Hello, my name is {n}.',
  'Hi, I am {n}.',
];
const ASK_NAME = [
  'What is my name?',
  "What's my name?",
  'Do you remember my name?',
  'Who am I?',
  'Do you know my name?',
];

export const UNKNOWN = 'I do not know.';
const OFF_TOPIC = [
  'What is the weather like?',
  'Who wrote Hamlet?',
  'Tell me a joke.',
  'How old are you?',
  'What is two plus two?',
  'Who is the president?',
  'How do I cook rice?',
  'What time is it?',
  'What is the longest river?',
  'Sing a song.',
  'How many people live there?',
  'Which language do they speak?',
  'What is the meaning of life?',
  'Write a poem.',
];
export const OFF_TOPIC_UNSEEN = [
  'Who painted the Mona Lisa?',
  'How tall is the Eiffel Tower?',
  'What is the fastest animal?',
  'Do you like music?',
];

const ONSETS = 'b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh st t tr v w z'.split(' ');
const VOWELS = 'a e i o u ai ea ia ou'.split(' ');
const CODAS = ['', '', '', 'n', 'r', 'l', 's', 'm', 'nd', 'x'];

/** A word that means nothing, as a country or a name nobody has heard of. */
function inventWord(rng, syllables, endings = ['']) {
  let word = '';
  for (let i = 0; i < syllables; i++) word += pick(rng, ONSETS) + pick(rng, VOWELS) + pick(rng, CODAS);
  word += pick(rng, endings);
  return word[0].toUpperCase() + word.slice(1);
}
const LANDS = ['', '', 'ia', 'land', 'stan', 'a', 'o'];

export const pick = (rng, list) => list[rng.below(list.length)];

/** Now and then as people type: small letters, no full stop. */
function typed(rng, text) {
  if (rng.below(8) === 0) text = text.toLowerCase();
  return rng.below(6) === 0 ? text.replace(/[.?!]$/, '') : text;
}

/** An endless conversation: each call gives the next turn, { user, assistant }. */
export function conversation(rng) {
  let name = null; // of the person, once told
  let topic = null; // { kind, country } of the last answer about a country
  const about = (kind, country, user) => {
    topic = { kind, country };
    return { user, assistant: KINDS[kind].answer(country) };
  };
  const question = () => {
    const kind = pick(rng, Object.keys(KINDS));
    const country = pick(rng, LEARNED);
    return about(kind, country, ask(pick(rng, KINDS[kind].learned), country));
  };
  const followUp = () => {
    if (!topic) return question();
    if (rng.below(2) === 0) {
      const country = pick(rng, LEARNED);
      return about(topic.kind, country, ask(pick(rng, ANOTHER.learned), country));
    }
    const kind = pick(
      rng,
      Object.keys(KINDS).filter((other) => other !== topic.kind),
    );
    return about(kind, topic.country, pick(rng, KINDS[kind].again));
  };
  const tell = () => {
    name = pick(rng, NAMES.learned);
    return { user: pick(rng, TELL_NAME).replace('{n}', name), assistant: `Nice to meet you, ${name}.` };
  };
  const recall = () => ({
    user: pick(rng, ASK_NAME),
    assistant: name ? `Your name is ${name}.` : 'You have not told me your name.',
  });
  const unknown = () => {
    if (rng.below(3) === 0) return { user: pick(rng, OFF_TOPIC), assistant: UNKNOWN };
    const land = { name: inventWord(rng, 1 + rng.below(3), LANDS) };
    const kind = pick(rng, Object.keys(KINDS));
    return {
      user: ask(pick(rng, topic && rng.below(3) === 0 ? ANOTHER.learned : KINDS[kind].learned), land),
      assistant: UNKNOWN,
    };
  };
  const talk = () => {
    const { ask: asked, answer } = pick(rng, Object.values(TALK));
    return { user: pick(rng, asked), assistant: answer };
  };
  const many = (count, part) => new Array(count).fill(part);
  const openings = [...many(5, tell), talk, ...many(4, question)];
  const parts = [...many(5, question), ...many(5, followUp), ...many(3, recall), tell, unknown, talk];
  let turns = 0;
  return () => {
    const turn = pick(rng, turns++ === 0 ? openings : parts)();
    // A name keeps its capital letter, so that it can be given back.
    return { ...turn, user: turn.assistant.startsWith('Nice') ? turn.user : typed(rng, turn.user) };
  };
}
