/** A hub that refuses, limits, or is none: what is sent to whom, what is repeated, and what the messages say. */
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FormatError } from '../../src/base/errors.ts';
import { DownloadError } from '../../src/io/http.node.ts';
import { fetchModel, type HubOptions } from '../../src/io/hub.node.ts';
import { parseHubId } from '../../src/io/hub-settings.node.ts';
import { COMMIT, COMMIT_2, type FakeHub, fakeHub } from '../support/hub.ts';

const ID = 'org/model';
const weights = Buffer.alloc(20_000, 'weights ');
const files = { 'config.json': '{}', 'model.safetensors': weights };

let hub: FakeHub;
beforeEach(async () => {
  hub = await fakeHub();
  hub.add(ID, files);
});
afterEach(() => hub.close());

const fetch = (options: HubOptions = {}, settings = hub.settings, id = ID): Promise<string> =>
  fetchModel(parseHubId(id)!, options, settings);
const expectWeights = async (path: string): Promise<void> => {
  expect((await readFile(path)).equals(weights)).toBe(true);
};

describe('refusals', () => {
  const withToken = () => ({ ...hub.settings, token: 'secret-token' });

  it('a gated model', async () => {
    hub.add(ID, files, { gated: true });
    const failed = fetch();
    await expect(failed).rejects.toThrow('status 403 (Access to model org/model is restricted)');
    await expect(failed).rejects.toThrow(`accept its licence at ${hub.endpoint}/org/model and set HF_TOKEN`);
    await expect(failed).rejects.toThrow('No token was sent.');
    await expect(fetch({}, withToken())).rejects.toThrow('A token was sent.');
  });

  it('a private model needs the token, which no other host ever sees', async () => {
    hub.add(ID, files, { token: 'secret-token' });
    await expect(fetch()).rejects.toThrow(
      /expected a model org\/model at .*if the model is private, set HF_TOKEN/,
    );
    hub.seen = [];
    await expectWeights(await fetch({}, withToken()));
    const sent = (host: string) =>
      hub.seen.filter((seen) => seen.host === host).map((seen) => seen.authorization);
    expect(new Set(sent('hub'))).toEqual(new Set(['Bearer secret-token']));
    expect(sent('cdn')).toEqual([undefined]);
  });

  it('nor a host that a listing names as the place of its next page', async () => {
    const seen: (string | undefined)[] = [];
    const other = createServer((request, response) => {
      seen.push(request.headers.authorization);
      response.end('[]');
    });
    await new Promise<void>((listening) => other.listen(0, '127.0.0.1', listening));
    const next = `http://127.0.0.1:${(other.address() as AddressInfo).port}/`;
    hub.mischief = ({ path }, response) => {
      if (!path.includes('/tree/')) return false;
      response.writeHead(200, { link: `<${next}>; rel="next"` }).end('[]');
      return true;
    };
    await expect(fetch({}, withToken())).rejects.toThrow('got no files');
    expect(seen).toEqual([undefined]);
    await new Promise((closed) => other.close(closed));
  });

  it('a token that the hub does not know', async () => {
    hub.mischief = (_, response) =>
      !!response.writeHead(401, { 'x-error-message': 'Invalid credentials' }).end();
    const failed = fetch({}, withToken());
    await expect(failed).rejects.toThrow('to accept the token, got status 401 (Invalid credentials)');
    await expect(failed).rejects.not.toThrow('secret-token');
  });

  it('404: of the model, the revision, a file', async () => {
    await expect(fetch({}, hub.settings, 'org/none')).rejects.toThrow('expected a model org/none at');
    await expect(fetch({ revision: 'v9' })).rejects.toThrow(
      'expected a revision v9 of org/model, got status 404',
    );
    hub.mischief = ({ path }, response) => {
      const isFile = path.includes('/resolve/');
      if (isFile) response.writeHead(404, { 'x-error-code': 'EntryNotFound' }).end();
      return isFile;
    };
    await expect(fetch()).rejects.toThrow(`expected config.json in org/model at ${COMMIT}, got status 404`);
    expect(hub.seen.length).toBeLessThan(8); // refusals are not repeated
  });

  it('429: waits as long as it is asked to, but not for hours', async () => {
    let isFirst = true;
    hub.mischief = ({ path }, response) => {
      if (!path.includes('model.safetensors') || !isFirst) return false;
      isFirst = false;
      response.writeHead(429, { 'retry-after': '1' }).end();
      return true;
    };
    const started = performance.now();
    await expectWeights(await fetch());
    expect(performance.now() - started).toBeGreaterThanOrEqual(999); // timers count whole milliseconds
    const date = new Date(Date.now() + 3_600_000).toUTCString();
    for (const limit of [
      { 'retry-after': '3600' },
      { 'retry-after': date },
      { ratelimit: '"api";r=0;t=3600' },
    ]) {
      hub.mischief = (_, response) => !!response.writeHead(429, limit).end();
      await expect(fetch({ revision: COMMIT_2 })).rejects.toThrow(
        /got status 429 and the wish for a pause of 3[56]\d\d s/,
      );
    }
  });

  it('5xx is repeated, and told in the end', async () => {
    let left = 2;
    hub.mischief = ({ path }, response) =>
      path.startsWith('/api/') && left-- > 0 && !!response.writeHead(503).end();
    await fetch();
    hub.mischief = (_, response) => !!response.writeHead(500).end();
    await expect(fetch({ revision: COMMIT_2 })).rejects.toThrow('got status 500 after 3 attempts');
  });
});

describe('a hub that is none', () => {
  const respond = (match: string, body: string): void => {
    hub.mischief = ({ path }, response) => path.includes(match) && !!response.writeHead(200).end(body);
  };
  const entry = { type: 'file', path: 'config.json', size: 2, oid: 'e'.repeat(40) };

  it.each([
    '../../../evil',
    '/etc/passwd',
    'a/../../b',
    'a//b',
    'C:\\evil',
    '..\\evil',
    'config.json:stream',
    '',
    'a\u001b[2Jb',
  ])('file name %j is refused', async (path) => {
    respond('/tree/', JSON.stringify([entry, { ...entry, path }]));
    const failed = fetch();
    await expect(failed).rejects.toThrow(FormatError);
    await expect(failed).rejects.toThrow('expected relative file names');
    expect(hub.fetched()).toEqual([]);
  });

  it.each([
    ['/revision/', '<html>sign in</html>'],
    ['/revision/', '{"sha":"../../../evil"}'],
    ['/revision/', '{}'],
    ['/tree/', '{}'],
    ['/tree/', 'null'],
    ['/tree/', JSON.stringify([{ ...entry, oid: '../evil' }])],
    ['/tree/', JSON.stringify([{ ...entry, size: -1 }])],
    ['/tree/', JSON.stringify([{ ...entry, size: '2' }])],
    ['/tree/', JSON.stringify([{ ...entry, lfs: { oid: entry.oid, size: 2 } }])],
  ])('%s answers %s', async (match, body) => {
    respond(match, body);
    const failed = fetch();
    await expect(failed).rejects.toThrow(DownloadError);
    await expect(failed).rejects.toThrow('expected an answer about org/model');
  });

  it('pages without end', async () => {
    hub.mischief = ({ path }, response) => {
      if (!path.includes('/tree/')) return false;
      response.writeHead(200, { link: `<${hub.endpoint}${path}>; rel="next"` }).end('[]');
      return true;
    };
    await expect(fetch()).rejects.toThrow('got pages without end');
  });
});
