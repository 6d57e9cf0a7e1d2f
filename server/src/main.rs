//! The `ferrite` program: reads the command line, starts the workers, waits for the end.
#![forbid(unsafe_code)]

use std::{
    env, fs,
    io::{self, Write},
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use server::{
    commands,
    config::{self, Answer, Config, Invocation, Settings},
    log, maintenance,
    net::{
        descriptors,
        listener::{self, Listening},
    },
    persistence::{aof, recovery, snapshot},
    replication, runtime,
    server::{PauseReason, Server, ShutdownRequest},
    session::registry::Wire,
};
use storage::huge_pages;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

// A sanitizer sees only what the system's allocator hands out; memory is not counted then, nor limited.
#[cfg(not(sanitized))]
#[global_allocator]
static ALLOCATOR: storage::alloc::Allocator = storage::alloc::Allocator;

fn main() -> ExitCode {
    match Invocation::parse(env::args_os().skip(1)) {
        Invocation::Print(answer) => print(&answer),
        Invocation::CheckSystem => print(&config::check_system()),
        Invocation::TestMemory { megabytes } => print(&config::test_memory(megabytes)),
        Invocation::Serve(command_line) => match Config::load(&command_line) {
            Ok(config) => serve(config),
            Err(error) => {
                eprint!("{error}");
                ExitCode::FAILURE
            }
        },
    }
}

fn print(answer: &Answer) -> ExitCode {
    let written = if answer.exit_code == 0 {
        io::stdout().write_all(answer.text.as_bytes())
    } else {
        io::stderr().write_all(answer.text.as_bytes())
    };
    if written.is_err() {
        ExitCode::FAILURE
    } else {
        ExitCode::from(answer.exit_code)
    }
}

fn serve(config: Config) -> ExitCode {
    huge_pages::set(false);
    let settings = config.settings();
    let logfile =
        (!settings.logfile.as_os_str().is_empty()).then(|| settings.resolve(&settings.logfile));
    if let Err(error) = log::configure(logfile, settings.loglevel.into()) {
        eprintln!("Can't open the log file: {error}");
        return ExitCode::FAILURE;
    }
    log::notice(format!(
        "Ferrite is starting. ferrite={}, valkey={}, PID: {}",
        env!("CARGO_PKG_VERSION"),
        config::VALKEY_VERSION,
        std::process::id()
    ));
    if let Err(message) = descriptors::prepare(&config) {
        log::warning(&message);
        return ExitCode::FAILURE;
    }
    let listeners = match bind(&config) {
        Ok(listeners) => listeners,
        Err(message) => {
            log::warning(&message);
            return ExitCode::FAILURE;
        }
    };
    if !settings.pidfile.as_os_str().is_empty()
        && let Err(error) = fs::write(
            settings.resolve(&settings.pidfile),
            format!("{}\n", std::process::id()),
        )
    {
        log::warning(format!("Failed to write PID file: {error}"));
    }
    let server = Server::new(config);
    // If the kernel does not let it the log says so.
    let _ = server.adjust_oom_score();
    if let Err(message) = load_users(&server) {
        log::warning(&message);
        remove_files(&settings);
        return ExitCode::FAILURE;
    }
    let outcome = run(&server, listeners);
    server.aof.stop(&server);
    remove_files(&settings);
    match outcome {
        Ok(()) => {
            log::notice("Ferrite is now ready to exit, bye bye...");
            ExitCode::SUCCESS
        }
        Err(message) => {
            log::warning(message);
            ExitCode::FAILURE
        }
    }
}

/// Binds every socket, so that a port that is taken is found before anything starts.
///
/// Only memcached's port may be taken, if nobody asked for it: programs that start servers side by side, or beside a
/// memcached, know of no such port.
fn bind(config: &Config) -> Result<Vec<Listening>, String> {
    let settings = config.settings();
    let mut listeners = Vec::new();
    let tcp = [
        (settings.bind.as_slice(), settings.port, Wire::Resp, "TCP"),
        (
            settings.bind_of_memcached(),
            settings.memcached_port,
            Wire::Memcached,
            "memcached TCP",
        ),
    ];
    for (addresses, port, wire, name) in tcp {
        if port == 0 {
            continue;
        }
        match listener::bind_tcp(addresses, port, settings.tcp_backlog) {
            Ok(bound) => listeners.extend(
                bound
                    .into_iter()
                    .map(|listener| Listening::Tcp(listener, wire)),
            ),
            Err((_, error))
                if error.kind() == io::ErrorKind::AddrInUse
                    && wire == Wire::Memcached
                    && !config.is_named("memcached-port") =>
            {
                log::warning(format!(
                    "Port {port} is taken: memcached clients are not served. 'memcached-port' names another one."
                ));
                config.change(|settings| settings.memcached_port = 0);
            }
            Err((address, error)) => {
                return Err(format!(
                    "Could not create server {name} listening socket {address}:{port}: {error}\n\
                     Failed listening on port {port} ({name}), aborting."
                ));
            }
        }
    }
    let unix = [
        (&settings.unixsocket, settings.unixsocketperm, Wire::Resp),
        (
            &settings.memcached_unixsocket,
            settings.memcached_unixsocketperm,
            Wire::Memcached,
        ),
    ];
    for (path, permissions, wire) in unix {
        if path.as_os_str().is_empty() {
            continue;
        }
        let resolved = settings.resolve(path);
        let bound = listener::bind_unix(&resolved, path, permissions, wire).map_err(|error| {
            format!(
                "Failed opening Unix socket: bind: {}: {error}",
                path.display()
            )
        })?;
        listeners.push(bound);
    }
    Ok(listeners)
}

/// Makes the users of the configuration or of the ACL file.
fn load_users(server: &Server) -> Result<(), String> {
    let settings = server.config.settings();
    let all_channels = settings.acl_pubsub_default == config::PubsubDefault::AllChannels;
    if !settings.requirepass.is_empty() {
        server.acl.set_default_password(&settings.requirepass);
    }
    for line in server.config.users() {
        let words: Vec<&[u8]> = line.words.iter().map(Vec::as_slice).collect();
        let [_, name, rules @ ..] = words.as_slice() else {
            continue;
        };
        // The default user is there already, and has everything.
        let rules = [&[b"reset".as_slice()], rules].concat();
        server
            .acl
            .set_user(name, &rules, all_channels)
            .map_err(|error| {
                format!(
                    "Error in user declaration '{}': {}",
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(&error.message())
                )
            })?;
    }
    if !settings.aclfile.as_os_str().is_empty() {
        if !server.config.users().is_empty() {
            return Err("Configuring the server with users defined in the configuration file and at the same time \
                        setting an ACL file path is invalid. This setup is very likely to lead to configuration \
                        errors and security holes, please define either an ACL file or declare users directly in \
                        your configuration file, but not both.".into());
        }
        server
            .acl
            .load(&settings.resolve(&settings.aclfile), all_channels)
            .map_err(|error| format!("Aborting startup because of ACL errors: {error}"))?;
    }
    Ok(())
}

/// Loads what an earlier run left on disk, and begins what needs all data.
fn recover(server: &Arc<Server>) -> Result<(), String> {
    let began_logged = server.config.settings().appendonly;
    if began_logged {
        aof::load(server)?;
        aof::start(server).map_err(|error| format!("Can't open the append-only file: {error}"))?;
    } else {
        recovery::load_snapshot(server)?;
    }
    server.loading.end();
    let settings = server.config.settings();
    match settings.appendonly {
        logged if logged == began_logged => {}
        // Somebody changed the setting meanwhile.
        true => aof::turn_on(server)?,
        false => aof::turn_off(server),
    }
    if let Some((host, port)) = &settings.replicaof {
        commands::replication::follow(server, host, *port);
    }
    log::notice(format!(
        "Ready to accept connections: RESP on port {}, memcached on port {}, {} workers",
        settings.port,
        settings.memcached_port,
        server.metrics.workers.len(),
    ));
    Ok(())
}

/// Serves, and loads meanwhile, until the end.
fn run(server: &Arc<Server>, listeners: Vec<Listening>) -> Result<(), String> {
    let failed = |error: io::Error| format!("Failed to start: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    // Before anybody is served, for whoever is answered may send one.
    let mut signals = {
        let _context = runtime.enter();
        Signals::new().map_err(failed)?
    };
    // From the first connection on, so that nobody sees the data missing.
    server.loading.begin();
    let _threads = runtime::start(server, listeners).map_err(failed)?;
    log::notice("Server initialized");
    let (done, mut loaded) = oneshot::channel();
    let loading = server.clone();
    thread::Builder::new()
        .name("loading".into())
        .stack_size(runtime::STACK_BYTES)
        .spawn(move || done.send(recover(&loading)))
        .map_err(failed)?;
    let ended = runtime.block_on(async {
        tokio::spawn(maintenance::run(server.clone()));
        let mut is_loaded = false;
        loop {
            let request = tokio::select! {
                request = signals.wait_for_end(server) => request,
                result = &mut loaded, if !is_loaded => {
                    result.unwrap_or_else(|_| Err("Internal error while the data was loaded".into()))?;
                    is_loaded = true;
                    continue;
                }
            };
            log::notice(match request {
                ShutdownRequest { now: true, .. } => "User requested immediate shutdown...",
                _ => "User requested shutdown...",
            });
            // What is on disk is all there is, and more than has been loaded.
            if server.loading.is_active() {
                return Ok::<_, String>(request);
            }
            let writes_wait = !request.now
                && tokio::select! {
                    waits = replication::wait_for_replicas(server) => waits,
                    () = signals.wait_for_insistence() => return Ok(request),
                };
            let Some(request) = server.shutdown.current() else {
                // It was taken back.
                server.resume(PauseReason::Shutdown);
                continue;
            };
            replication::tell_lagging(server);
            if end(server, request) {
                replication::finish(server);
                return Ok(request);
            }
            log::warning("Errors trying to shut down the server. Check the logs for more information.");
            server.shutdown.fail();
            if writes_wait {
                server.resume(PauseReason::Shutdown);
            }
        }
    });
    ended.map(drop)
}

/// Gets ready to end. False if that failed and the server must go on.
fn end(server: &Server, request: ShutdownRequest) -> bool {
    if server.aof.status.first_base.load(Ordering::Relaxed) {
        // Without it the log is empty, and it is what would be loaded.
        if !request.force {
            log::warning("Writing initial AOF, can't exit.");
            return false;
        }
        log::warning("Writing initial AOF. Exit anyway.");
    }
    aof::cancel_rewrite(server);
    save_before_end(server, request)
}

/// How long the end waits for a command that runs.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// Saves the data if the request or the save points ask for it. False if that failed and the server must go on.
fn save_before_end(server: &Server, request: ShutdownRequest) -> bool {
    let has_points = !server.config.settings().save.is_empty();
    if !request.save.unwrap_or(has_points) {
        // Nothing may be acknowledged that the append-only file does not get any more. A script that runs for ever
        // cannot hold up the end.
        server.keyspace.freeze(END_PATIENCE);
        return true;
    }
    log::notice("Saving the final RDB snapshot before exiting.");
    if snapshot::save_finally(server).is_ok() {
        return true;
    }
    if request.force {
        log::warning("Error trying to save the DB. Exit anyway.");
        server.keyspace.freeze(END_PATIENCE);
        return true;
    }
    log::warning("Error trying to save the DB, can't exit.");
    false
}

/// The signals that do not end the process on the spot.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Without a handler the hang-up of a terminal would end the server.
    hangup: Signal,
    /// A limit on the size of files makes writes fail, instead of ending the process.
    _size_limit: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _size_limit: signal(SignalKind::from_raw(libc::SIGXFSZ))?,
        })
    }

    /// Waits for SIGTERM, SIGINT or SHUTDOWN. Nothing is missed if it is given up and begun again.
    async fn wait_for_end(&mut self, server: &Server) -> ShutdownRequest {
        loop {
            tokio::select! {
                request = server.shutdown.requested() => return request,
                _ = self.terminate.recv() => {
                    log::warning("Received SIGTERM scheduling shutdown...");
                    let options = server.config.settings().shutdown_on_sigterm;
                    server.shutdown.request(options.into());
                }
                _ = self.interrupt.recv() => {
                    log::warning("Received SIGINT scheduling shutdown...");
                    let options = server.config.settings().shutdown_on_sigint;
                    server.shutdown.request(options.into());
                }
                _ = self.hangup.recv() => {}
            }
        }
    }

    /// While the end waits for others: waits for SIGINT, again or for the first time.
    async fn wait_for_insistence(&mut self) {
        self.interrupt.recv().await;
        log::warning("You insist... exiting now.");
    }
}

/// What a running server leaves in the file system goes with it.
fn remove_files(settings: &Settings) {
    for path in [
        &settings.pidfile,
        &settings.unixsocket,
        &settings.memcached_unixsocket,
    ] {
        if !path.as_os_str().is_empty() {
            // Nothing depends on its going.
            let _ = fs::remove_file(settings.resolve(path));
        }
    }
}
