// Job queues and the messages between servers: jobs go in, real workers run them, results and failures come out.
"use strict";

const Redis = require("ioredis").Redis;
const { found, host, port, run, sleep, until } = require("./transcript");

async function bullmq() {
  const { FlowProducer, Queue, QueueEvents, UnrecoverableError, Worker } = require("bullmq");
  const connection = { host, port, db: 1, maxRetriesPerRequest: null };
  const queue = new Queue("mail", { connection });
  const events = new QueueEvents("mail", { connection });
  await events.waitUntilReady();

  await queue.pause();
  const jobs = await queue.addBulk(
    Array.from({ length: 20 }, (_, n) => ({ name: "plus", data: { n }, opts: { priority: n % 3 ? n : undefined } }))
  );
  const same = await queue.add("plus", { n: 100 }, { jobId: "only-once" });
  await queue.add("plus", { n: 101 }, { jobId: "only-once" });
  const flaky = await queue.add("flaky", {}, { attempts: 3, backoff: { type: "fixed", delay: 5 } });
  const broken = await queue.add("broken", {}, { attempts: 5 });
  const delayed = await queue.add("plus", { n: 7 }, { delay: 300 });
  const deduplicated = [];
  for (let n = 0; n < 3; n++) {
    deduplicated.push((await queue.add("plus", { n }, { deduplication: { id: "d", ttl: 60_000 } })).id);
  }
  found("deduplicated", new Set(deduplicated).size);
  found("waiting", await queue.getJobCounts());
  found("priorities", (await queue.getJobs(["prioritized"])).map((job) => job.priority).sort((a, b) => a - b));

  const order = [];
  const worker = new Worker(
    "mail",
    async (job) => {
      order.push(job.data.n);
      if (job.name === "flaky" && job.attemptsMade < 2) throw new Error("once more");
      if (job.name === "broken") throw new UnrecoverableError("for good");
      await job.updateProgress(50);
      await job.log("a line");
      return (job.data.n ?? 0) + 1;
    },
    { connection, concurrency: 1 }
  );
  await queue.resume();
  found("results", await Promise.all(jobs.map((job) => job.waitUntilFinished(events, 30_000))));
  found("once", await same.waitUntilFinished(events, 30_000));
  found("flaky", await flaky.waitUntilFinished(events, 30_000));
  found("broken", await broken.waitUntilFinished(events, 30_000).catch((error) => error.message));
  found("delayed", await delayed.waitUntilFinished(events, 30_000));
  found("state", [await jobs[0].getState(), await broken.getState(), await delayed.getState()]);
  found("logs", (await queue.getJobLogs(jobs[3].id)).logs);
  found("first of the order", order.slice(0, 8));
  found("counts", await queue.getJobCounts("completed", "failed", "delayed", "active", "wait"));
  found("finished", (await queue.getCompleted(0, 2)).length);
  await broken.retry().catch((error) => found("retry", error.message));
  found("failed again", await until(async () => (await queue.getFailedCount()) === 1));

  const flow = new FlowProducer({ connection });
  const tree = await flow.add({
    name: "parent", queueName: "mail", data: { n: 1000 },
    children: [1, 2, 3].map((n) => ({ name: "plus", queueName: "mail", data: { n } })),
  });
  found("flow", await tree.job.waitUntilFinished(events, 30_000));
  found("children", Object.values(await tree.job.getChildrenValues()).sort());

  await queue.upsertJobScheduler("nightly", { pattern: "0 3 * * *" }, { name: "plus", data: { n: 1 } });
  found("schedulers", (await queue.getJobSchedulers()).map((scheduler) => [scheduler.key, scheduler.pattern]));
  found("removed", await queue.removeJobScheduler("nightly"));
  await worker.close();

  const limited = new Worker("limited", async () => Date.now(), { connection, limiter: { max: 2, duration: 300 } });
  const limits = new Queue("limited", { connection });
  const limitEvents = new QueueEvents("limited", { connection });
  await limitEvents.waitUntilReady();
  const times = await Promise.all(
    (await limits.addBulk([1, 2, 3, 4, 5].map((n) => ({ name: "n", data: { n } })))).map((job) =>
      job.waitUntilFinished(limitEvents, 30_000)
    )
  );
  found("limited", Math.max(...times) - Math.min(...times) >= 500);
  await limited.close();
  found("cleaned", (await queue.clean(0, 100, "completed")).length > 20);
  await queue.obliterate({ force: true });
  found("left", await new Redis({ port, db: 1 }).keys("bull:mail:*"));
}

async function bull() {
  const Queue = require("bull");
  const queue = new Queue("video", { redis: { host, port, db: 2 } });
  await queue.isReady();
  await queue.pause();
  const jobs = [];
  for (let n = 0; n < 10; n++) jobs.push(await queue.add({ n }, { priority: (n % 3) + 1 }));
  const failing = await queue.add({ fail: true }, { attempts: 2 });
  const delayed = await queue.add({ n: 50 }, { delay: 200 });
  found("counts", await queue.getJobCounts());
  queue.process(async (job) => {
    if (job.data.fail) throw new Error("meant to");
    await job.progress(10);
    return job.data.n * 2;
  });
  await queue.resume();
  found("results", await Promise.all(jobs.map((job) => job.finished())));
  found("failing", await failing.finished().catch((error) => error.message));
  found("delayed", await delayed.finished());
  found("counts", await queue.getJobCounts());
  await queue.add({ n: 1 }, { repeat: { cron: "0 3 * * *" } });
  found("repeatable", (await queue.getRepeatableJobs()).map((job) => job.cron));
  await queue.empty();
  await queue.close();
}

async function beeQueue() {
  const Queue = require("bee-queue");
  const queue = new Queue("bees", { redis: { host, port, db: 3 }, activateDelayedJobs: true });
  const jobs = [];
  for (let n = 0; n < 10; n++) jobs.push(await queue.createJob({ n }).save());
  const failing = await queue.createJob({ fail: true }).retries(1).save();
  const delayed = await queue.createJob({ n: 70 }).delayUntil(Date.now() + 300).save();
  found("health", await queue.checkHealth());
  const results = new Map();
  queue.on("job succeeded", (id, result) => results.set(id, result));
  const failures = [];
  queue.on("job retrying", (id) => failures.push(["retrying", id === failing.id]));
  queue.on("job failed", (id) => failures.push(["failed", id === failing.id]));
  queue.process(async (job) => {
    if (job.data.fail) throw new Error("meant to");
    return job.data.n + 1;
  });
  found("done", await until(() => results.size === 11 && failures.length === 2));
  found("results", [...jobs, delayed].map((job) => results.get(job.id)));
  found("failures", failures);
  found("stalled", await queue.checkStalledJobs());
  await queue.destroy();
  await queue.close(1_000);
}

async function resque() {
  const { Plugins, Queue, Scheduler, Worker } = require("node-resque");
  const connection = { pkg: "ioredis", host, port, database: 4 };
  const jobs = {
    plus: { perform: async (a, b) => a + b },
    broken: { perform: async () => { throw new Error("meant to"); } },
    alone: { plugins: [Plugins.QueueLock], pluginOptions: {}, perform: async () => "alone" },
  };
  const queue = new Queue({ connection }, jobs);
  await queue.connect();
  for (let n = 0; n < 5; n++) await queue.enqueue("math", "plus", [n, n]);
  await queue.enqueue("math", "broken", []);
  found("alone", [await queue.enqueue("math", "alone", [1]), await queue.enqueue("math", "alone", [1])]);
  await queue.enqueueIn(50, "math", "plus", [100, 1]);
  found("queued", [await queue.length("math"), await queue.queues(), (await queue.scheduledAt("math", "plus", [100, 1])).length]);
  const scheduler = new Scheduler({ connection });
  await scheduler.connect();
  scheduler.start();
  const results = [];
  const worker = new Worker({ connection, queues: ["math"], timeout: 10 }, jobs);
  worker.on("success", (_, job, result) => results.push(result));
  worker.on("failure", (_, job, failure) => results.push(failure.message));
  await worker.connect();
  worker.start();
  found("done", await until(() => results.length === 8));
  found("results", results);
  found("failed", [await queue.failedCount(), (await queue.failed(0, 10)).map((failure) => failure.error)]);
  const stats = await queue.stats();
  found("stats", [stats["processed"], stats["failed"]]);
  found("leader", (await queue.leader()) !== "");
  await worker.end();
  await scheduler.end();
  await queue.end();
}

async function rsmq() {
  const RSMQ = require("rsmq");
  const queue = new RSMQ({ host, port, ns: "rsmq", options: { db: 5 } });
  const name = { qname: "post" };
  found("created", await queue.createQueueAsync({ ...name, vt: 60 }));
  for (let n = 0; n < 3; n++) await queue.sendMessageAsync({ ...name, message: `message ${n}` });
  const first = await queue.receiveMessageAsync(name);
  found("first", [first.message, first.rc]);
  found("second", (await queue.popMessageAsync(name)).message);
  await queue.changeMessageVisibilityAsync({ ...name, id: first.id, vt: 0 });
  const again = await queue.receiveMessageAsync(name);
  found("again", [again.message, again.rc]);
  found("deleted", await queue.deleteMessageAsync({ ...name, id: first.id }));
  const { msgs, hiddenmsgs, totalrecv, totalsent } = await queue.getQueueAttributesAsync(name);
  found("attributes", { msgs, hiddenmsgs, totalrecv, totalsent });
}

async function socketIo() {
  const { createServer } = require("http");
  const { Server } = require("socket.io");
  const { io } = require("socket.io-client");
  const { createAdapter } = require("@socket.io/redis-adapter");
  const { Emitter } = require("@socket.io/redis-emitter");
  const servers = [];
  for (let n = 0; n < 2; n++) {
    const http = createServer();
    const publisher = new Redis({ port });
    const server = new Server(http, { adapter: createAdapter(publisher, publisher.duplicate()) });
    server.on("connection", (socket) => socket.join("room"));
    await new Promise((resolve) => http.listen(0, host, resolve));
    servers.push({ server, address: `http://${host}:${http.address().port}` });
  }
  const clients = servers.map(({ address }) => io(address, { transports: ["websocket"] }));
  const received = [];
  clients.forEach((client, n) => client.on("said", (text) => received.push(`${n} ${text}`)));
  await until(() => clients.every((client) => client.connected));
  await until(async () => (await servers[0].server.in("room").fetchSockets()).length === 2);
  servers[0].server.to("room").emit("said", "hello");
  await until(() => received.length === 2);
  new Emitter(new Redis({ port })).to("room").emit("said", "from outside");
  await until(() => received.length === 4);
  found("received", received.sort());
  found("server side", await new Promise((resolve) => {
    servers[1].server.on("ask", (answer) => answer("pong"));
    setTimeout(() => servers[0].server.serverSideEmit("ask", (error, answers) => resolve(answers)), 100);
  }));
  clients.forEach((client) => client.close());
  await sleep(50);
}

run({ bullmq, bull, beeQueue, resque, rsmq, socketIo });
