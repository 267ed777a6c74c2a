/** Two sides measured in turns: each round the peer, then ours. */
import { loadavg } from 'node:os';

/**
 * A side is { start, open, round, warm, regime }: a function that starts its process; the requests that open what is measured, that
 * measure a round, and (where it may be shorter) that come before the first. Rates of answers are `tokensPerSecond`; with a regime
 * (prefill, decode, train) they are that of this part of a round of benchRounds.
 * Gives a row for the results; a peer that fails or takes longer than `limitSeconds` for a round leaves its reason in the row.
 */
export async function compare({ label, peer, ours, theirs, rounds, limitSeconds = 300, ...rest }) {
  const row = { label, peer, ours: [], theirs: [], share: [], bound: null, load: [], ...rest };
  const mine = ours.start();
  const other = theirs?.start();
  try {
    if (other) row.problem = await failure(() => warmUp(other, theirs, limitSeconds));
    await warmUp(mine, ours, limitSeconds);
    for (let round = 0; round < rounds; round++) {
      row.load.push(loadavg()[0]);
      if (other && !row.problem) {
        row.problem = await failure(async () => {
          const answer = rateOf(await within(limitSeconds, other.ask(theirs.round)), theirs.regime);
          row.theirs.push(answer.tokensPerSecond);
          row.theirsMib = answer.peakMib;
        });
      }
      const answer = rateOf(await mine.ask(ours.round), ours.regime);
      row.ours.push(answer.tokensPerSecond);
      if (answer.share) row.share.push(answer.share);
      row.bound = answer.bound ?? null;
      row.oursMib = answer.peakMib;
    }
  } finally {
    await Promise.all([mine.close(), other?.close()]);
  }
  return row;
}

async function warmUp(process, { open, round, warm = round }, limitSeconds) {
  await process.ask(open);
  await within(limitSeconds, process.ask(warm));
}

function rateOf(answer, regime) {
  return regime ? { ...answer[regime], peakMib: answer.peakMib } : answer;
}

async function failure(run) {
  try {
    await run();
    return null;
  } catch (error) {
    return error.message;
  }
}

async function within(seconds, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${seconds} s`)), seconds * 1000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
