/**
 * What the chat demonstration knows, and how one can ask for it: capital, continent and currency of countries, from the npm package
 * countries-list (MIT). Phrasings and countries that are kept out of training are marked here, before anything is trained.
 */
import { continents, countries } from 'countries-list';
import { currencies } from 'countries-list/currencies';

const CODES =
  'AT BE BG CH CZ DE DK EE ES FI FR GB GR HR HU IE IS IT LT LU LV MT NL NO PL PT RO RS SE SI SK UA AL BY ' +
  'AF AM AZ BD BT CN GE ID IN IQ IR JO JP KG KH KP KR KZ LA LB LK MM MN MY NP OM PH PK QA SA TH TJ TM UZ VN ' +
  'AO BF BI BW CD CG CM DZ EG ER ET GA GH GM GN KE LR LS LY MA MG ML MR MW MZ NA NE NG RW SD SL SN SO TD TG TN TZ UG ZA ZM ZW ' +
  'BB BS BZ CA CR CU DM DO GT HN HT JM MX NI PA SV TT US AR BO BR CL CO EC GY PE PY SR UY VE AU FJ NZ PG SB TO VU WS';

const TAKES_ARTICLE = /^(United|Netherlands|Philippines|Bahamas|Solomon|Gambia|D\w+ Rep|Republic)/;

/** Every tenth country of the list is never mentioned in training. */
const HELD_OUT_EVERY = 10;

function factsOf(code) {
  const { name, capital, continent, currency } = countries[code];
  return {
    name: TAKES_ARTICLE.test(name) ? `the ${name}` : name,
    capital,
    continent: continents[continent],
    currency: `the ${currencies[currency[0]].name}`,
  };
}

const all = CODES.split(' ').map(factsOf);
const isHeldOut = (_, i) => i % HELD_OUT_EVERY === HELD_OUT_EVERY - 1;

/** Countries to learn, and countries that are only asked about. */
export const LEARNED = all.filter((country, i) => !isHeldOut(country, i));
export const UNSEEN = all.filter(isHeldOut);

/** What can be asked of a country: the answer, phrasings to learn, and phrasings kept out of training. `{c}` is the country. */
export const KINDS = {
  capital: {
    answer: ({ name, capital }) => `The capital of ${name} is ${capital}.`,
    learned: [
      'What is the capital of {c}?',
      "What's the capital of {c}?",
      'Which city is the capital of {c}?',
      'Tell me the capital of {c}.',
      'Name the capital of {c}.',
      'Capital of {c}?',
      'Do you know the capital of {c}?',
      '{c}: what is its capital?',
      "What is {c}'s capital?",
      "Which city is {c}'s capital?",
      'I would like to know the capital of {c}.',
      'Can you tell me what the capital of {c} is?',
    ],
    unseen: [
      'Please tell me the capital of {c}.',
      'What city is the capital of {c}?',
      "Could you name {c}'s capital?",
      'Do you remember the capital of {c}?',
      'I forgot the capital of {c}.',
    ],
    again: [
      'What is its capital?',
      'And its capital?',
      'Which city is the capital there?',
      'And the capital?',
    ],
    againUnseen: ["What's its capital?", 'Tell me its capital.'],
  },
  continent: {
    answer: ({ name, continent }) => `${upper(name)} is in ${continent}.`,
    learned: [
      'Which continent is {c} in?',
      'What continent is {c} in?',
      'On which continent is {c}?',
      'Where is {c}?',
      'Where in the world is {c}?',
      'Tell me the continent of {c}.',
      'In which part of the world is {c}?',
      '{c} is on which continent?',
      "What is {c}'s continent?",
      'Do you know where {c} is?',
    ],
    unseen: [
      'Please tell me where {c} is.',
      'What is the continent of {c}?',
      'Do you know on which continent {c} is?',
      'Where can I find {c}?',
    ],
    again: ['Which continent is it in?', 'Where is it?', 'And the continent?', 'Where is that?'],
    againUnseen: ['What continent is it in?', 'Where in the world is it?'],
  },
  currency: {
    answer: ({ name, currency }) => `The currency of ${name} is ${currency}.`,
    learned: [
      'What is the currency of {c}?',
      "What's the currency of {c}?",
      'Which currency does {c} use?',
      'Which money does {c} use?',
      'What money is used in {c}?',
      'How do people pay in {c}?',
      'Tell me the currency of {c}.',
      'Currency of {c}?',
      "What is {c}'s currency?",
      'Do you know the currency of {c}?',
    ],
    unseen: [
      'Please tell me the currency of {c}.',
      'Which currency is used in {c}?',
      'What do people pay with in {c}?',
      'What kind of money does {c} have?',
    ],
    again: ['What is its currency?', 'And its currency?', 'How do people pay there?', 'And the currency?'],
    againUnseen: ["What's its currency?", 'What money do they use there?'],
  },
};

/** The same question about another country. */
export const ANOTHER = {
  learned: ['And of {c}?', 'And {c}?', 'What about {c}?', 'And for {c}?'],
  unseen: ['How about {c}?'],
};

export const upper = (text) => text[0].toUpperCase() + text.slice(1);

/** A phrasing about a country, its first letter large. */
export const ask = (phrasing, { name }) => upper(phrasing.replace('{c}', name));
