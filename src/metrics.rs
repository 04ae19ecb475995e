//! The numbers that `/metrics` shows.
//!
//! Every counter that a request touches is looked up once, at the start, and lies in a field or in
//! an array by reason: on a request's way there is no lock and no search. Labels come from the
//! code or from the configuration, never from a request, so the number of series is bounded.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use crate::{
    audit::{Ending, Statistics},
    refusal::Refusal,
    rotation,
    vault::{Health, State},
};

pub mod histogram;

use histogram::Histogram;

/// All numbers of one process. `Send + Sync`: made once, shared by an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    complete: Counter,
    client_gone: Counter,
    upstream_gone: Counter,
    cut: Counter,
    panic: Counter,
    refused: Counter,
    /// By `Refusal as usize`.
    refusals: Box<[Counter]>,
    bytes_up: Counter,
    bytes_down: Counter,
    connections: Gauge,
    accepted: Counter,
    in_flight: Gauge,
    own_time: Histogram,
    audit_records: Counter,
    audit_batches: Counter,
    audit_failures: Counter,
    audit_available: Gauge,
    credential_states: Family<Vec<(&'static str, String)>, Gauge>,
    credentials_since: Family<Vec<(&'static str, String)>, Gauge>,
    credentials_expire: Family<Vec<(&'static str, String)>, Gauge>,
    rotations: Family<Vec<(&'static str, String)>, Gauge>,
    generation: Gauge,
    state: Gauge,
    reloads: Counter,
    reloads_refused: Counter,
}

impl Metrics {
    /// All at zero. `version` is patgate's.
    #[must_use]
    pub fn new(version: &'static str) -> Self {
        let mut registry = Registry::with_prefix("patgate");
        let r = &mut registry;

        let requests = Family::<Vec<(&'static str, &'static str)>, Counter>::default();
        r.register("requests", "Requests that ended, by outcome", requests.clone());
        let outcome = |outcome| requests.get_or_create_owned(&vec![("outcome", outcome)]);

        let reasons = Family::<Vec<(&'static str, &'static str)>, Counter>::default();
        r.register("refusals", "Requests that were refused, by code and by who must act", reasons.clone());
        let refusal = |why: &Refusal| {
            reasons.get_or_create_owned(&vec![("code", why.code()), ("blame", why.blame().as_str())])
        };

        let bytes = Family::<Vec<(&'static str, &'static str)>, Counter>::default();
        r.register_with_unit(
            "body",
            "Bytes of bodies, up to Azure DevOps and down to clients",
            Unit::Bytes,
            bytes.clone(),
        );
        let direction = |direction| bytes.get_or_create_owned(&vec![("direction", direction)]);

        let reloads = Family::<Vec<(&'static str, &'static str)>, Counter>::default();
        r.register("reloads", "Configurations that were read while running, by result", reloads.clone());
        let result = |result| reloads.get_or_create_owned(&vec![("result", result)]);

        r.register("build", "What runs", Info::new(vec![("version", version)]));
        let own_time = Histogram::default();
        r.register_with_unit(
            "own_time",
            "Time that patgate adds to a request: its arrival to the first byte upstream, or to the refusal",
            Unit::Seconds,
            own_time.clone(),
        );
        let credential = |r: &mut Registry, name: &str, help: &str| {
            let family = Family::<Vec<(&'static str, String)>, Gauge>::default();
            r.register(name, help, family.clone());
            family
        };

        Self {
            complete: outcome("complete"),
            client_gone: outcome("client-gone"),
            upstream_gone: outcome("upstream-gone"),
            cut: outcome("cut"),
            panic: outcome("panic"),
            refused: outcome("refused"),
            refusals: Refusal::ALL.iter().map(refusal).collect(),
            bytes_up: direction("up"),
            bytes_down: direction("down"),
            connections: gauge(r, "connections", "Open connections"),
            accepted: counter(r, "connections_accepted", "Connections that were accepted"),
            in_flight: gauge(r, "requests_in_flight", "Requests under way"),
            own_time,
            audit_records: counter(r, "audit_records", "Records that were written"),
            audit_batches: counter(r, "audit_batches", "Batches that were written, each with one sync"),
            audit_failures: counter(r, "audit_failures", "Batches that could not be written"),
            audit_available: gauge(r, "audit_available", "1 while uses can be recorded"),
            credential_states: credential(r, "credential_state", "1 for the state that a credential is in"),
            credentials_since: credential(
                r,
                "credential_since_timestamp_seconds",
                "Since when a credential is in its state, as Unix time",
            ),
            credentials_expire: credential(
                r,
                "credential_expires_timestamp_seconds",
                "When a credential expires, as Unix time, where that is known",
            ),
            rotations: credential(r, "rotation_state", "1 for the state that a credential's rotation is in"),
            generation: gauge(r, "configuration_generation", "The configuration in force, counted from 1"),
            state: gauge(r, "state_version", "What operators changed, counted from 0"),
            reloads: result("ok"),
            reloads_refused: result("refused"),
            registry,
        }
    }

    /// A request ended.
    pub fn ended(&self, ending: Ending) {
        match ending {
            Ending::Complete => &self.complete,
            Ending::ClientGone => &self.client_gone,
            Ending::UpstreamGone => &self.upstream_gone,
            Ending::Cut => &self.cut,
            Ending::Panic => &self.panic,
            Ending::Refused(why) => {
                self.refusal(why);
                &self.refused
            }
        }
        .inc();
    }

    /// A connection ended before it held a request.
    pub fn refusal(&self, why: Refusal) {
        if let Some(counter) = self.refusals.get(why as usize) {
            counter.inc();
        }
    }

    /// Bytes of a body that went up.
    pub fn up(&self, bytes: u64) {
        self.bytes_up.inc_by(bytes);
    }

    /// Bytes of a body that went down.
    pub fn down(&self, bytes: u64) {
        self.bytes_down.inc_by(bytes);
    }

    /// A connection was accepted.
    pub fn accepted(&self) {
        self.accepted.inc();
    }

    /// What is open at the moment.
    pub fn open(&self, connections: usize, in_flight: usize) {
        self.connections.set(signed(connections as u64));
        self.in_flight.set(signed(in_flight as u64));
    }

    /// What patgate added to a request.
    pub fn own_time(&self, time: Duration) {
        self.own_time.observe(time);
    }

    /// What the audit's writer has done since the start, and whether uses can be recorded.
    pub fn audit(&self, done: Statistics, available: bool) {
        self.audit_records.inner().store(done.records, Relaxed);
        self.audit_batches.inner().store(done.batches, Relaxed);
        self.audit_failures.inner().store(done.failures, Relaxed);
        self.audit_available.set(available.into());
    }

    /// The states of all credentials. Others than these are forgotten.
    pub fn credentials(&self, health: &[Health]) {
        for family in [&self.credential_states, &self.credentials_since, &self.credentials_expire] {
            family.clear();
        }
        for Health { credential, state, since, expires, .. } in health {
            let name = vec![("credential", credential.to_string())];
            for known in State::ALL {
                let mut labels = name.clone();
                labels.push(("state", known.as_str().to_owned()));
                self.credential_states.get_or_create(&labels).set((known == *state).into());
            }
            self.credentials_since.get_or_create(&name).set(since.as_second());
            if let Some(expires) = expires {
                self.credentials_expire.get_or_create(&name).set(expires.as_second());
            }
        }
    }

    /// How far all rotations have come, by [`rotation::STATES`]. Others than these are forgotten.
    pub fn rotations(&self, standing: &[rotation::Standing]) {
        self.rotations.clear();
        for one in standing {
            for known in rotation::STATES {
                let labels = vec![("credential", one.credential.to_string()), ("state", known.to_owned())];
                self.rotations.get_or_create(&labels).set((known == one.state).into());
            }
        }
    }

    /// A configuration is in force.
    pub fn configured(&self, generation: u64) {
        self.generation.set(signed(generation));
    }

    /// What operators changed, up to this version, is in force.
    pub fn state(&self, version: u64) {
        self.state.set(signed(version));
    }

    /// A configuration was read while running: taken, or refused.
    pub fn reloaded(&self, taken: bool) {
        if taken { &self.reloads } else { &self.reloads_refused }.inc();
    }

    /// As `OpenMetrics` text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn assert_line(metrics: &Metrics, line: &str) {
        let text = metrics.encode();
        assert!(text.lines().any(|l| l == line), "{line:?} is missing in:\n{text}");
    }

    #[test]
    fn it_is_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Metrics>();
    }

    #[test]
    fn each_reason_has_its_own_counter_from_the_start() {
        let metrics = Metrics::new("1.2.3");
        for (n, &why) in Refusal::ALL.iter().enumerate() {
            for _ in 0..=n {
                metrics.ended(Ending::Refused(why));
            }
        }
        for (n, &why) in Refusal::ALL.iter().enumerate() {
            let (code, blame, count) = (why.code(), why.blame().as_str(), n + 1);
            let line = format!("patgate_refusals_total{{code=\"{code}\",blame=\"{blame}\"}} {count}");
            assert_line(&metrics, &line);
        }
        let all = Refusal::ALL.len() * (Refusal::ALL.len() + 1) / 2;
        assert_line(&metrics, &format!("patgate_requests_total{{outcome=\"refused\"}} {all}"));
    }

    #[test]
    fn each_ending_is_counted_as_what_it_is() {
        let metrics = Metrics::new("1.2.3");
        metrics.ended(Ending::Complete);
        metrics.ended(Ending::Complete);
        metrics.ended(Ending::ClientGone);
        metrics.ended(Ending::Panic);
        metrics.up(7);
        metrics.down(9);
        for line in [
            "patgate_requests_total{outcome=\"complete\"} 2",
            "patgate_requests_total{outcome=\"client-gone\"} 1",
            "patgate_requests_total{outcome=\"upstream-gone\"} 0",
            "patgate_requests_total{outcome=\"panic\"} 1",
            "patgate_body_bytes_total{direction=\"up\"} 7",
            "patgate_body_bytes_total{direction=\"down\"} 9",
            "patgate_build_info{version=\"1.2.3\"} 1",
            "# EOF",
        ] {
            assert_line(&metrics, line);
        }
    }

    #[test]
    fn what_is_open_is_shown() {
        let metrics = Metrics::new("1.2.3");
        metrics.accepted();
        metrics.accepted();
        metrics.open(1, 1);
        assert_line(&metrics, "patgate_connections 1");
        assert_line(&metrics, "patgate_connections_accepted_total 2");
        assert_line(&metrics, "patgate_requests_in_flight 1");
        metrics.open(0, 0);
        assert_line(&metrics, "patgate_connections 0");
        assert_line(&metrics, "patgate_requests_in_flight 0");
    }

    #[test]
    fn a_credential_is_in_one_state_and_is_forgotten_with_its_configuration() {
        let metrics = Metrics::new("1.2.3");
        let health = |name: &str, state, expires: Option<i64>| Health {
            credential: name.into(),
            state,
            since: Timestamp::from_second(1_700_000_000).unwrap(),
            version: None,
            read: None,
            expires: expires.map(|at| Timestamp::from_second(at).unwrap()),
            previous_until: None,
            detail: None,
        };
        metrics.credentials(&[health("old", State::Valid, Some(1)), health("web", State::Valid, None)]);
        metrics.credentials(&[health("web", State::Rejected, Some(1_900_000_000))]);
        for line in [
            "patgate_credential_state{credential=\"web\",state=\"rejected\"} 1",
            "patgate_credential_state{credential=\"web\",state=\"valid\"} 0",
            "patgate_credential_since_timestamp_seconds{credential=\"web\"} 1700000000",
            "patgate_credential_expires_timestamp_seconds{credential=\"web\"} 1900000000",
        ] {
            assert_line(&metrics, line);
        }
        assert!(!metrics.encode().contains("credential=\"old\""));
    }

    #[test]
    fn the_audit_and_the_configuration_have_their_numbers() {
        let metrics = Metrics::new("1.2.3");
        metrics.audit(Statistics { records: 5, batches: 1, failures: 0 }, true);
        metrics.configured(3);
        metrics.reloaded(true);
        metrics.reloaded(false);
        metrics.own_time(Duration::from_micros(80));
        for line in [
            "patgate_audit_records_total 5",
            "patgate_audit_batches_total 1",
            "patgate_audit_available 1",
            "patgate_configuration_generation 3",
            "patgate_reloads_total{result=\"ok\"} 1",
            "patgate_reloads_total{result=\"refused\"} 1",
            "patgate_own_time_seconds_count 1",
        ] {
            assert_line(&metrics, line);
        }
        metrics.audit(Statistics { records: 5, batches: 1, failures: 1 }, false);
        assert_line(&metrics, "patgate_audit_available 0");
        metrics.audit(Statistics { records: 5, batches: 1, failures: 1 }, true);
        assert_line(&metrics, "patgate_audit_available 1");
    }
}
