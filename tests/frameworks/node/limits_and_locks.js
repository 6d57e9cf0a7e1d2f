// Rate limiters and locks: most of them are Lua scripts that must be atomic.
"use strict";

const { Redis } = require("ioredis");
const { found, host, memcachedPort, port, run, sleep } = require("./transcript");

const settled = (promises) => Promise.allSettled(promises);
const allowed = (outcomes) => outcomes.filter((outcome) => outcome.status === "fulfilled").length;

async function rateLimiterFlexible() {
  const limiters = require("rate-limiter-flexible");
  const Memcached = require("memcached");
  const { createClient } = require("redis");
  const nodeRedis = await createClient({ url: `redis://${host}:${port}/1` }).connect();
  const stores = {
    ioredis: [limiters.RateLimiterRedis, { storeClient: new Redis({ port, db: 1 }) }],
    "node-redis": [limiters.RateLimiterRedis, { storeClient: nodeRedis, useRedisPackage: true }],
    memcached: [limiters.RateLimiterMemcache, { storeClient: new Memcached(`${host}:${memcachedPort}`) }],
  };
  for (const [name, [Limiter, options]] of Object.entries(stores)) {
    const limiter = new Limiter({ ...options, points: 5, duration: 86_400, keyPrefix: name });
    const steps = [];
    for (let n = 0; n < 7; n++) {
      const { consumedPoints, remainingPoints, isFirstInDuration } = await limiter.consume("user").catch((r) => r);
      steps.push([consumedPoints, remainingPoints, isFirstInDuration]);
    }
    found(name, steps);
    found("crowd", allowed(await settled(Array.from({ length: 50 }, () => limiter.consume("crowd")))));
    found("penalty", (await limiter.penalty("other", 2)).consumedPoints);
    // memcached's store asks for a negative increment, which no memcached takes.
    if (name !== "memcached") found("reward", (await limiter.reward("other", 1)).consumedPoints);
    found("get", [(await limiter.get("other")).consumedPoints, await limiter.get("nobody")]);
    found("block", (await limiter.block("blocked", 1000)).msBeforeNext > 900_000);
    found("blocked", (await limiter.consume("blocked").catch((r) => r)).remainingPoints);
    found("delete", [await limiter.delete("user"), await limiter.delete("user")]);
    found("set", (await limiter.set("chosen", 3, 100)).consumedPoints);
  }
  const storeClient = new Redis({ port, db: 1 });
  const blocking = new limiters.RateLimiterRedis({
    storeClient, points: 2, duration: 86_400, blockDuration: 86_400, execEvenly: false, keyPrefix: "blocking",
  });
  found("blocking", allowed(await settled(Array.from({ length: 10 }, () => blocking.consume("user")))));
  const bursty = new limiters.BurstyRateLimiter(
    new limiters.RateLimiterRedis({ storeClient, points: 2, duration: 86_400, keyPrefix: "steady" }),
    new limiters.RateLimiterRedis({ storeClient, points: 3, duration: 86_400, keyPrefix: "burst" })
  );
  found("bursty", allowed(await settled(Array.from({ length: 10 }, () => bursty.consume("user")))));
  const inserted = new limiters.RateLimiterRedis({
    storeClient, points: 3, duration: 86_400, insuranceLimiter: undefined, keyPrefix: "union", rejectIfRedisNotReady: true,
  });
  found("union", (await new limiters.RateLimiterUnion(inserted, blocking).consume("someone")).union.consumedPoints);
}

async function expressRateLimit() {
  const express = require("express");
  const { rateLimit } = require("express-rate-limit");
  const { RedisStore } = require("rate-limit-redis");
  const client = new Redis({ port, db: 2 });
  const store = new RedisStore({ sendCommand: (...words) => client.call(...words) });
  const app = express();
  app.use(rateLimit({ windowMs: 3_600_000, limit: 3, standardHeaders: "draft-7", legacyHeaders: false, store }));
  app.get("/", (_, response) => response.send("fine"));
  const server = await new Promise((resolve) => { const s = app.listen(0, host, () => resolve(s)); });
  const answers = [];
  for (let n = 0; n < 5; n++) {
    const response = await fetch(`http://${host}:${server.address().port}/`);
    answers.push([response.status, response.headers.get("ratelimit").replace(/reset=.*/, "")]);
  }
  found("answers", answers);
  await store.increment("key");
  await store.increment("key");
  await store.decrement("key");
  found("hits", (await store.get("key")).totalHits);
  await store.resetKey("key");
  found("reset", (await store.get("key")).totalHits);
}

async function fastify() {
  const app = require("fastify")();
  await app.register(require("@fastify/rate-limit"), {
    max: 3, timeWindow: "1 hour", redis: new Redis({ port, db: 3 }), ban: 1,
  });
  app.get("/", async () => "fine");
  const answers = [];
  for (let n = 0; n < 6; n++) {
    const { statusCode, headers } = await app.inject("/");
    answers.push([statusCode, headers["x-ratelimit-remaining"]]);
  }
  found("answers", answers);
}

async function ratelimiter() {
  const Limiter = require("ratelimiter");
  const limiter = new Limiter({ db: new Redis({ port, db: 4 }), id: "user", max: 3, duration: 3_600_000 });
  const left = [];
  for (let n = 0; n < 5; n++) {
    left.push(await new Promise((resolve, reject) =>
      limiter.get((error, limit) => (error ? reject(error) : resolve(limit.remaining)))
    ));
  }
  found("left", left);
}

async function bottleneck() {
  const Bottleneck = require("bottleneck");
  const make = () => new Bottleneck({
    id: "shared", datastore: "ioredis", Redis,
    clientOptions: { host, port, db: 5 }, maxConcurrent: 2, reservoir: 12, clearDatastore: false, timeout: 60_000,
  });
  const limiters = [make(), make()];
  await Promise.all(limiters.map((limiter) => limiter.ready()));
  let running = 0;
  let most = 0;
  const job = async (n) => {
    most = Math.max(most, ++running);
    await sleep(5);
    running--;
    return n * n;
  };
  const jobs = Array.from({ length: 12 }, (_, n) => limiters[n % 2].schedule(() => job(n)));
  found("results", await Promise.all(jobs));
  found("at once", most <= 2);
  found("reservoir", await limiters[0].currentReservoir());
  const waiting = limiters[1].schedule(() => job(100));
  await limiters[0].incrementReservoir(1);
  found("after increment", await waiting);
  found("done", await limiters[0].done?.());
  await Promise.all(limiters.map((limiter) => limiter.disconnect()));
}

async function redlock() {
  const Redlock = require("redlock");
  const clients = [6, 7, 8].map((db) => new Redis({ port, db }));
  const patient = new Redlock(clients, { retryCount: 200, retryDelay: 5, retryJitter: 5 });
  const impatient = new Redlock(clients, { retryCount: 0 });
  const lock = await patient.lock("printer", 30_000);
  found("taken", await impatient.lock("printer", 30_000).catch((error) => error.name));
  const extended = await lock.extend(60_000);
  found("extended", extended.value === lock.value);
  await extended.unlock();
  found("unlocked twice", await extended.unlock().catch((error) => error.name));
  const several = await impatient.lock(["a", "b"], 30_000);
  found("several", await impatient.lock(["b", "c"], 30_000).catch((error) => error.name));
  await several.unlock();
  let value = 0;
  await Promise.all(Array.from({ length: 20 }, async () => {
    const held = await patient.lock("counted", 30_000);
    const seen = value;
    await sleep(1);
    value = seen + 1;
    await held.unlock();
  }));
  found("counted", value);
}

run({ rateLimiterFlexible, expressRateLimit, fastify, ratelimiter, bottleneck, redlock });
