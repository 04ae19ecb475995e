//! Whether a host can be reached: a connection and its TLS, and no request.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::connect::{Connector, Roots};
use crate::{
    config::{Config, Rule, RuleVerdict},
    gate::Host,
};

/// For all of it: name, address, proxy, TLS. Each has a shorter one of its own.
const DEADLINE: Duration = Duration::from_secs(30);

/// Connects to every host that requests may go to by these rules, one after another, as a request would. Blocks.
///
/// # Errors
/// Where the system refuses a runtime.
pub(crate) fn reach(config: &Config) -> std::io::Result<BTreeMap<Host, Result<(), Arc<str>>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let roots = Roots::load();
    let tasks = tokio::task::LocalSet::new();
    Ok(tasks.block_on(&runtime, async {
        let mut reached = BTreeMap::new();
        for host in hosts(config) {
            let connected = timeout(DEADLINE, connect(config, &roots, host)).await;
            let connected = connected.unwrap_or_else(|_| Err(format!("nothing within {DEADLINE:?}").into()));
            reached.insert(host, connected);
        }
        reached
    }))
}

async fn connect(config: &Config, roots: &Roots, host: Host) -> Result<(), Arc<str>> {
    let connector = Connector::new(1, &config.upstream, &config.outbound, roots);
    let connector = connector.map_err(|fault| Arc::<str>::from(&*fault.detail))?;
    connector.open(host.authority()).await.map(drop).map_err(|fault| Arc::from(&*fault.detail))
}

/// The hosts of the rules that allow, and `dev.azure.com`, where every tool begins.
fn hosts(config: &Config) -> Vec<Host> {
    let patterns = config.rules.iter().filter(|rule| allows(rule)).flat_map(|rule| &rule.paths);
    let mut hosts: Vec<Host> = patterns.map(crate::policy::Pattern::host).chain([Host::DevAzure]).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

fn allows(rule: &Rule) -> bool {
    matches!(rule.verdict, RuleVerdict::Allow(..))
}
