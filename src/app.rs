//! From a configuration to running parts: the only wiring.
//!
//! One thread a worker, each with a runtime, listening sockets, a pipeline and upstream
//! connections of its own; the audit's writer; and the calling thread, which becomes the control
//! thread: signals, reload, vaults, health and metrics.

use std::{io, net::SocketAddr, path::Path, rc::Rc, sync::Arc, thread::JoinHandle, time::Duration};

use arc_swap::ArcSwap;
use tokio::{runtime::LocalOptions, sync::watch};

use crate::{
    admin::{
        self,
        credentials::{Credentials, Operator},
        operators,
        socket::Socket,
    },
    audit::{Audit, Event},
    client,
    config::{Config, Problems, file},
    limits::Counts,
    listener::{self, Gatehouse, Life, sockets},
    metrics::Metrics,
    pipeline::{self, Parts},
    policy::Policy,
    rotation::Rotation,
    state::State,
    upstream::{Roots, Upstream},
    vault::Vaults,
};

mod reload;
mod shown;
mod signals;
mod start;

pub use start::StartError;

use shown::Shown;
use signals::{Signals, Told};

/// One configuration, compiled: what one request sees from start to end.
#[derive(Debug)]
pub struct Snapshot {
    /// The values.
    pub config: Config,
    /// The clients by address.
    pub clients: client::Table,
    /// The rules, compiled.
    pub policy: Policy,
    /// Counts reloads, from 1.
    pub generation: u64,
}

impl Snapshot {
    /// Reads a configuration, compiles it, and runs its `[[expect]]`s.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(path: &Path, generation: u64) -> Result<Self, Problems> {
        Self::new(file::read(path)?, generation)
    }

    fn new(mut config: Config, generation: u64) -> Result<Self, Problems> {
        let clients = client::Table::new(&config.clients);
        let policy = Policy::new(&config);
        let failed = crate::policy::expect::run(&config.expects, &policy, &clients);
        if !failed.is_empty() {
            return Err(Problems(failed));
        }
        config.warnings.extend(Policy::warnings(&config));
        Ok(Self { config, clients, policy, generation })
    }

    /// What the audit calls it.
    fn name(&self) -> Arc<str> {
        Arc::clone(self.policy.name(self.generation))
    }
}

/// Runs until told to stop, and has ended every request, or run out of patience, when it returns.
///
/// # Errors
/// When it could not start; nothing is bound then.
pub fn run(path: &Path, started: impl FnOnce(&[SocketAddr])) -> Result<(), StartError> {
    // First of all: the configuration brings private keys.
    keep_to_ourselves();
    let environment = crate::config::environment_problems(std::env::vars_os());
    if !environment.is_empty() {
        return Err(StartError::Environment(environment));
    }
    let watched = reload::Watched::new(path);
    let snapshot = Snapshot::read(path, 1)?;
    for warning in &snapshot.config.warnings {
        tracing::warn!("{warning}");
    }
    let inherited = sockets::Inherited::take()?;
    let workers = snapshot.config.workers.get();
    let addresses: Vec<_> = snapshot.config.listeners.iter().map(|listen| listen.address).collect();
    let overlap = !inherited.is_empty();
    let bound = sockets::bind(&addresses, workers, inherited)?;
    let (address, socket) = match snapshot.config.admin.clone() {
        Some(admin) => (admin.address, admin.socket),
        None => (None, None),
    };
    let admin = address.map(|address| sockets::bind_admin(address, overlap)).transpose()?.flatten();
    let state = match &snapshot.config.state {
        Some(folder) => State::open(folder, overlap)?,
        None => State::in_memory(),
    };
    let audit = Audit::open(&snapshot.config.audit, overlap)?;

    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let vaults =
        Vaults::open(&snapshot.config, audit.clone(), control.handle().clone()).map_err(StartError::Vault)?;
    let rotation = Rotation::new(vaults.clone(), audit.clone(), control.handle().clone());
    let (counts, life) = (Arc::<Counts>::default(), watch::Sender::new(Life::Serving));
    let shown = Arc::new(Shown {
        metrics: Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"))),
        audit: audit.clone(),
        vaults: vaults.clone(),
        rotation: rotation.clone(),
        counts: Arc::clone(&counts),
        life: life.subscribe(),
    });
    shown.metrics.configured(snapshot.generation);
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
    let metrics = Arc::clone(&shown.metrics);
    let credentials = Credentials::new(Arc::clone(&snapshot), vaults.clone(), state, audit.clone(), metrics);
    // Last, and so taken from an old process only by one that can serve.
    let socket = match socket {
        Some(socket) => Some((Socket::open(&socket.path, socket.is_shared(), overlap)?, socket.admins)),
        None => None,
    };
    let house = House { snapshot, audit, vaults, rotation, counts, life, shown, credentials };
    let listening: Vec<_> = bound.iter().map(|bound| bound.address).collect();
    let ended = control
        .block_on(house.live(bound, Doors { admin, socket: &socket }, watched, || started(&listening)));
    house.audit.close(Duration::from_secs(5));
    ended
}

/// No core dumps, no debugger of another user's: both would hold secrets. And what is written, by a credential helper
/// too, is nobody else's to read.
pub(crate) fn keep_to_ourselves() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask};
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if setrlimit(Resource::Core, none).is_err()
        || set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err()
    {
        tracing::warn!("core dumps could not be switched off");
    }
}

/// What all threads share.
struct House {
    snapshot: Arc<ArcSwap<Snapshot>>,
    audit: Audit,
    vaults: Vaults,
    rotation: Rotation,
    counts: Arc<Counts>,
    life: watch::Sender<Life>,
    shown: Arc<Shown>,
    credentials: Arc<Credentials>,
}

/// Where operators come in.
struct Doors<'a> {
    admin: Option<std::net::TcpListener>,
    /// With the uids that may.
    socket: &'a Option<(Socket, Vec<u32>)>,
}

impl House {
    /// The control thread's part.
    async fn live(
        &self,
        bound: Vec<sockets::Bound>,
        doors: Doors<'_>,
        watched: reload::Watched,
        started: impl FnOnce(),
    ) -> Result<(), StartError> {
        let mut signals = Signals::new()?;
        let (label, listeners) = {
            let snapshot = self.snapshot.load();
            (snapshot.name(), bound.iter().map(|bound| bound.address.to_string()).collect())
        };
        self.audit
            .event(Event::Start { version: env!("CARGO_PKG_VERSION"), policy: label, listeners })
            .await?;
        let workers = self.hire(bound)?;
        self.rotation.reconfigure(&self.snapshot.load().config).map_err(StartError::Rotation)?;
        self.open(doors)?;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        started();

        let reason = self.serve_until_told(&mut signals, watched).await;
        // A successor may rotate from now on.
        let turns_end = tokio::spawn({
            let rotation = self.rotation.clone();
            async move { rotation.stop().await }
        });
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        let (delay, drain) = {
            let limits = &self.snapshot.load().config.limits;
            (limits.drain_delay, limits.drain)
        };
        tracing::info!(reason, "stopping: new connections are taken for {delay:?} more");
        self.life.send_replace(Life::Leaving);
        let told_again = signals.or_wait(delay).await;
        let drain = if told_again { Duration::ZERO } else { drain };
        self.life.send_replace(Life::Draining);
        let all_gone = tokio::task::spawn_blocking(move || {
            for worker in workers {
                let _ = worker.join();
            }
        });
        tokio::pin!(all_gone);
        tokio::select! {
            _ = &mut all_gone => {}
            _ = signals.or_wait(drain) => {
                tracing::warn!("cutting what is still under way");
                self.life.send_replace(Life::Over);
                let _ = all_gone.await;
            }
        }
        let _ = turns_end.await;
        self.audit.event(Event::Stop { reason }).await?;
        Ok(())
    }

    /// Starts the workers.
    fn hire(&self, bound: Vec<sockets::Bound>) -> io::Result<Vec<JoinHandle<()>>> {
        let count = bound.first().map_or(0, |bound| bound.sockets.len());
        let mut sockets: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        for (index, address) in bound.into_iter().enumerate() {
            for (worker, socket) in sockets.iter_mut().zip(address.sockets) {
                worker.push((index, socket, address.shared));
            }
        }
        let roots = Roots::load();
        let mut workers = Vec::with_capacity(count);
        for (number, sockets) in sockets.into_iter().enumerate() {
            let (snapshot, audit, vaults) =
                (Arc::clone(&self.snapshot), self.audit.clone(), self.vaults.clone());
            let (counts, life) = (Arc::clone(&self.counts), self.life.subscribe());
            let (roots, metrics) = (roots.clone(), Arc::clone(&self.shown.metrics));
            let runtime = move || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .event_interval(127)
                    .build_local(LocalOptions::default())
            };
            let work = move || {
                let runtime = match runtime() {
                    Ok(runtime) => runtime,
                    Err(error) => return tracing::error!(%error, "a worker could not start"),
                };
                runtime.block_on(async move {
                    let lane = audit.lane(&metrics);
                    let vaults = Rc::new(vaults);
                    let upstream = Rc::new(Upstream::new(roots, Rc::clone(&vaults), Arc::clone(&metrics)));
                    let parts = Parts { counts: Arc::clone(&counts), vaults, upstream };
                    let pipeline = pipeline::pipeline(&parts);
                    let house = Rc::new(Gatehouse { snapshot, lane, counts, life, audit, metrics, pipeline });
                    let listening = sockets.into_iter().filter_map(|(index, socket, shared)| {
                        let socket = tokio::net::TcpListener::from_std(socket).ok()?;
                        Some(listener::serve(socket, shared, index, Rc::clone(&house)))
                    });
                    futures_util::future::join_all(listening).await;
                });
            };
            workers.push(std::thread::Builder::new().name(format!("worker-{number}")).spawn(work)?);
        }
        Ok(workers)
    }

    /// Serves health, metrics and operators beside everything else, and follows the state that a new process may own.
    fn open(&self, doors: Doors<'_>) -> io::Result<()> {
        if let Some(socket) = doors.admin {
            socket.set_nonblocking(true)?;
            let socket = tokio::net::TcpListener::from_std(socket)?;
            tokio::spawn(admin::serve(socket, Arc::clone(&self.shown) as Arc<dyn admin::Shown>));
        }
        if let Some((socket, admins)) = doors.socket {
            let listener = socket.listener()?;
            tokio::spawn(operators::serve(listener, admins.clone(), Arc::clone(&self.credentials)));
        }
        let credentials = Arc::clone(&self.credentials);
        tokio::spawn(async move {
            let mut look = tokio::time::interval(Duration::from_secs(1));
            look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                look.tick().await;
                credentials.follow().await;
            }
        });
        Ok(())
    }

    /// Serves, and reloads when asked or when a file has changed. Returns why it is to stop.
    async fn serve_until_told(&self, signals: &mut Signals, mut watched: reload::Watched) -> &'static str {
        let mut look = tokio::time::interval(Duration::from_secs(2));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Stop(reason) => return reason,
                    Told::Reload => {
                        watched.has_changed();
                        self.reload().await;
                    }
                    Told::Refresh => {
                        let credentials = Arc::clone(&self.credentials);
                        tokio::spawn(async move {
                            if let Err(declined) = credentials.refresh_all(&Operator::signal("SIGUSR1")).await {
                                tracing::error!("SIGUSR1: {declined}");
                            }
                        });
                    }
                },
                _ = look.tick() => {
                    if watched.has_changed() {
                        self.reload().await;
                    }
                }
            }
        }
    }

    /// Reads the configuration again: all of it is right and takes over, or nothing changes.
    async fn reload(&self) {
        // The time is what `Type=notify-reload` goes by.
        let mut state = vec![sd_notify::NotifyState::Reloading];
        state.extend(sd_notify::NotifyState::monotonic_usec_now());
        let _ = sd_notify::notify(&state);
        let old = self.snapshot.load_full();
        let generation = old.generation + 1;
        let event = match reload::attempt(&old, &self.vaults) {
            Ok(snapshot) => {
                let policy = snapshot.name();
                tracing::info!(generation, policy = &*policy, "a new configuration is in force");
                if let Err(why) = self.rotation.reconfigure(&snapshot.config) {
                    // The vaults are the new ones already: what was set up for the old must not go on.
                    self.rotation.halt();
                    tracing::error!("no token is rotated until the next reload: {why}");
                }
                self.snapshot.store(Arc::new(snapshot));
                self.shown.metrics.configured(generation);
                self.shown.metrics.reloaded(true);
                Event::Configured { policy, generation }
            }
            Err(problems) => {
                self.shown.metrics.reloaded(false);
                for problem in &problems {
                    tracing::error!("not reloaded: {problem}");
                }
                Event::ConfigurationRefused {
                    problems: problems.len(),
                    first: problems.into_iter().next().unwrap_or_default(),
                }
            }
        };
        if let Err(error) = self.audit.event(event).await {
            tracing::error!(%error, "a reload could not be recorded");
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }
}
