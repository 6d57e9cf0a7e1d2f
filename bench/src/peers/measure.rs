//! Takes one measurement: one workload on one server.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::servers::{Contestant, Server, Setting};
use super::workloads::{Group, Kind, Prepare, QUICK_DIVISOR};
use crate::load::client::{Client, get_request, resp};
use crate::load::engine::{self, Job, Keys, Length, Moment, Outcome};
use crate::load::fan_out::FanOut;
use crate::load::filling_job;
use crate::load::latency::{Latencies, Summary};
use crate::load::mix::{Mix, Shape, ValueSize};
use crate::load::popularity::Popularity;
use crate::load::probe::{INTERVAL, Probe};
use crate::load::reply::{Protocol, Tally};
use crate::process::{CpuTime, resident_bytes};
use crate::{Result, affinity};

/// Time for what a server does after it has answered: freeing, purging, a periodic job.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// How long a disturbance may have effects after its reply.
const AFTERMATH: Duration = Duration::from_millis(50);

/// Most rounds of a disturbance that needs to be prepared each time.
const MAX_DISTURBANCES: usize = 50;

/// Pipeline and connections of the load beside a probe.
const LOAD_PIPELINE: usize = 16;
const LOAD_CONNECTIONS: usize = 50;

/// Servers of their own are measured with the same draws.
const SEED: u64 = 1;

/// More than any workload connects.
const MAX_CLIENTS: usize = 20_000;

/// Elements of the big values that are listed and deleted beside a probe.
const BIG_VALUE: u64 = 1_000_000;

/// How long and on which cores.
pub(crate) struct Plan {
    pub(crate) quick: bool,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    pub(crate) server_cores: Vec<usize>,
    pub(crate) client_cores: Vec<usize>,
}

/// What one run of a workload showed. Workloads that are not about throughput fill `figures` only.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measurement {
    pub(crate) operations_per_second: f64,
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    /// CPU time over wall time; less than the number of threads means that the client was the limit.
    pub(crate) busy: f64,
    pub(crate) latency: Summary,
    pub(crate) resident_mib: f64,
    pub(crate) tally: Tally,
    pub(crate) figures: Vec<(&'static str, f64)>,
}

impl Measurement {
    /// Server CPU per operation, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }

    pub(crate) fn json(&self) -> Value {
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|&(name, value)| (name.to_owned(), json!(value)))
            .collect();
        json!({
            "operations_per_second": self.operations_per_second,
            "cpu_us_per_operation": self.cpu_us(),
            "user_us_per_operation": self.user_us,
            "system_us_per_operation": self.system_us,
            "busy": self.busy,
            "latency": self.latency.json(),
            "resident_mib": self.resident_mib,
            "misses": self.tally.misses,
            "errors": self.tally.errors,
            "first_error": self.tally.first_error,
            "figures": figures,
        })
    }
}

impl Plan {
    pub(crate) fn scaled(&self, number: u64) -> u64 {
        if self.quick && number > 1000 {
            number / QUICK_DIVISOR
        } else {
            number
        }
    }

    pub(crate) fn setting(&self, group: &Group) -> Setting {
        Setting {
            threads: group.server_threads,
            cores: if group.pinned {
                self.server_cores.clone()
            } else {
                Vec::new()
            },
            value_size: group.value_size.largest,
            max_clients: MAX_CLIENTS,
        }
    }

    pub(super) fn client_cores_of(&self, group: &Group) -> Vec<usize> {
        if group.pinned {
            self.client_cores.clone()
        } else {
            Vec::new()
        }
    }

    fn shape(&self, group: &Group, protocol: Protocol) -> Shape {
        Shape {
            protocol,
            keys: self.scaled(group.keys),
            key_size: 16,
            value_size: group.value_size,
        }
    }

    /// Stores what the group's workloads expect to find.
    pub(crate) fn fill(&self, group: &Group, server: &Server) -> Result<()> {
        if server.contestant.is_floor() {
            return Ok(());
        }
        for mix in group.filled_with {
            self.fill_with(group, server, mix)?;
        }
        Ok(())
    }

    fn fill_with(&self, group: &Group, server: &Server, mix: &str) -> Result<Outcome> {
        let shape = self.shape(group, server.contestant.protocol);
        let mut job = filling_job(
            server.target,
            shape.protocol,
            Mix::named(mix, shape)?,
            shape.keys,
        );
        job.cores = self.client_cores_of(group);
        without_errors(engine::run(&job, &mut |_| {})?)
    }

    /// One measurement on a server that runs and is filled.
    pub(crate) fn measure(
        &self,
        group: &Group,
        kind: Kind,
        server: &Server,
        seed: u64,
    ) -> Result<Measurement> {
        let protocol = server.contestant.protocol;
        let job = |mix, pipeline, connections, popularity, reconnect| -> Result<Job> {
            let shape = self.shape(group, protocol);
            Ok(Job {
                target: server.target,
                protocol,
                mix: Mix::named(mix, shape)?,
                keys: Keys::Drawn {
                    count: shape.keys,
                    popularity,
                },
                threads: group.client_threads,
                connections,
                pipeline,
                rate: None,
                length: Length::Time {
                    warm_up: self.warm_up,
                    measured: self.measured,
                },
                reconnect,
                cores: self.client_cores_of(group),
                background: false,
                seed,
            })
        };
        match kind {
            Kind::Mix {
                mix,
                pipeline,
                connections,
                popularity,
            } => {
                let job = job(mix, pipeline, connections, popularity, false)?;
                accounted(server, |watch| engine::run(&job, watch))
            }
            Kind::Connect { in_flight } => {
                let job = job("get", 1, in_flight, Popularity::Uniform, true)?;
                accounted(server, |watch| engine::run(&job, watch))
            }
            Kind::FanOut {
                subscribers,
                window,
            } => {
                let fan_out = self.fan_out(group, server, subscribers, window, false);
                accounted(server, |watch| fan_out.run(watch))
            }
            Kind::WakeUp => accounted(server, |watch| self.wake_up(group, server, watch)),
            Kind::Memory { .. }
            | Kind::Idle { .. }
            | Kind::Growth
            | Kind::Stall { .. }
            | Kind::FanOutStall { .. }
            | Kind::FullSync
            | Kind::OneReplica { .. } => Err("this workload needs a server of its own".into()),
        }
    }

    /// One measurement on a server started for it.
    pub(crate) fn measure_fresh(
        &self,
        group: &Group,
        kind: Kind,
        contestant: &Contestant,
    ) -> Result<Measurement> {
        let server = Server::start(contestant, &self.setting(group))?;
        let figures = match kind {
            Kind::Memory {
                mix,
                payload,
                elements_per_operation,
            } => self.memory(group, &server, mix, payload, elements_per_operation)?,
            Kind::Idle { connections } => self.idle(&server, connections)?,
            Kind::Growth => self.growth(group, &server)?,
            Kind::Stall { prepare, disturb } => self.stall(group, &server, prepare, disturb)?,
            Kind::FanOutStall { subscribers } => self.fan_out_stall(group, &server, subscribers)?,
            Kind::FullSync => self.full_sync(group, &server)?,
            Kind::OneReplica { mix, pipeline } => {
                return self.one_replica(group, &server, mix, pipeline, SEED);
            }
            Kind::Mix { .. } | Kind::Connect { .. } | Kind::FanOut { .. } | Kind::WakeUp => {
                return Err("this workload runs on the group's servers".into());
            }
        };
        let resident_mib = resident_bytes(server.pid())? as f64 / f64::from(1 << 20);
        Ok(Measurement {
            figures,
            resident_mib,
            ..Measurement::default()
        })
    }

    fn fan_out(
        &self,
        group: &Group,
        server: &Server,
        subscribers: usize,
        window: usize,
        background: bool,
    ) -> FanOut {
        FanOut {
            target: server.target,
            subscribers,
            window,
            message_size: 64,
            warm_up: self.warm_up,
            measured: self.measured,
            cores: self.client_cores_of(group),
            background,
        }
    }

    /// One client waits for a list, another pushes, once per millisecond.
    fn wake_up(
        &self,
        group: &Group,
        server: &Server,
        watch: &mut dyn FnMut(Moment),
    ) -> Result<Outcome> {
        let work = || -> Result<Outcome> {
            let mut waiting = Client::connect(server.target, Protocol::Resp)?;
            let mut pushing = Client::connect(server.target, Protocol::Resp)?;
            let (wait, push) = (resp("BLPOP queue 0"), resp("LPUSH queue job"));
            let (mut latencies, mut served) = (Latencies::new(), 0);
            let opened = Instant::now();
            watch(Moment::Opened);
            while opened.elapsed() < self.measured {
                waiting.send(&wait)?;
                thread::sleep(Duration::from_millis(1));
                let pushed = Instant::now();
                pushing.send(&push)?;
                waiting.receive(1)?;
                latencies.record(pushed.elapsed().as_nanos() as u64, 1);
                pushing.receive(1)?;
                served += 1;
            }
            watch(Moment::Closed);
            let seconds = opened.elapsed().as_secs_f64();
            Ok(Outcome {
                operations: served,
                seconds,
                latency: latencies.summary(),
                tally: Tally::default(),
            })
        };
        affinity::pinned(&self.client_cores_of(group), work)
    }

    fn memory(
        &self,
        group: &Group,
        server: &Server,
        mix: &str,
        payload: u64,
        per_operation: u64,
    ) -> Result<Figures> {
        // What the first connections and requests need is not the data's.
        let mut client = Client::connect(server.target, server.contestant.protocol)?;
        client.call(&get_request(server.contestant.protocol, "key"))?;
        let empty = resident_bytes(server.pid())?;
        let outcome = self.fill_with(group, server, mix)?;
        thread::sleep(SETTLE);
        let filled = resident_bytes(server.pid())?;
        let elements = self.scaled(group.keys) * per_operation;
        let each = filled.saturating_sub(empty) as f64 / elements as f64;
        Ok(vec![
            ("bytes over payload", each - payload as f64),
            ("bytes in all", each),
            ("empty MiB", empty as f64 / f64::from(1 << 20)),
            ("inserts/s", outcome.operations_per_second()),
        ])
    }

    fn idle(&self, server: &Server, connections: usize) -> Result<Figures> {
        let protocol = server.contestant.protocol;
        let request = get_request(protocol, "key");
        let connect = || -> Result<Client> {
            let mut client = Client::connect_small(server.target, protocol)?;
            client.call(&request)?;
            Ok(client)
        };
        let first = connect()?;
        let empty = resident_bytes(server.pid())?;
        let mut clients = (0..connections)
            .map(|_| connect())
            .collect::<Result<Vec<_>>>()?;
        thread::sleep(SETTLE);
        let full = resident_bytes(server.pid())?;
        let (before, began) = (CpuTime::of(server.pid())?, Instant::now());
        thread::sleep(self.measured.max(SETTLE));
        let spent = CpuTime::of(server.pid())?
            .since(before)
            .total()
            .as_secs_f64()
            / began.elapsed().as_secs_f64();
        for client in &mut clients {
            client.call(&request)?;
        }
        drop(first);
        Ok(vec![
            (
                "bytes per connection",
                full.saturating_sub(empty) as f64 / connections as f64,
            ),
            ("idle CPU %", spent * 100.0),
        ])
    }

    fn growth(&self, group: &Group, server: &Server) -> Result<Figures> {
        let shape = self.shape(group, server.contestant.protocol);
        let job = Job {
            pipeline: LOAD_PIPELINE,
            connections: LOAD_CONNECTIONS,
            cores: self.client_cores_of(group),
            background: true,
            ..filling_job(
                server.target,
                shape.protocol,
                Mix::named("set", shape)?,
                shape.keys,
            )
        };
        let probe = Probe::start(
            server.target,
            shape.protocol,
            INTERVAL,
            2,
            &self.client_cores_of(group),
        )?;
        let mut speeds = Vec::new();
        for phase in 0..2 {
            let outcome = engine::run(&job, &mut |moment| match moment {
                Moment::Opened => probe.enter(phase),
                Moment::Progress { .. } => {}
                Moment::Closed => probe.rest(),
            })?;
            speeds.push(without_errors(outcome)?.operations_per_second());
        }
        let felt = probe.finish()?;
        let (grow, overwrite) = (felt[0].summary(), felt[1].summary());
        Ok(vec![
            ("grow ops/s", speeds[0]),
            ("grow p50 us", grow.p50_us),
            ("grow p99 us", grow.p99_us),
            ("grow p99.9 us", grow.p999_us),
            ("grow max us", grow.max_us),
            ("overwrite ops/s", speeds[1]),
            ("overwrite p50 us", overwrite.p50_us),
            ("overwrite p99 us", overwrite.p99_us),
            ("overwrite p99.9 us", overwrite.p999_us),
            ("overwrite max us", overwrite.max_us),
            ("p99 ratio", grow.p99_us / overwrite.p99_us),
            ("p99.9 ratio", grow.p999_us / overwrite.p999_us),
        ])
    }

    fn stall(
        &self,
        group: &Group,
        server: &Server,
        prepare: Prepare,
        disturb: &[&str],
    ) -> Result<Figures> {
        let cores = self.client_cores_of(group);
        let elements = self.scaled(BIG_VALUE);
        if !prepare.each_time() {
            self.prepare(group, server, prepare, elements)?;
        }
        // In this order, so that with two workers the two get one each.
        let mut client = Client::connect(server.target, Protocol::Resp)?;
        let probe = Probe::start(server.target, Protocol::Resp, INTERVAL, 2, &cores)?;
        probe.enter(0);
        thread::sleep(self.measured);
        probe.rest();
        let began = Instant::now();
        let mut rounds = 0;
        while rounds < 2 || (began.elapsed() < 2 * self.measured && rounds < MAX_DISTURBANCES) {
            if prepare.each_time() {
                self.prepare(group, server, prepare, elements)?;
            }
            probe.enter(1);
            in_background(&cores, || {
                disturb
                    .iter()
                    .try_for_each(|command| client.command(command))
            })?;
            thread::sleep(AFTERMATH);
            probe.rest();
            rounds += 1;
        }
        Ok(stall_figures(&probe.finish()?, rounds as f64))
    }

    fn prepare(
        &self,
        group: &Group,
        server: &Server,
        prepare: Prepare,
        elements: u64,
    ) -> Result<()> {
        let mix = match prepare {
            Prepare::Set => "sadd",
            Prepare::SortedSet => "zadd",
            Prepare::Keys | Prepare::KeysEachTime => "set",
        };
        let value_size = ValueSize::fixed(64);
        let shape = Shape {
            protocol: Protocol::Resp,
            keys: elements,
            key_size: 16,
            value_size,
        };
        let mut job = filling_job(
            server.target,
            Protocol::Resp,
            Mix::named(mix, shape)?,
            elements,
        );
        job.cores = self.client_cores_of(group);
        without_errors(engine::run(&job, &mut |_| {})?)?;
        Ok(())
    }

    fn fan_out_stall(&self, group: &Group, server: &Server, subscribers: usize) -> Result<Figures> {
        let subscribers = self.scaled(subscribers as u64) as usize;
        let probe = Probe::start(
            server.target,
            Protocol::Resp,
            INTERVAL,
            2,
            &self.client_cores_of(group),
        )?;
        probe.enter(0);
        thread::sleep(self.measured);
        probe.rest();
        let outcome = self
            .fan_out(group, server, subscribers, 1, true)
            .run(&mut |moment| match moment {
                Moment::Opened => probe.enter(1),
                Moment::Progress { .. } => {}
                Moment::Closed => probe.rest(),
            })?;
        Ok(stall_figures(
            &probe.finish()?,
            outcome.operations as f64 / subscribers as f64,
        ))
    }
}

pub(super) type Figures = Vec<(&'static str, f64)>;

impl Prepare {
    fn each_time(self) -> bool {
        matches!(self, Self::Set | Self::KeysEachTime)
    }
}

/// Runs something with the server's CPU time taken exactly around its measured window.
fn accounted(
    server: &Server,
    run: impl FnOnce(&mut (dyn FnMut(Moment) + Send)) -> Result<Outcome>,
) -> Result<Measurement> {
    let pid = server.pid();
    let (mut before, mut after) = (CpuTime::of(pid), CpuTime::of(pid));
    let outcome = run(&mut |moment| match moment {
        Moment::Opened => before = CpuTime::of(pid),
        Moment::Progress { .. } => {}
        Moment::Closed => after = CpuTime::of(pid),
    })?;
    let spent = after?.since(before?);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / (outcome.operations.max(1)) as f64;
    Ok(Measurement {
        operations_per_second: outcome.operations_per_second(),
        user_us: each(spent.user),
        system_us: each(spent.system),
        busy: spent.total().as_secs_f64() / outcome.seconds.max(1e-9),
        latency: outcome.latency,
        resident_mib: resident_bytes(pid)? as f64 / f64::from(1 << 20),
        tally: outcome.tally,
        figures: Vec::new(),
    })
}

/// Runs `work` on a thread that gives way to the probe.
fn in_background(cores: &[usize], work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            affinity::pin(cores)?;
            affinity::give_way()?;
            work()
        });
        thread
            .join()
            .map_err(|_| "the disturbing client panicked")?
    })
}

fn stall_figures(felt: &[crate::load::probe::Felt], disturbances: f64) -> Figures {
    let (calm, disturbed) = (felt[0].summary(), felt[1].summary());
    vec![
        ("calm p50 us", calm.p50_us),
        ("calm p99.9 us", calm.p999_us),
        ("disturbed p50 us", disturbed.p50_us),
        ("disturbed p99.9 us", disturbed.p999_us),
        ("disturbed max us", disturbed.max_us),
        ("p99.9 ratio", disturbed.p999_us / calm.p999_us),
        ("disturbances", disturbances),
    ]
}

fn without_errors(outcome: Outcome) -> Result<Outcome> {
    match outcome.tally.first_error {
        Some(error) => Err(format!("the server answered {error}").into()),
        None => Ok(outcome),
    }
}
