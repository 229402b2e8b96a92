// What users of dockerode do, against the daemon of DOCKER_HOST. Exits 1 at the first check that is not so.
'use strict';
const assert = require('assert');
const { PassThrough } = require('stream');
const Docker = require('dockerode');

const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace('unix://', '') });

/** Everything that comes out of a stream of frames, by its two streams. */
function frames(stream) {
  return new Promise((resolve, reject) => {
    const out = new PassThrough(), err = new PassThrough(), got = ['', ''];
    out.on('data', (piece) => { got[0] += piece; });
    err.on('data', (piece) => { got[1] += piece; });
    docker.modem.demuxStream(stream, out, err);
    stream.on('end', () => resolve(got));
    stream.on('close', () => resolve(got));
    stream.on('error', reject);
  });
}

/** The messages of a stream of progress. */
function progress(stream) {
  return new Promise((resolve, reject) => {
    docker.modem.followProgress(stream, (error, messages) => (error ? reject(error) : resolve(messages)));
  });
}

function text(stream) {
  return new Promise((resolve, reject) => {
    let got = '';
    stream.on('data', (piece) => { got += piece; });
    stream.on('end', () => resolve(got));
    stream.on('error', reject);
  });
}

async function made(options) {
  return docker.createContainer({ Image: 'busybox', HostConfig: {}, ...options });
}

const checks = {
  /** Create, attach, start, wait: the way of docker.run. */
  async run() {
    const out = new PassThrough();
    let got = '';
    out.on('data', (piece) => { got += piece; });
    const [ended, box] = await docker.run('busybox', ['sh', '-c', 'echo hi; exit 3'], out, { Tty: true });
    assert.strictEqual(ended.StatusCode, 3);
    assert.strictEqual(got, 'hi\r\n');
    await box.remove();
  },

  /** Input goes in and its end arrives. */
  async hijack() {
    const box = await made({ Cmd: ['cat'], OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true });
    const stream = await box.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
    const got = frames(stream);
    await box.start();
    stream.write('through\n');
    stream.end();
    assert.strictEqual((await got)[0], 'through\n');
    assert.strictEqual((await box.wait()).StatusCode, 0);
    await box.remove();
  },

  async exec() {
    const box = await made({ Cmd: ['sleep', '1000'] });
    await box.start();
    const exec = await box.exec({ Cmd: ['sh', '-c', 'cat; echo err >&2; exit 4'], AttachStdin: true, AttachStdout: true, AttachStderr: true });
    const stream = await exec.start({ hijack: true, stdin: true });
    const got = frames(stream);
    stream.write('in');
    stream.end();
    assert.deepStrictEqual(await got, ['in', 'err\n']);
    const told = await exec.inspect();
    assert.strictEqual(told.ExitCode, 4);
    assert.strictEqual(told.Running, false);
    await box.remove({ force: true });
    await assert.rejects(box.inspect(), (e) => e.statusCode === 404 && e.reason === 'no such container');
  },

  async logs() {
    const box = await made({ Cmd: ['sh', '-c', 'echo one; echo two; sleep 0.2; echo three'] });
    await box.start();
    const [out] = await frames(await box.logs({ follow: true, stdout: true, stderr: true }));
    assert.strictEqual(out, 'one\ntwo\nthree\n');
    const tail = await box.logs({ stdout: true, tail: 1 });
    assert.ok(Buffer.isBuffer(tail) && tail.includes('three'), tail);
    await box.remove();
  },

  async archives() {
    const box = await made({ Cmd: ['cat', '/put'] });
    const block = Buffer.alloc(2048);
    block.write('put'); block.write('0000644\0', 100); block.write('0000000\0', 108); block.write('0000000\0', 116);
    block.write('00000000005\0', 124); block.write('00000000000\0', 136); block.write('0', 156);
    block.write('ustar\0' + '00', 257); block.write('        ', 148);
    let sum = 0;
    for (const byte of block.subarray(0, 512)) sum += byte;
    block.write(sum.toString(8).padStart(6, '0') + '\0 ', 148);
    block.write('there', 512);
    await box.putArchive(block, { path: '/' });
    await box.start();
    await box.wait();
    assert.ok((await box.logs({ stdout: true })).includes('there'));
    const archive = await text(await box.getArchive({ path: '/put' }));
    assert.ok(archive.startsWith('put\0') && archive.includes('there'));
    assert.strictEqual((await box.infoArchive({ path: '/put' })).statusCode || 200, 200);
    await box.remove();
  },

  async build() {
    const context = require('tar-stream').pack();
    context.entry({ name: 'Dockerfile' }, 'FROM busybox\nCOPY file /file\nRUN cat /file\nLABEL a=b\n');
    context.entry({ name: 'file' }, 'of the context\n');
    context.finalize();
    const messages = await progress(await docker.buildImage(context, { t: 'dockerode-made', nocache: true }));
    const said = messages.map((m) => m.stream || '').join('');
    assert.ok(said.includes('of the context') && said.includes('Successfully tagged dockerode-made:latest'), said);
    const image = docker.getImage('dockerode-made');
    assert.strictEqual((await image.inspect()).Config.Labels.a, 'b');
    assert.ok((await image.history()).length >= 3);
    await image.tag({ repo: 'dockerode-again', tag: '1' });
    const archive = await image.get();
    const loaded = await progress(await docker.loadImage(archive));
    assert.ok(loaded.some((m) => (m.stream || '').startsWith('Loaded image')), JSON.stringify(loaded));
    await docker.getImage('dockerode-again:1').remove();
    await image.remove();
    const bad = require('tar-stream').pack();
    bad.entry({ name: 'Dockerfile' }, 'FROM busybox\nRUN exit 7\n');
    bad.finalize();
    const [last] = (await progress(await docker.buildImage(bad, {}))).slice(-1);
    assert.deepStrictEqual(last.errorDetail.code, 7, JSON.stringify(last));
  },

  async networksAndVolumes() {
    const network = await docker.createNetwork({ Name: 'dockerode-net', Labels: { a: '1' } });
    const volume = await docker.createVolume({ Name: 'dockerode-vol' });
    const one = await made({
      Cmd: ['sleep', '1000'], name: 'dockerode-one',
      HostConfig: { NetworkMode: 'dockerode-net', Binds: ['dockerode-vol:/data'] },
    });
    await one.start();
    const two = await made({ Cmd: ['nslookup', 'dockerode-one'], HostConfig: { AutoRemove: false } });
    await network.connect({ Container: two.id });
    await two.start();
    assert.strictEqual((await two.wait()).StatusCode, 0);
    assert.ok(Object.keys((await network.inspect()).Containers).includes(one.id));
    await network.disconnect({ Container: two.id, Force: true });
    await assert.rejects(volume.remove(), (e) => e.statusCode === 409);
    await one.remove({ force: true });
    await two.remove({ force: true });
    await network.remove();
    await volume.remove();
  },

  async eventsAndStats() {
    const events = await docker.getEvents({ filters: { type: ['container'] } });
    const seen = [];
    let rest = '';
    events.on('data', (piece) => {
      rest += piece;
      const lines = rest.split('\n');
      rest = lines.pop();
      for (const line of lines) if (line) seen.push(JSON.parse(line).Action);
    });
    const box = await made({ Cmd: ['sleep', '1000'], name: 'dockerode-stats' });
    await box.start();
    const stats = await box.stats({ stream: false });
    assert.ok(stats.memory_stats.usage > 0 && stats.cpu_stats.cpu_usage.total_usage > 0);
    assert.ok((await box.top()).Processes.some((row) => row.includes('sleep 1000')));
    await box.pause();
    assert.strictEqual((await box.inspect()).State.Status, 'paused');
    await box.unpause();
    await box.rename({ name: 'dockerode-renamed' });
    await box.update({ Memory: 64 << 20, MemorySwap: 128 << 20 });
    await box.kill({ signal: 'SIGKILL' });
    await box.wait();
    await box.remove();
    for (let n = 0; n < 100 && !seen.includes('destroy'); n++) await new Promise((go) => setTimeout(go, 50));
    events.destroy();
    for (const wanted of ['create', 'start', 'pause', 'unpause', 'rename', 'update', 'kill', 'die', 'destroy']) {
      assert.ok(seen.includes(wanted), `${wanted} is not among ${seen}`);
    }
  },

  async listsAndErrors() {
    assert.ok((await docker.ping()).toString() === 'OK');
    assert.ok((await docker.info()).ID);
    assert.ok((await docker.version()).ApiVersion);
    assert.ok(Array.isArray(await docker.listImages({ filters: { reference: ['busybox'] } })));
    assert.ok(Array.isArray(await docker.listContainers({ all: true, filters: { status: ['running'] } })));
    assert.ok(Array.isArray((await docker.listVolumes()).Volumes));
    assert.ok((await docker.listNetworks()).some((network) => network.Name === 'bridge'));
    assert.ok((await docker.df()).ImageUsage);
    await assert.rejects(docker.createContainer({ Image: 'no-such-image' }), (e) => e.statusCode === 404);
    await assert.rejects(docker.listServices(), (e) => e.statusCode === 503);
  },
};

async function main() {
  const wanted = process.argv.slice(2);
  for (const [name, check] of Object.entries(checks)) {
    if (wanted.length && !wanted.includes(name)) continue;
    await check();
    console.log('ok', name);
  }
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
