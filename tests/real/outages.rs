//! What a vault's failures do to requests: the same course for each vault, with [`Faults`] before it.
//!
//! The proxy has the credential `brief`, whose value is used for a moment after the vault fell silent, and `long`, whose
//! value is used for an hour.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    faults::{BODY_CANARY, Behaviour, Faults},
    support::{PAT, TestProxy},
};

pub const RULES: &str = r#"
[[rule]]
name = "brief"
clients = ["here"]
paths = ["/contoso/**"]
allow = ["GET", "git:fetch"]
credential = "brief"
[[rule]]
name = "long"
clients = ["here"]
paths = ["/fabrikam/**"]
allow = ["GET", "git:fetch"]
credential = "long"
"#;

pub const BRIEF_PATH: &str = "/contoso/_apis/projects";
pub const LONG_PATH: &str = "/fabrikam/_apis/projects";

/// What a failure of the vault does to a client's request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Blame {
    /// It is silent: a value is used for `stale-for`, and then 503.
    Unavailable,
    /// It answered: the value ends at once.
    Missing,
}

/// A name, what of the vault fails (a part of a request's first line), how, and what a client is told.
pub type Outage = (&'static str, &'static str, Behaviour, Blame);

/// Status of an answer, and patgate's code in it.
pub fn code(proxy: &TestProxy, path: &str) -> (u16, String) {
    let (status, body) = proxy.get(path, &[]);
    assert!(!body.contains(BODY_CANARY) && !body.contains(PAT), "{body}");
    let code = serde_json::from_str::<Value>(&body)
        .ok()
        .and_then(|body| Some(body["patgate"]["code"].as_str()?.to_owned()));
    (status, code.unwrap_or_default())
}

/// Waits until a request is answered so, and gives how long that took.
pub fn until(proxy: &TestProxy, path: &str, wanted: (u16, &str), when: &str) -> Duration {
    let begun = Instant::now();
    loop {
        let got = code(proxy, path);
        if (got.0, got.1.as_str()) == wanted {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "{when}: {path}: {got:?}\n{}", proxy.log());
        thread::sleep(Duration::from_millis(50));
    }
}

/// Every outage in turn: the right refusal, nothing that goes up meanwhile, and an end of it without a restart.
pub fn each(proxy: &TestProxy, faults: &Faults, outages: &[Outage]) {
    for &(name, part, behaviour, blame) in outages {
        until(proxy, BRIEF_PATH, (200, ""), name);
        until(proxy, LONG_PATH, (200, ""), name);
        faults.behave_for(part, behaviour);
        let refused = match blame {
            Blame::Unavailable => (503, "vault-unavailable"),
            Blame::Missing => (424, "credential-missing"),
        };
        let after = until(proxy, BRIEF_PATH, refused, name);
        println!("{name}: {} after {after:?}", refused.1);
        if blame == Blame::Unavailable {
            // Past the short vault's time, the other one still lives on what it gave.
            assert_eq!(code(proxy, LONG_PATH).0, 200, "{name}");
        } else {
            until(proxy, LONG_PATH, refused, name);
        }
        let went_up = proxy.organization().requests();
        assert_eq!(code(proxy, BRIEF_PATH).0, refused.0, "{name}");
        assert_eq!(proxy.organization().requests(), went_up, "{name}: nothing goes up without a token");
        faults.behave(Behaviour::Pass);
        println!("{name}: recovered after {:?}", until(proxy, BRIEF_PATH, (200, ""), name));
    }
    until(proxy, LONG_PATH, (200, ""), "at the end");
}
