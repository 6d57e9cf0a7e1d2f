"""Job queues: jobs go in, real workers run them, results and failures come out."""

import asyncio
import datetime
import logging
import time

import redis

from jobs import add, fail
from transcript import PORT, URL, found, run

logging.disable(logging.CRITICAL)


def until(condition, patience=30):
    """Waits for a condition; whether it came true."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def celery():
    from celery import Celery, chain, chord, group
    from celery.contrib.testing.worker import start_worker

    app = Celery("tasks", broker=f"{URL}/1", backend=f"{URL}/2")
    app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)
    plus = app.task(name="plus")(add)

    @app.task(name="total")
    def total(numbers):
        return sum(numbers)

    @app.task(name="flaky", bind=True, max_retries=3)
    def flaky(self):
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return self.request.retries

    broken = app.task(name="broken")(fail)
    # Queued before anybody works, so that the list is seen as it lies there.
    results = [plus.delay(number, 1) for number in range(20)]
    connection = redis.Redis.from_url(f"{URL}/1")
    found("waiting", connection.llen("celery"))
    with start_worker(app, pool="solo", perform_ping_check=False, loglevel="critical"):
        found("results", [result.get(timeout=30) for result in results])
        found("chain", chain(plus.s(1, 2), plus.s(4), plus.s(8)).delay().get(timeout=30))
        found("group", group(plus.s(n, n) for n in range(5))().get(timeout=30))
        found("chord", chord((plus.s(n, n) for n in range(10)), total.s())().get(timeout=30))
        found("retries", flaky.delay().get(timeout=30))
        result = broken.delay()
        found("failure", (type(result.get(timeout=30, propagate=False)).__name__, result.state))
        found("later", plus.apply_async((5, 5), countdown=1).get(timeout=30))
        revoked = plus.apply_async((6, 6), countdown=100)
        revoked.revoke()
    found("waiting at the end", connection.llen("celery"))


def rq():
    from rq import Queue, Retry, SimpleWorker
    from rq.registry import FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry

    connection = redis.Redis(port=PORT, db=3)
    high, low = Queue("high", connection=connection), Queue("low", connection=connection)
    jobs = [low.enqueue(add, n, n) for n in range(5)]
    first = high.enqueue(add, 100, 1)
    dependent = low.enqueue(add, 7, 7, depends_on=jobs)
    failing = low.enqueue(fail, retry=Retry(max=2))
    later = high.enqueue_in(datetime.timedelta(hours=1), add, 1, 1)
    unique = high.enqueue(add, 2, 2, job_id="only-once")
    found("queued", (len(high), len(low), low.get_job_ids() == [job.id for job in jobs] + [failing.id]))
    SimpleWorker([high, low], connection=connection).work(burst=True, with_scheduler=False)
    found("results", [job.return_value() for job in [*jobs, first, dependent, unique]])
    found("status", [str(job.get_status()) for job in [dependent, failing, later]])
    found("failed", FailedJobRegistry(queue=low).count)
    found("finished", FinishedJobRegistry(queue=low).count)
    found("scheduled", ScheduledJobRegistry(queue=high).count)
    FailedJobRegistry(queue=low).requeue(failing.id)
    found("requeued", low.get_job_ids() == [failing.id])
    found("emptied", low.empty())
    later.cancel()
    found("cancelled", str(later.get_status()))


def dramatiq():
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.rate_limits import BucketRateLimiter, ConcurrentRateLimiter, WindowRateLimiter
    from dramatiq.rate_limits.backends import RedisBackend as Limits
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    broker = RedisBroker(url=f"{URL}/4")
    broker.add_middleware(Results(backend=RedisBackend(url=f"{URL}/4")))
    dramatiq.set_broker(broker)
    plus = dramatiq.actor(add, store_results=True, actor_name="plus")
    attempts = []

    @dramatiq.actor(max_retries=2, min_backoff=1, max_backoff=1)
    def broken():
        attempts.append(1)
        fail()

    messages = [plus.send(n, 1) for n in range(20)]
    delayed = plus.send_with_options(args=(40, 2), delay=300)
    broken.send()
    found("queued", broker.client.llen("dramatiq:default"))
    worker = dramatiq.Worker(broker, worker_timeout=100, worker_threads=2)
    worker.start()
    found("results", [message.get_result(block=True, timeout=30_000) for message in messages])
    found("delayed", delayed.get_result(block=True, timeout=30_000))
    found("attempts", until(lambda: len(attempts) == 3))
    broker.join("default", timeout=30_000)
    worker.stop()
    dead = lambda: broker.client.zcard("dramatiq:default.XQ")
    found("dead letters", (until(lambda: dead() == 1), dead()))

    backend = Limits(url=f"{URL}/4")
    limiters = [
        ConcurrentRateLimiter(backend, "concurrent", limit=2),
        BucketRateLimiter(backend, "bucket", limit=2, bucket=86_400_000),
        WindowRateLimiter(backend, "window", limit=2, window=3_600),
    ]
    for limiter in limiters:
        with limiter.acquire(), limiter.acquire(), limiter.acquire(raise_on_failure=False) as third:
            found(type(limiter).__name__, third)


def huey():
    from huey import PriorityRedisHuey, RedisExpireHuey, RedisHuey

    for kind in (RedisHuey, PriorityRedisHuey, RedisExpireHuey):
        queue = kind("jobs", port=PORT, db=5)
        queue.flush()
        plus = queue.task()(add)
        results = [plus(n, 1, priority=n) if kind is PriorityRedisHuey else plus(n, 1) for n in range(5)]
        plus.schedule((50, 5), delay=3_600)
        found("pending", queue.pending_count())
        order = []
        while len(queue):
            task = queue.dequeue()
            order.append(task.args[0])
            queue.execute(task)
        found("order", order)
        found("results", [result() for result in results])
        found("scheduled", queue.scheduled_count())
        with queue.lock_task("one at a time"):
            try:
                with queue.lock_task("one at a time"):
                    found("lock", "taken twice")
            except Exception as error:
                found("lock", type(error).__name__)


def arq():
    from arq import Worker, create_pool, func
    from arq.connections import RedisSettings

    async def plus(_, x, y):
        return x + y

    async def broken(_):
        fail()

    async def work():
        settings = RedisSettings(port=PORT, database=6)
        pool = await create_pool(settings)
        jobs = [await pool.enqueue_job("plus", n, 1, _job_id=f"job-{n}") for n in range(10)]
        found("twice", await pool.enqueue_job("plus", 1, 1, _job_id="job-1"))
        jobs.append(await pool.enqueue_job("broken"))
        worker = Worker([func(plus, name="plus"), func(broken, name="broken")], redis_settings=settings, burst=True, poll_delay=0.05, max_tries=2,
                        handle_signals=False)
        await worker.main()
        found("worker", (worker.jobs_complete, worker.jobs_failed))
        found("results", [await job.result(timeout=10) for job in jobs[:-1]])
        found("status", [str(await job.status()) for job in jobs])
        await worker.close()

    asyncio.run(work())


def apscheduler():
    from apscheduler.jobstores.redis import RedisJobStore
    from apscheduler.schedulers.background import BackgroundScheduler

    scheduler = BackgroundScheduler(jobstores={"default": RedisJobStore(port=PORT, db=7)}, timezone="UTC")
    scheduler.start(paused=True)
    for n in range(3):
        moment = datetime.datetime(2100, 1, 1, n, tzinfo=datetime.timezone.utc)
        scheduler.add_job("jobs:add", "date", run_date=moment, args=(n, n), id=f"job-{n}")
    scheduler.reschedule_job("job-0", trigger="date", run_date=datetime.datetime(2101, 1, 1))
    found("jobs", [(job.id, str(job.next_run_time)) for job in scheduler.get_jobs()])
    scheduler.remove_job("job-1")
    found("left", [job.id for job in scheduler.get_jobs()])
    scheduler.shutdown()


def channels():
    from channels_redis.core import RedisChannelLayer
    from channels_redis.pubsub import RedisPubSubChannelLayer

    async def chat():
        layer = RedisChannelLayer(hosts=[f"{URL}/8"], capacity=3)
        names = [await layer.new_channel() for _ in range(3)]
        for name in names:
            await layer.group_add("room", name)
        await layer.group_discard("room", names[2])
        await layer.group_send("room", {"type": "chat", "text": "hello"})
        found("received", [await layer.receive(name) for name in names[:2]])
        refused = 0
        for n in range(5):
            try:
                await layer.send("full", {"type": "number", "n": n})
            except Exception as error:
                refused += type(error).__name__ == "ChannelFull"
        found("refused", refused)
        await layer.flush()
        await layer.close_pools()
        layer = RedisPubSubChannelLayer(hosts=[f"{URL}/8"])
        name = await layer.new_channel()
        await layer.group_add("room", name)
        await layer.group_send("room", {"type": "chat", "text": "again"})
        found("by pub/sub", await layer.receive(name))
        await layer.flush()

    asyncio.run(chat())


if __name__ == "__main__":
    run(celery, rq, dramatiq, huey, arq, apscheduler, channels)
