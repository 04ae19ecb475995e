//! Rotation: tokens that patgate makes anew, writes to their vault, and revokes when they are old.
//!
//! What comes in: the credentials with `rotate`, a vault that can be written to, an Entra token of the user whose tokens
//! they are. What goes out: at any moment a token in the vault that works, and in the end no other. It must never keep
//! a value anywhere but in the vault, revoke the one in use before another one was read from there and tried, or do a
//! step that is not on record. All of it runs on the control thread.
//!
//! [`machine`] has the steps, [`state`] what survives a kill, [`ledger`] the file it is in, [`azure`] the calls.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    audit::Audit,
    clock,
    config::Config,
    vault::{SecretSource, Vaults, trial::Record},
};

mod azure;
mod ledger;
mod machine;
mod plan;
#[cfg(test)]
mod simulation;
mod state;

use ledger::Ledger;
use machine::Machine;
use plan::Plan;
use state::{State, Step};

/// How far a rotation has come, as metrics name it.
pub const STATES: [&str; 5] = ["unknown", "resting", "rotating", "retiring", "failing"];

/// While another process has the turn, and after what should not happen.
const PAUSE: Duration = Duration::from_secs(1);
/// The clock may be set meanwhile: nobody sleeps longer at a stretch.
const NAP: Duration = Duration::from_mins(1);
/// Between two turns, whatever happens.
const LEAST: Duration = Duration::from_millis(100);
/// How long a turn may go on when patgate stops. What is cut then is resumed at the next start.
const STOPPING: Duration = Duration::from_secs(10);

/// How far one rotation has come. It has no place for a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The credential's name.
    pub credential: Arc<str>,
    /// One of [`STATES`]: `unknown` before the first turn, `resting` with nothing to do, `rotating`, `retiring` with an
    /// old token in its grace, `failing` since the last attempt.
    pub state: &'static str,
    /// When the token in use ends, where patgate made it.
    pub expires: Option<Timestamp>,
    /// When there is something to do next.
    pub next: Option<Timestamp>,
    /// Why the last attempt failed.
    pub trouble: Option<String>,
}

/// No credential of this name is rotated by patgate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("patgate does not rotate this credential: its configuration has no rotate")]
pub struct NotRotated;

/// All rotations of a process: `Clone + Send + Sync`.
#[derive(Clone)]
pub struct Rotation(Arc<Inner>);

struct Inner {
    audit: Audit,
    vaults: Vaults,
    control: Handle,
    running: Mutex<BTreeMap<Arc<str>, Running>>,
    stopping: watch::Sender<bool>,
}

/// One rotation's task.
struct Running {
    plan: Arc<Plan>,
    /// The vault, and what gives the Entra token.
    sources: [Arc<dyn SecretSource>; 2],
    ca: Option<Vec<CertificateDer<'static>>>,
    task: Arc<Task>,
    handle: JoinHandle<()>,
}

struct Task {
    wake: Notify,
    forced: AtomicBool,
    /// Another configuration has it, or none.
    over: AtomicBool,
    standing: Mutex<Standing>,
}

impl fmt::Debug for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotation").field("standing", &self.standing()).finish()
    }
}

impl Rotation {
    /// None yet. They will run as tasks of `control`, the control thread's runtime.
    #[must_use]
    pub fn new(vaults: Vaults, audit: Audit, control: Handle) -> Self {
        let running = Mutex::default();
        let inner = Inner { audit, vaults, control, running, stopping: watch::Sender::new(false) };
        Self(Arc::new(inner))
    }

    /// Begins every rotation of a configuration, after [`Vaults::reconfigure`]. What was under way when patgate ended goes
    /// on. What changed from the configuration before ends after its present turn and begins anew; nothing changes where
    /// this fails.
    ///
    /// # Errors
    /// One that can't even be set up (the state's folder can't be made, …), as a sentence with its name.
    pub fn reconfigure(&self, config: &Config) -> Result<(), String> {
        let mut new = Vec::new();
        let mut running = locked(&self.0.running);
        let mut kept = Vec::new();
        let ca = config.upstream.ca.as_ref().map(|(_, certificates)| certificates.clone());
        for credential in config.credentials.values() {
            let Some(plan) = Plan::new(config, credential) else { continue };
            let before = running.get(&plan.credential);
            if before.is_some_and(|before| before.ca == ca && before.is(&plan, &self.0.vaults)) {
                kept.push(Arc::clone(&plan.credential));
                continue;
            }
            let name = Arc::clone(&plan.credential);
            let set_up = self.set_up(config, Arc::new(plan));
            new.push(set_up.map_err(|why| format!("credential {name}: rotate: {why}"))?);
        }
        running.retain(|name, running| {
            let keeps = kept.contains(name);
            if !keeps {
                running.task.over.store(true, Ordering::Release);
                running.task.wake.notify_one();
            }
            keeps
        });
        for (machine, ledger) in new {
            let plan = Arc::clone(&machine.plan);
            let task = Arc::new(Task::new(&plan.credential));
            let life = self.0.stopping.subscribe();
            let sources = [Arc::clone(&machine.vault), Arc::clone(&machine.entra)];
            let handle = self.0.control.spawn(run(Arc::clone(&task), machine, ledger, life));
            let name = Arc::clone(&plan.credential);
            running.insert(name, Running { plan, sources, ca: ca.clone(), task, handle });
        }
        Ok(())
    }

    fn set_up(&self, config: &Config, plan: Arc<Plan>) -> Result<(Machine, Ledger), String> {
        let folder = config.state.as_ref().ok_or("there is no [state]")?;
        let ledger = Ledger::new(folder, &plan.credential);
        ledger.prepare()?;
        let vaults = self.0.vaults.clone();
        let source = |name: &Arc<str>| vaults.source(name).ok_or_else(|| format!("there is no vault {name}"));
        let record: Arc<dyn Record> = Arc::new(self.0.audit.clone());
        let key = vaults.fingerprint_key();
        let azure = azure::AzureDevOps::new(&config.upstream, &config.outbound, Arc::clone(&record), key)?;
        let (vault, entra) = (source(&plan.vault)?, source(&plan.entra.0)?);
        let credential = Arc::clone(&plan.credential);
        let refresh = Box::new(move || {
            let (vaults, credential) = (vaults.clone(), Arc::clone(&credential));
            Box::pin(async move {
                if let Err(why) = vaults.refresh(&credential).await {
                    tracing::warn!(%credential, %why, "the new token is not read from the vault yet");
                }
            }) as machine::Refreshed
        });
        let (standing, name) = (Arc::clone(self.0.vaults.standing()), Arc::clone(&plan.credential));
        let disabled = Box::new(move || standing.disabled(&name).is_some());
        let keep = Arc::new(ledger.clone());
        let machine = Machine {
            plan,
            azure,
            vault,
            entra,
            record,
            keep,
            refresh,
            now: Box::new(clock::timestamp),
            disabled,
        };
        Ok((machine, ledger))
    }

    /// Ends every rotation after its present turn; the next [`Self::reconfigure`] begins them anew.
    pub(crate) fn halt(&self) {
        for running in std::mem::take(&mut *locked(&self.0.running)).into_values() {
            running.task.over.store(true, Ordering::Release);
            running.task.wake.notify_one();
        }
    }

    /// Makes a new token now, whenever it would be due.
    ///
    /// # Errors
    /// This credential is not rotated by patgate.
    pub fn now(&self, credential: &str) -> Result<(), NotRotated> {
        let running = locked(&self.0.running);
        let task = &running.get(credential).ok_or(NotRotated)?.task;
        task.forced.store(true, Ordering::Release);
        task.wake.notify_one();
        Ok(())
    }

    /// How far every rotation has come, in the order of the names.
    #[must_use]
    pub fn standing(&self) -> Vec<Standing> {
        locked(&self.0.running).values().map(|running| locked(&running.task.standing).clone()).collect()
    }

    /// Begins nothing more, and waits some seconds for the turns under way. What is cut then goes on at the next start.
    pub async fn stop(&self) {
        self.0.stopping.send_replace(true);
        let running = std::mem::take(&mut *locked(&self.0.running));
        let ends = futures_util::future::join_all(running.into_values().map(|running| running.handle));
        if timeout(STOPPING, ends).await.is_err() {
            tracing::warn!("a rotation is cut; it goes on at the next start");
        }
    }
}

impl Running {
    /// Whether another configuration means the same in every detail.
    fn is(&self, plan: &Plan, vaults: &Vaults) -> bool {
        let [vault, entra] = &self.sources;
        let is = |source: &Arc<dyn SecretSource>, name| {
            vaults.source(name).is_some_and(|other| Arc::ptr_eq(source, &other))
        };
        *self.plan == *plan && is(vault, &plan.vault) && is(entra, &plan.entra.0)
    }
}

impl Standing {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(credential: &Arc<str>) -> Self {
        let credential = Arc::clone(credential);
        Self { credential, state: "unknown", expires: None, next: None, trouble: None }
    }
}

impl Task {
    fn new(credential: &Arc<str>) -> Self {
        let standing = Standing::new(credential);
        Self {
            wake: Notify::new(),
            forced: AtomicBool::new(false),
            over: AtomicBool::new(false),
            standing: Mutex::new(standing),
        }
    }

    fn show(&self, state: &State, next: Timestamp) {
        let word = match &state.step {
            _ if state.failures > 0 => "failing",
            Step::Idle if state.retiring.is_empty() => "resting",
            Step::Idle => "retiring",
            _ => "rotating",
        };
        let mut standing = locked(&self.standing);
        standing.state = word;
        standing.expires = state.current.as_ref().map(|current| current.until);
        standing.next = Some(next);
        standing.trouble.clone_from(&state.trouble);
    }
}

/// One rotation, until patgate stops or its configuration changes.
async fn run(task: Arc<Task>, machine: Machine, ledger: Ledger, mut life: watch::Receiver<bool>) {
    while !task.over.load(Ordering::Acquire) && !*life.borrow() {
        let next = turn(&task, &machine, &ledger).await;
        let pause =
            Duration::try_from(next.duration_since(clock::timestamp())).unwrap_or_default().clamp(LEAST, NAP);
        tokio::select! {
            () = sleep(pause) => {}
            () = task.wake.notified() => {}
            _ = life.wait_for(|stopping| *stopping) => {}
        }
    }
}

/// Takes the turn, if it is this process's, and says when the next one is.
async fn turn(task: &Task, machine: &Machine, ledger: &Ledger) -> Timestamp {
    let forced = task.forced.swap(false, Ordering::AcqRel);
    let again = |why: Option<String>| {
        if let Some(why) = why {
            tracing::error!(credential = %machine.plan.credential, why, "the token is not rotated");
            let mut standing = locked(&task.standing);
            (standing.state, standing.trouble) = ("failing", Some(why));
        }
        task.forced.fetch_or(forced, Ordering::AcqRel);
        state::later(clock::timestamp(), PAUSE)
    };
    let own = ledger.clone();
    let taken = tokio::task::spawn_blocking(move || own.turn()).await;
    let _turn = match taken.unwrap_or_else(|error| Err(format!("it broke off: {error}"))) {
        Ok(Some(turn)) => turn,
        Ok(None) => return again(None),
        Err(why) => return again(Some(why)),
    };
    match machine.turn(forced).await {
        Ok(state) => {
            let next = state.next(&machine.plan, clock::timestamp());
            task.show(&state, next);
            next
        }
        Err(trouble) => again(Some(trouble.to_string())),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
