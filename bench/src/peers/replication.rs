//! Replication between two servers of one program: a full sync beside a probe, and a load with one replica.

use std::thread;
use std::time::{Duration, Instant};

use super::measure::{Figures, Measurement, Plan, SETTLE};
use super::servers::{Server, Setting};
use super::workloads::{Group, Kind};
use crate::Result;
use crate::load::client::Client;
use crate::load::popularity::Popularity;
use crate::load::probe::{INTERVAL, Probe};
use crate::load::reply::Protocol;
use crate::process::resident_bytes;

/// Between two looks at the primary's memory.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const MIB: f64 = (1 << 20) as f64;

impl Plan {
    /// A replica without data follows a primary that is full; nothing is written meanwhile.
    pub(super) fn full_sync(&self, group: &Group, primary: &Server) -> Result<Figures> {
        self.fill(group, primary)?;
        thread::sleep(SETTLE);
        let filled = resident_bytes(primary.pid())?;
        let replica = self.replica(group, primary)?;
        let probe = Probe::start(
            primary.target,
            Protocol::Resp,
            INTERVAL,
            2,
            &self.client_cores_of(group),
        )?;
        probe.enter(0);
        thread::sleep(self.measured);
        probe.rest();
        probe.enter(1);
        let began = Instant::now();
        follow(&replica, primary)?;
        let (seconds, peak) = thread::scope(|scope| -> Result<(f64, u64)> {
            let waiting = scope.spawn(|| -> Result<f64> {
                wait_for_replica(primary)?;
                Ok(began.elapsed().as_secs_f64())
            });
            let mut peak = filled;
            while !waiting.is_finished() {
                peak = peak.max(resident_bytes(primary.pid())?);
                thread::sleep(LOOK_AGAIN);
            }
            let seconds = waiting.join();
            Ok((seconds.map_err(|_| "the waiting client panicked")??, peak))
        })?;
        probe.rest();
        let felt = probe.finish()?;
        let (calm, disturbed) = (felt[0].summary(), felt[1].summary());
        let extra = peak.saturating_sub(filled) as f64;
        Ok(vec![
            ("sync s", seconds),
            ("extra MiB", extra / MIB),
            ("extra %", 100.0 * extra / filled as f64),
            ("calm p99.9 us", calm.p999_us),
            ("sync p99.9 us", disturbed.p999_us),
            ("sync max us", disturbed.max_us),
            ("p99.9 ratio", disturbed.p999_us / calm.p999_us),
        ])
    }

    /// A load on a primary that one replica follows, and how long that one is busy afterwards.
    pub(super) fn one_replica(
        &self,
        group: &Group,
        primary: &Server,
        mix: &'static str,
        pipeline: usize,
        seed: u64,
    ) -> Result<Measurement> {
        self.fill(group, primary)?;
        let replica = self.replica(group, primary)?;
        follow(&replica, primary)?;
        wait_for_replica(primary)?;
        let kind = Kind::Mix {
            mix,
            pipeline,
            connections: 50,
            popularity: Popularity::Uniform,
        };
        let load = self.measure(group, kind, primary, seed)?;
        let began = Instant::now();
        wait_for_replica(primary)?;
        let behind = began.elapsed().as_secs_f64();
        let loaded = (self.warm_up + self.measured).as_secs_f64();
        Ok(Measurement {
            figures: vec![
                ("cpu us/op", load.cpu_us()),
                ("sent ops/s", load.operations_per_second),
                ("behind s", behind),
                (
                    "applied ops/s",
                    load.operations_per_second * loaded / (loaded + behind),
                ),
            ],
            ..load
        })
    }

    /// A server that is to follow the primary, where the clients are.
    fn replica(&self, group: &Group, primary: &Server) -> Result<Server> {
        let setting = Setting {
            cores: self.client_cores_of(group),
            ..self.setting(group)
        };
        Server::start(&primary.contestant, &setting)
    }
}

fn follow(replica: &Server, primary: &Server) -> Result<()> {
    let (host, port) = (primary.target.ip(), primary.target.port());
    Client::connect(replica.target, Protocol::Resp)?.command(&format!("REPLICAOF {host} {port}"))
}

/// Waits until the replica has everything.
fn wait_for_replica(primary: &Server) -> Result<()> {
    let mut client = Client::connect(primary.target, Protocol::Resp)?;
    client.command("SET bench:replicated 1")?;
    client.command("WAIT 1 0")
}
