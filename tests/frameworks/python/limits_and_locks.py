"""Rate limiters and locks: most of them are Lua scripts that must be atomic."""

import asyncio
import threading
import time

import redis

from transcript import HOST, MEMCACHED_PORT, PORT, URL, found, run


def limits():
    from limits import parse, storage, strategies

    daily = parse("3/day")
    stores = {
        "redis": storage.storage_from_string(f"{URL}/1"),
        "memcached": storage.storage_from_string(f"memcached://{HOST}:{MEMCACHED_PORT}"),
    }
    kinds = [
        strategies.FixedWindowRateLimiter,
        strategies.MovingWindowRateLimiter,
        strategies.SlidingWindowCounterRateLimiter,
    ]
    for name, store in stores.items():
        found(name, store.check())
        for kind in kinds:
            if kind is strategies.MovingWindowRateLimiter and name == "memcached":
                continue
            limiter = kind(store)
            user = f"{kind.__name__}-user"
            found(kind.__name__, [limiter.hit(daily, user) for _ in range(5)])
            found("heavy", [limiter.hit(daily, user + "2", cost=2) for _ in range(3)])
            found("test", (limiter.test(daily, user), limiter.test(daily, "nobody")))
            found("left", limiter.get_window_stats(daily, user + "2").remaining)
            limiter.clear(daily, user)
            found("cleared", limiter.hit(daily, user))
    found("reset", stores["redis"].reset())

    burst = parse("50/day")
    limiter = strategies.MovingWindowRateLimiter(stores["redis"])
    allowed = []

    def hit():
        allowed.extend(limiter.hit(burst, "crowd") for _ in range(20))

    threads = [threading.Thread(target=hit) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    found("of a crowd", sum(allowed))


def async_limits():
    from limits import parse
    from limits.aio import storage, strategies

    async def work():
        store = storage.RedisStorage(f"async+{URL}/1", implementation="redispy")
        limiter = strategies.MovingWindowRateLimiter(store)
        answers = await asyncio.gather(*(limiter.hit(parse("30/day"), "crowd") for _ in range(100)))
        found("of a crowd", sum(answers))
        sliding = strategies.SlidingWindowCounterRateLimiter(store)
        found("sliding", [await sliding.hit(parse("3/day"), "one") for _ in range(5)])

    asyncio.run(work())


def flask_limiter():
    from flask import Flask
    from flask_limiter import Limiter

    app = Flask("limited")
    for name, uri in [("redis", f"{URL}/2"), ("memcached", f"memcached://{HOST}:{MEMCACHED_PORT}")]:
        app = Flask(name)
        limiter = Limiter(lambda: "client", app=app, storage_uri=uri, headers_enabled=True)

        @app.route("/")
        @limiter.limit("3/day", key_func=lambda: name)
        def page():
            return "fine"

        client = app.test_client()
        answers = [client.get("/") for _ in range(5)]
        found(name, [(a.status_code, a.headers.get("X-RateLimit-Remaining")) for a in answers])


def throttled():
    from throttled import RateLimiterType, Throttled, per_day, store

    backend = store.RedisStore(server=f"{URL}/3")
    for kind in RateLimiterType:
        throttle = Throttled(using=kind.value, quota=per_day(5, burst=5), store=backend, timeout=-1)
        results = [throttle.limit("user", cost=1) for _ in range(7)]
        found(kind.value, [(r.limited, r.state.limit, r.state.remaining) for r in results])


def pyrate_limiter():
    from pyrate_limiter import Duration, Limiter, Rate, RedisBucket

    bucket = RedisBucket.init([Rate(3, Duration.HOUR)], redis.Redis(port=PORT, db=4), "bucket")
    limiter = Limiter(bucket)
    found("acquired", [limiter.try_acquire("user", blocking=False) for _ in range(5)])
    found("count", bucket.count())
    found("flushed", bucket.flush())
    found("heavy", [limiter.try_acquire("user", weight=2, blocking=False) for _ in range(2)])


def redis_py_lock():
    client = redis.Redis(port=PORT, db=5)
    lock = client.lock("resource", timeout=30, blocking=False)
    other = client.lock("resource", timeout=30, blocking=False)
    found("taken", (lock.acquire(), other.acquire(), lock.owned(), other.locked()))
    found("extended", (lock.extend(100), lock.extend(10, replace_ttl=True), lock.reacquire()))
    try:
        other.local.token = b"stranger"
        other.release()
    except redis.exceptions.LockError as error:
        found("stranger", str(error))
    lock.release()
    found("free", other.acquire())

    counter = {"value": 0, "errors": 0}

    def work():
        for _ in range(20):
            with client.lock("counted", timeout=30, sleep=0.005):
                value = counter["value"]
                time.sleep(0.0005)
                counter["value"] = value + 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    found("counted", counter)


def python_redis_lock():
    import redis_lock

    client = redis.Redis(port=PORT, db=6)
    lock = redis_lock.Lock(client, "resource", expire=30, id="first")
    other = redis_lock.Lock(client, "resource", expire=30, id="second")
    found("taken", (lock.acquire(blocking=False), other.acquire(blocking=False), other.get_owner_id()))
    lock.extend(60)
    try:
        other.release()
    except redis_lock.NotAcquired as error:
        found("stranger", type(error).__name__)
    threading.Timer(0.2, lock.release).start()
    found("waited for", other.acquire(timeout=20))
    other.release()
    lock.acquire()
    redis_lock.reset_all(client)
    found("reset", lock.locked())


def pottery():
    from pottery import (
        HyperLogLog, NextID, RedisCounter, RedisDeque, RedisDict, RedisList, RedisSet, Redlock, ReleaseUnlockedLock,
        BloomFilter, redis_cache,
    )

    client = redis.Redis(port=PORT, db=7)
    masters = {client}
    lock = Redlock(key="printer", masters=masters, auto_release_time=30)
    other = Redlock(key="printer", masters=masters, auto_release_time=30)
    found("taken", (lock.acquire(blocking=False), other.acquire(blocking=False)))
    found("locked", lock.locked() > 0)
    lock.extend()
    lock.release()
    try:
        lock.release()
    except ReleaseUnlockedLock as error:
        found("released twice", type(error).__name__)
    ids = NextID(key="ids", masters=masters)
    found("ids", [next(ids) for _ in range(5)])
    phones = RedisDict({"a": 1, "b": [1, 2]}, redis=client, key="dict")
    phones.update(c=None)
    found("dict", sorted(phones.items()))
    numbers = RedisList([1, 4, 9], redis=client, key="list")
    numbers.insert(1, "two")
    numbers[0:2] = [0, 0]
    del numbers[-1]
    found("list", list(numbers))
    letters = RedisSet("abc", redis=client, key="set")
    letters |= {"d"}
    found("set", (sorted(letters), list(letters.contains_many("a", "z"))))
    counts = RedisCounter("gallahad", redis=client, key="counter")
    counts.subtract("al")
    found("counter", counts.most_common(2))
    deque = RedisDeque("ghi", maxlen=4, redis=client, key="deque")
    deque.extend("jk")
    deque.rotate(1)
    found("deque", list(deque))
    visitors = HyperLogLog({str(n) for n in range(1_000)}, redis=client, key="hll")
    found("hyperloglog", len(visitors))
    bloom = BloomFilter({"bright", "morning"}, num_elements=100, false_positives=0.01, redis=client, key="bloom")
    found("bloom", ("bright" in bloom, "dark" in bloom, len(bloom)))

    @redis_cache(redis=client, key="cache", timeout=60)
    def expensive(n):
        return n * n

    found("cached", ([expensive(n) for n in (2, 3, 2)], str(expensive.cache_info())))


def semaphore():
    from redis_semaphore import Semaphore

    client = redis.Redis(port=PORT, db=8)
    tokens = Semaphore(client, count=2, namespace="pool")
    first, second = tokens.acquire(timeout=1), tokens.acquire(timeout=1)
    found("tokens", sorted([first, second]))
    found("left", tokens.available_count)
    tokens.signal(first)
    found("again", tokens.acquire(timeout=1) == first)


def walrus():
    from walrus import Database

    db = Database(port=PORT, db=9)
    db.ping()
    limit = db.rate_limit("walrus", limit=3, per=3_600)
    found("limited", [limit.limit("user") for _ in range(5)])
    with db.lock("lock", ttl=10_000):
        found("lock", db.lock("lock", ttl=10_000).acquire(block=False))
    cache = db.cache()
    found("cache", (cache.get("k"), cache.set("k", {"v": 1}, 60), cache.get("k")))
    words = db.autocomplete()
    for title in ("walrus walking", "walrus swimming", "seal swimming"):
        words.store(title)
    found("autocomplete", [list(words.search("wal")), list(words.search("swim sea"))])
    graph = db.graph("graph")
    graph.store("charlie", "likes", "huey")
    graph.store("charlie", "likes", "mickey")
    graph.store("nuggie", "likes", "huey")
    found("graph", [list(graph.query(s="charlie", p="likes")), sorted(e["s"] for e in graph.query(o="huey"))])
    stream = db.Stream("events")
    ids = [stream.add({"n": n}, f"{n}-1") for n in range(1, 5)]
    group = db.consumer_group("workers", ["events"])
    group.create()
    group.set_id("0-0")
    found("group", [(ids == [i for _, items in group.read(count=4) for i, _ in items]), [p["message_id"] for p in group.events.pending()]])
    flags = db.bit_field("bits")
    found("bits", flags.incrby("u8", 0, 200).incrby("u8", 0, 100, "SAT").get("u4", 2).execute())


if __name__ == "__main__":
    run(limits, async_limits, flask_limiter, throttled, pyrate_limiter, redis_py_lock, python_redis_lock, pottery,
        semaphore, walrus)
