//! Policy tests: what a configuration says that its own rules must do.

use crate::{
    client::Table,
    config::{Expect, Problem},
    policy::{Explanation, Policy, explain},
};

/// Runs every `[[expect]]`; one problem for each that does not come true, with its place.
#[must_use]
pub fn run(expects: &[Expect], policy: &Policy, clients: &Table) -> Vec<Problem> {
    expects.iter().filter_map(|expect| one(expect, policy, clients)).collect()
}

fn one(expect: &Expect, policy: &Policy, clients: &Table) -> Option<Problem> {
    let came = explain(policy, clients, expect.from, expect.method.as_str(), &expect.target);
    let rule_is_right = expect.rule.as_ref().is_none_or(|rule| came.rule.as_ref() == Some(rule));
    if came.allowed == expect.allowed && rule_is_right {
        return None;
    }
    let verdict = if expect.allowed { "allowed" } else { "refused" };
    let by = expect.rule.as_ref().map(|rule| format!(" by {rule:?}")).unwrap_or_default();
    let text = format!(
        "{} from {} is to be {verdict}{by}, and is {}; change the rules or what is expected",
        came.request,
        expect.from,
        verdict_of(&came),
    );
    Some(Problem { place: expect.place.clone(), key: "expect".into(), text })
}

fn verdict_of(came: &Explanation) -> String {
    let by = came.rule.as_ref().map(|rule| format!(" by {rule:?}")).unwrap_or_default();
    match came.refusal {
        None => format!("allowed{by}"),
        Some(code) => {
            let client = came.client.as_ref().map_or("no client", |client| &client.name);
            format!("refused{by} ({code}, as {client})")
        }
    }
}
