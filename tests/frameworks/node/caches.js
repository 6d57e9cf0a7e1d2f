// Caches, sessions and plain clients, over both protocols.
"use strict";

const { Redis } = require("ioredis");
const { found, host, memcachedPort, port, run, until } = require("./transcript");

const url = (db) => `redis://${host}:${port}/${db}`;

async function sessions() {
  const express = require("express");
  const session = require("express-session");
  const { RedisStore } = require("connect-redis");
  const { createClient } = require("redis");
  const client = await createClient({ url: url(1) }).connect();
  const store = new RedisStore({ client, ttl: 3_600 });
  const app = express();
  app.use(session({ store, secret: "x", resave: false, saveUninitialized: false }));
  app.get("/visit", (request, response) => {
    request.session.visits = (request.session.visits ?? 0) + 1;
    response.send(String(request.session.visits));
  });
  app.get("/leave", (request, response) => request.session.destroy(() => response.send("left")));
  const server = await new Promise((resolve) => { const s = app.listen(0, host, () => resolve(s)); });
  const get = async (path, cookie) => {
    const response = await fetch(`http://${host}:${server.address().port}${path}`, { headers: cookie ? { cookie } : {} });
    return [await response.text(), response.headers.get("set-cookie")?.split(";")[0]];
  };
  const [first, cookie] = await get("/visit");
  found("visits", [first, (await get("/visit", cookie))[0], (await get("/visit", cookie))[0]]);
  found("stranger", (await get("/visit"))[0]);
  found("stored", [await store.length(), (await store.all()).map((s) => s.visits).sort()]);
  found("left", [(await get("/leave", cookie))[0], await store.length()]);
  await store.clear();
  found("cleared", await store.ids());
}

async function keyv() {
  const { Keyv } = require("keyv");
  const { createCache } = require("cache-manager");
  for (const name of ["@keyv/redis", "@keyv/valkey"]) {
    const Store = require(name).default;
    const keyv = new Keyv({ store: new Store(url(2)), namespace: name });
    found(name, [await keyv.set("k", { deep: [1, null] }, 60_000), await keyv.get("k"), await keyv.has("z")]);
    found("many", [await keyv.get(["k", "z"]), await keyv.delete("k"), await keyv.delete("k")]);
    const cache = createCache({ stores: [keyv] });
    let calls = 0;
    const load = () => cache.wrap("wrapped", async () => ++calls, 60_000);
    found("wrapped", [await load(), await load(), calls]);
    await cache.mset([{ key: "a", value: 1 }, { key: "b", value: 2 }]);
    found("mget", await cache.mget(["a", "b", "c"]));
    await keyv.set("other", 1);
    const keys = [];
    for await (const [key] of keyv.iterator?.(name) ?? []) keys.push(key);
    found("keys", keys.sort());
    await keyv.clear();
    found("cleared", await keyv.get("other"));
  }
}

async function nodeRedis() {
  const { createClient, RESP_TYPES } = require("redis");
  for (const RESP of [2, 3]) {
    const client = await createClient({ url: url(3), RESP }).connect();
    await client.flushDb();
    found("strings", [await client.set("k", "v", { EX: 100 }), await client.getEx("k", { PERSIST: true }), await client.ttl("k")]);
    found("hash", [await client.hSet("h", { a: 1, b: "x" }), await client.hGetAll("h"), await client.hExpire("h", "a", 100)]);
    found("zset", [
      await client.zAdd("z", [{ score: 1.5, value: "a" }, { score: 2, value: "b" }]),
      await client.zRangeWithScores("z", 0, -1),
      await client.zIncrBy("z", 2, "a"),
      await client.zPopMax("z"),
    ]);
    found("stream", [await client.xAdd("s", "1-1", { f: "v" }), await client.xRange("s", "-", "+"), await client.xLen("s")]);
    found("geo", [
      await client.geoAdd("g", { longitude: 13.361389, latitude: 38.115556, member: "Palermo" }),
      await client.geoSearch("g", { longitude: 13, latitude: 38 }, { radius: 100, unit: "km" }),
    ]);
    found("multi", await client.multi().incr("n").get("k").hGet("h", "b").exec());
    const other = await client.duplicate().connect();
    await other.watch("n");
    await client.incr("n");
    found("watch", await other.multi().incr("n").exec().catch((error) => error.name));
    const popped = other.blPop("list", 20);
    await client.rPush("list", ["x", "y"]);
    found("blocking", await popped);
    const heard = [];
    await other.subscribe("news", (message) => heard.push(message));
    await other.pSubscribe("n*", (message, channel) => heard.push(`${channel} ${message}`));
    found("publish", await client.publish("news", "hello"));
    await until(() => heard.length === 2);
    found("heard", heard.sort());
    const keys = [];
    for await (const some of client.scanIterator({ MATCH: "?", COUNT: 5 })) keys.push(...some);
    found("scan", keys.sort());
    found("function", [
      await client.functionLoad("#!lua name=lib\nserver.register_function('f', function(k, a) return {k[1], a[1], 3} end)", { REPLACE: true }),
      await client.fCall("f", { keys: ["k"], arguments: ["a"] }),
    ]);
    found("script", await client.eval("return {KEYS[1], ARGV[1], redis.call('get', KEYS[1])}", { keys: ["k"], arguments: ["1"] }));
    found("buffers", await client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer }).get("k"));
    found("error", await client.lPush("k", "x").catch((error) => error.message));
    other.destroy();
    client.destroy();
  }
  const cached = await createClient({ url: url(3), RESP: 3, clientSideCache: { ttl: 0, maxEntries: 0 } }).connect();
  const writer = await createClient({ url: url(3) }).connect();
  await writer.set("seen", "1");
  const first = await cached.get("seen");
  await writer.set("seen", "2");
  found("client-side cache", [first, await until(async () => (await cached.get("seen")) === "2")]);
}

async function valkey() {
  const Valkey = require("iovalkey").Valkey ?? require("iovalkey");
  const client = new Valkey({ host, port, db: 4 });
  found("pipeline", await client.pipeline().set("k", "v").incr("k").get("k").exec().then((all) => all.map(([e, v]) => e?.message ?? v)));
  client.defineCommand("both", { numberOfKeys: 2, lua: "return redis.call('mget', unpack(KEYS))" });
  found("command", [await client.both("k", "z"), await client.both("z", "k")]);
  found("stream", await client.xadd("s", "1-1", "f", "v"));
  client.disconnect();
}

async function memcached() {
  const Memcached = require("memcached");
  const client = new Memcached(`${host}:${memcachedPort}`);
  const call = (name, ...words) =>
    new Promise((resolve) => client[name](...words, (error, value) => resolve(error ? String(error) : value)));
  found("set", [await call("set", "k", { deep: [1] }, 100), await call("get", "k"), await call("get", "missing")]);
  found("add", [await call("add", "k", 1, 100), await call("add", "n", 5, 100), await call("replace", "gone", 1, 100)]);
  found("numbers", [await call("incr", "n", 4), await call("decr", "n", 100), await call("incr", "gone", 1)]);
  found("text", [await call("set", "t", "b", 100), await call("append", "t", "c"), await call("prepend", "t", "a"), await call("get", "t")]);
  found("many", await call("getMulti", ["k", "t", "missing"]));
  const { cas } = await call("gets", "t");
  found("cas", [await call("cas", "t", "new", cas, 100), await call("cas", "t", "newer", cas, 100), await call("get", "t")]);
  found("touch", [await call("touch", "t", 200), await call("touch", "gone", 200)]);
  found("buffer", [await call("set", "b", Buffer.from([0, 13, 10, 255]), 100), await call("get", "b")]);
  found("big", [await call("set", "big", "x".repeat(900_000), 100), (await call("get", "big")).length]);
  found("too big", await call("set", "big", "x".repeat(1_048_577), 100));
  found("delete", [await call("del", "k"), await call("del", "k")]);
  found("flush", [await call("flush"), await call("get", "t")]);
}

run({ sessions, keyv, nodeRedis, valkey, memcached });
