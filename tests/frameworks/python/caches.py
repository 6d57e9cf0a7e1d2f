"""Caches and sessions of web frameworks, over both protocols."""

import asyncio

import redis

from transcript import HOST, MEMCACHED_PORT, PORT, URL, found, run

MEMCACHED = f"{HOST}:{MEMCACHED_PORT}"


def django():
    from django.conf import settings
    from django.core.cache import caches

    redis_cache = "django.core.cache.backends.redis.RedisCache"
    memcached = "django.core.cache.backends.memcached"
    settings.configure(
        CACHES={
            "default": {"BACKEND": redis_cache, "LOCATION": f"{URL}/1"},
            "django-redis": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": f"{URL}/2",
                "OPTIONS": {"COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"},
            },
            "pymemcache": {"BACKEND": f"{memcached}.PyMemcacheCache", "LOCATION": MEMCACHED, "KEY_PREFIX": "pym"},
            "pylibmc": {"BACKEND": f"{memcached}.PyLibMCCache", "LOCATION": MEMCACHED, "KEY_PREFIX": "pyl"},
        },
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
    )
    for name in settings.CACHES:
        cache = caches[name]
        found(name, (cache.get("k"), cache.set("k", {"deep": [1, 2.5, "é"]}, 300), cache.get("k")))
        found("add", (cache.add("a", 1), cache.add("a", 2), cache.get("a")))
        found("counter", (cache.incr("a"), cache.incr("a", 10), cache.decr("a", 2)))
        try:
            cache.incr("missing")
        except ValueError:
            found("missing", "ValueError")
        found("many", (cache.set_many({f"m{n}": n for n in range(5)}, 300), cache.get_many(["m1", "m4", "m9"])))
        found("touch", (cache.touch("m1", 400), cache.touch("m9", 400)))
        found("gone at once", (cache.set("z", 1, 0), cache.get("z"), cache.set("n", 1, -1), cache.get("n")))
        found("or set", (cache.get_or_set("o", lambda: 42, 300), cache.get_or_set("o", lambda: 43, 300)))
        found("versions", (cache.set("v", 1, version=2), cache.get("v"), cache.incr_version("v", version=2)))
        found("delete", (cache.delete("k"), cache.delete("k"), cache.delete_many(["m1", "m2"]), cache.get("m2")))
        found("big", (cache.set("b", "x" * 500_000, 300), len(cache.get("b"))))
        found("clear", (cache.clear(), cache.get("a")))
    cache = caches["django-redis"]
    cache.set_many({"page:1": 1, "page:2": 2, "other": 3}, timeout=300)
    found("keys", (sorted(cache.keys("page:*")), sorted(cache.iter_keys("page:*"))))
    found("pattern", (cache.delete_pattern("page:*"), cache.keys("*")))
    found("ttl", (cache.ttl("other"), cache.persist("other"), cache.ttl("other"), cache.expire("other", 100)))
    with cache.lock("lock", timeout=30):
        found("lock", cache.lock("lock", timeout=30, blocking_timeout=0).acquire(blocking=False))
    found("nx", (cache.set("nx", 1, nx=True), cache.set("nx", 2, nx=True), cache.get("nx")))

    from django.contrib.sessions.backends.cache import SessionStore

    session = SessionStore()
    session["user"] = 7
    session.save()
    again = SessionStore(session.session_key)
    found("session", (again["user"], again.exists(session.session_key)))
    again.flush()
    found("flushed", SessionStore(session.session_key).get("user"))


def flask():
    from flask import Flask, session
    from flask_caching import Cache
    from flask_session import Session

    backends = {
        "redis": {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": f"{URL}/3"},
        "memcached": {"CACHE_TYPE": "MemcachedCache", "CACHE_MEMCACHED_SERVERS": [MEMCACHED]},
    }
    for name, config in backends.items():
        app = Flask(name)
        cache = Cache(app, config={**config, "CACHE_KEY_PREFIX": "flask:", "CACHE_DEFAULT_TIMEOUT": 300})
        calls = []

        @app.route("/<int:n>")
        @cache.cached(query_string=False)
        def page(n):
            calls.append(n)
            return f"page {n}"

        @cache.memoize(300)
        def square(n):
            calls.append(-n)
            return n * n

        client = app.test_client()
        found(name, [client.get(f"/{n}").text for n in (1, 2, 1, 1)])
        with app.app_context():
            found("memoized", [square(n) for n in (3, 4, 3)])
            found("forgotten", (cache.delete_memoized(square, 3), square(3), square(4)))
            found("many", (cache.set_many({"a": 1, "b": None}), cache.get_many("a", "b", "c")))
            found("dict", cache.get_dict("a", "c"))
            found("has", (cache.has("a"), cache.has("z"), cache.add("a", 5), cache.delete("a")))
            found("counter", (cache.set("n", 1), cache.inc("n") if hasattr(cache, "inc") else None))
            found("clear", (cache.clear(), cache.get("b")))
        found("calls", calls)

    app = Flask("sessions")
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.Redis(port=PORT, db=4), SECRET_KEY="x")
    Session(app)

    @app.route("/visits")
    def visits():
        session["visits"] = session.get("visits", 0) + 1
        return str(session["visits"])

    client = app.test_client()
    found("visits", [client.get("/visits").text for _ in range(3)])
    found("stranger", app.test_client().get("/visits").text)


def dogpile():
    from dogpile.cache import make_region

    backends = {
        "dogpile.cache.redis": {"port": PORT, "db": 5, "redis_expiration_time": 600, "distributed_lock": True},
        "dogpile.cache.pymemcache": {"url": [(HOST, MEMCACHED_PORT)], "memcached_expire_time": 600},
        "dogpile.cache.pylibmc": {"url": [MEMCACHED], "distributed_lock": True},
        "dogpile.cache.memcached": {"url": MEMCACHED, "distributed_lock": True},
    }
    for name, arguments in backends.items():
        region = make_region(key_mangler=lambda key: f"{name}:{key}").configure(
            name, expiration_time=300, arguments=arguments
        )
        made = []
        create = lambda: made.append(1) or len(made)
        found(name, [region.get_or_create("k", create) for _ in range(3)])
        found("many", region.get_or_create_multi(["a", "b"], lambda *keys: [key[-1] * 2 for key in keys]))
        region.invalidate()
        found("invalidated", region.get_or_create("k", create))
        region.delete("k")
        found("deleted", bool(region.get("k")))


def aiocache():
    from aiocache import Cache
    from aiocache.lock import OptimisticLock, RedLock
    from aiocache.serializers import JsonSerializer

    async def work():
        kinds = {Cache.REDIS: {"port": PORT, "db": 6}, Cache.MEMCACHED: {"port": MEMCACHED_PORT}}
        for kind, options in kinds.items():
            cache = Cache(kind, endpoint=HOST, serializer=JsonSerializer(), namespace="aio", **options)
            found(kind.__name__, (await cache.set("k", [1, 2], ttl=300), await cache.get("k")))
            found("multi", (await cache.multi_set([["a", 1], ["b", 2]]), await cache.multi_get(["a", "b", "c"])))
            found("exists", (await cache.exists("a"), await cache.exists("z"), await cache.expire("a", 100)))
            try:
                await cache.add("a", 1)
            except ValueError as error:
                found("add", str(error))
            found("increment", await cache.increment("n", 5))
            found("delete", (await cache.delete("a"), await cache.delete("a")))
            async with RedLock(cache, "locked", lease=30):
                found("lock", await cache.exists("locked-lock"))
            async with OptimisticLock(cache, "k") as lock:
                await lock.cas("new")
            found("cas", await cache.get("k"))
            await cache.close()

    asyncio.run(work())


def cashews():
    from cashews import Cache

    async def work():
        cache = Cache()
        cache.setup(f"{URL}/7")
        calls = []

        @cache(ttl="1h", key="square:{n}")
        async def square(n):
            calls.append(n)
            return n * n

        @cache.locked(ttl="30s", key="one")
        async def one():
            return "alone"

        found("squares", [await square(n) for n in (2, 3, 2)])
        found("calls", calls)
        found("invalidated", (await cache.delete_match("square:*"), await square(2), calls))
        found("locked", await one())
        found("incr", (await cache.incr("n"), await cache.incr("n")))
        found("exists", (await cache.set("k", 1, exist=True), await cache.set("k", 1, exist=False)))
        found("many", (await cache.set_many({"a": 1, "b": "x"}), await cache.get_many("a", "b", "c")))
        found("size", await cache.get_size("a") > 0)
        await cache.close()

    asyncio.run(work())


def cachelib():
    from cachelib import MemcachedCache, RedisCache

    kinds = [RedisCache(port=PORT, db=8), MemcachedCache([MEMCACHED], key_prefix="cachelib:")]
    for cache in kinds:
        found(type(cache).__name__, (cache.set("k", {"v": 1}), cache.get("k"), cache.has("k"), cache.add("k", 2)))
        found("counter", (cache.set("n", 1), cache.inc("n", 4), cache.dec("n")))
        found("many", (sorted(cache.set_many({"a": 1, "b": 2})), cache.get_dict("a", "b", "c")))
        found("delete", (cache.delete("a"), cache.delete("a"), sorted(cache.delete_many("b", "k"))))
        found("clear", (cache.clear(), cache.get("n")))


def beaker():
    from beaker.cache import CacheManager

    for kind, url in {"ext:redis": f"{URL}/9", "ext:memcached": MEMCACHED}.items():
        manager = CacheManager(type=kind, url=url, expire=300, lock_dir="/tmp/beaker")
        cache = manager.get_cache("pages")
        made = []
        found(kind, [cache.get(key="k", createfunc=lambda: made.append(1) or len(made)) for _ in range(3)])
        cache.put("other", "x")
        found("has", ("other" in cache, cache.get("other")))
        cache.remove_value("k")
        found("removed", "k" in cache)


if __name__ == "__main__":
    run(django, flask, dogpile, aiocache, cashews, cachelib, beaker)
