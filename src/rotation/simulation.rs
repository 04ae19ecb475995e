//! Rotations that are killed at every point and go on, with a real vault and a real sample organisation.

use std::{sync::Arc, time::Duration};

use http::Method;

use super::{
    plan::Plan,
    state::{Step, later},
};
use crate::{
    audit::Event,
    clock,
    sample::{Governance, Mishap},
    vault::sealed,
};

mod lab;

use lab::{ENTRA, Killer, Lab, Records, Writes};

#[tokio::test]
async fn a_rotation_replaces_the_token_and_then_revokes_it() {
    let lab = Lab::start();
    let state = lab.turn().await;
    lab.assert_at_rest(&state, "the first, in place of one made by hand").await;
    let first = state.current.unwrap();
    assert_eq!(state.identity.as_deref(), Some("5a2c9f4e-6d1b-4c0a-9e57-1b7d3c8f2a60"));

    let same = lab.turn().await;
    assert_eq!(same.current.as_ref(), Some(&first), "nothing is due");
    lab.pass(lab.plan.every);
    let state = lab.turn().await;
    let second = state.current.clone().unwrap();
    assert_ne!(second.authorization, first.authorization);
    assert_eq!(state.retiring.len(), 1);
    assert_eq!(state.next(&lab.plan, lab.now()), state.retiring[0].after);
    assert_eq!(lab.active().len(), 2, "both count during the grace");
    lab.pass(lab.plan.grace);
    let state = lab.turn().await;
    lab.assert_at_rest(&state, "after the grace").await;
    assert_eq!(state.current, Some(second));
    let whole = ["creating", "created", "written", "in-use"];
    assert_eq!(lab.steps(), [&whole[..], &whole[..], &["revoked"][..]].concat());
}

#[tokio::test]
async fn every_call_has_its_records_and_none_holds_a_secret() {
    let lab = Lab::start();
    lab.turn().await;
    lab.pass(lab.plan.every);
    lab.to_the_end().await;
    let events = lab.events.lock().unwrap();
    let (mut intents, mut outcomes) = (Vec::new(), Vec::new());
    for event in &*events {
        match event {
            Event::Intent { id, purpose: "rotate", .. } => intents.push(id.clone()),
            Event::Outcome { id, facts, .. } => {
                assert!(intents.contains(id) && facts.fingerprint.is_some() && facts.status.is_some());
                outcomes.push(id.clone());
            }
            _ => {}
        }
    }
    assert_eq!(intents, outcomes);
    assert_eq!(intents.len() as u64, lab.organization.requests());
    let said = format!("{events:?}");
    let kept = std::fs::read_to_string(lab.folder.path().join("one/rotation/web.json")).unwrap();
    for seen in lab.organization.seen() {
        let sent = seen.authorization[0].split(' ').nth(1).unwrap();
        assert!(!said.contains(sent) && !kept.contains(sent));
    }
    assert!(!said.contains(ENTRA) && !said.contains("JQQJ99"));
    assert!(!kept.contains(ENTRA) && !kept.contains("JQQJ99"));
}

/// All that a rotation and its end come by.
#[tokio::test]
async fn killed_at_any_point_it_goes_on_and_access_is_never_lost() {
    let lab = Lab::start();
    let mut state = lab.turn().await;
    let mut points = 0;
    loop {
        lab.pass(lab.plan.every);
        let before = state.current.clone().unwrap();
        let killer = Killer::at(points);
        let when = format!("killed at point {points}");
        let mut died = lab.turn_killed(&killer).await.is_none();
        lab.assert_sound(&when).await;
        if !died {
            lab.pass(lab.plan.grace);
            died = lab.turn_killed(&killer).await.is_none();
            lab.assert_sound(&when).await;
        }
        lab.turn().await;
        lab.assert_sound(&when).await;
        state = lab.to_the_end().await;
        lab.assert_at_rest(&state, &when).await;
        assert_ne!(state.current.as_ref().unwrap().authorization, before.authorization, "{when}");
        if !died {
            break;
        }
        points += 1;
    }
    assert!(points > 60, "{points} points");
}

#[tokio::test]
async fn killed_again_while_it_goes_on_access_is_never_lost() {
    let lab = Lab::start();
    lab.turn().await;
    for (first, second) in
        (0..70).step_by(3).flat_map(|first| (0..30).step_by(4).map(move |second| (first, second)))
    {
        lab.pass(lab.plan.every);
        let when = format!("killed at points {first} and {second}");
        for point in [first, second] {
            lab.turn_killed(&Killer::at(point)).await;
            lab.assert_sound(&when).await;
        }
        lab.turn().await;
        let state = lab.to_the_end().await;
        lab.assert_at_rest(&state, &when).await;
    }
}

#[tokio::test]
async fn a_token_whose_making_was_not_answered_is_found_and_revoked() {
    let lab = Lab::start();
    lab.organization.befall(Some((Method::POST, Mishap::Unanswered)));
    let state = lab.turn().await;
    assert_eq!((state.failures, state.lost.len(), lab.active().len()), (1, 1, 1));
    assert!(state.not_before.unwrap() > lab.now());
    let waiting = lab.turn().await;
    assert_eq!(waiting, state, "not before its time");
    lab.organization.befall(None);
    lab.pass(lab.plan.patience.after_failure.1);
    let state = lab.turn().await;
    lab.assert_at_rest(&state, "once it is answered").await;
    assert!(lab.steps().contains(&"abandoned"));
}

#[tokio::test]
async fn what_azure_devops_refuses_leaves_nothing_behind() {
    let lab = Lab::start();
    let by = |mishap| (Method::POST, mishap);
    for (mishap, governance, why) in [
        (
            None,
            Governance { no_creation: true, ..Governance::default() },
            "disablePatCreationPolicyViolation",
        ),
        (Some(by(Mishap::Throttled(7))), Governance::default(), "patience"),
        (Some(by(Mishap::Failing)), Governance::default(), "500"),
        (Some((Method::GET, Mishap::Failing)), Governance::default(), "500"),
    ] {
        lab.organization.befall(mishap);
        lab.organization.govern(governance);
        let state = lab.turn().await;
        assert!(state.trouble.as_ref().unwrap().contains(why), "{why}: {:?}", state.trouble);
        assert_eq!((&state.step, lab.active().len()), (&Step::Idle, 0));
        lab.assert_access(why).await;
        lab.pass(Duration::from_secs(3700));
    }
    lab.organization.befall(None);
    let state = lab.turn().await;
    assert_eq!((state.failures, state.trouble.clone()), (0, None));
    lab.assert_at_rest(&state, "at last").await;
}

#[tokio::test]
async fn a_revocation_that_was_not_answered_is_done_again() {
    let lab = Lab::start();
    lab.turn().await;
    lab.pass(lab.plan.every);
    lab.turn().await;
    lab.pass(lab.plan.grace);
    lab.organization.befall(Some((Method::DELETE, Mishap::Unanswered)));
    let state = lab.turn().await;
    assert_eq!((state.failures, state.retiring.len(), lab.active().len()), (1, 1, 1));
    lab.organization.befall(None);
    lab.pass(lab.plan.patience.after_failure.1);
    let state = lab.turn().await;
    lab.assert_at_rest(&state, "the second time").await;
}

#[tokio::test]
async fn a_vault_that_does_not_take_the_token_keeps_the_one_it_has() {
    let lab = Lab::start();
    let first = lab.turn().await.current.unwrap();
    lab.pass(lab.plan.every);
    *lab.writes.lock().unwrap() = Writes::Failing;
    let state = lab.turn().await;
    assert_eq!((&state.step, state.current.as_ref()), (&Step::Idle, Some(&first)));
    assert_eq!(lab.active(), std::slice::from_ref(&first.authorization), "the new one is revoked");
    lab.assert_access("nothing was written").await;

    *lab.writes.lock().unwrap() = Writes::Unanswered;
    lab.pass(lab.plan.patience.after_failure.1);
    let state = lab.turn().await;
    assert_eq!(state.trouble, None, "the vault has it, whatever it said");
    assert_ne!(state.current, Some(first));
    lab.pass(lab.plan.grace);
    lab.assert_at_rest(&lab.turn().await, "after the grace").await;
}

#[tokio::test]
async fn a_shortened_token_is_replaced_before_it_ends() {
    let lab = Lab::start();
    let lifespan = Some(Duration::from_hours(96));
    lab.organization.govern(Governance { lifespan, ..Governance::default() });
    let state = lab.turn().await;
    let due = state.due(&lab.plan).unwrap();
    let days = due.duration_since(lab.now()).as_hours();
    assert!((47..=48).contains(&days), "{days} h");
}

#[tokio::test]
async fn a_token_that_was_put_back_is_not_revoked() {
    let lab = Lab::start();
    lab.turn().await;
    let old = lab.value().await;
    lab.pass(lab.plan.every);
    lab.turn().await;
    sealed::put(&lab.file(), &lab.key(), "web", &old, None).unwrap();
    lab.pass(lab.plan.grace);
    let state = lab.turn().await;
    // It is in use again, and as old as it is: the next one is due, and then both others go.
    assert!(lab.steps().contains(&"put-back"));
    assert_eq!((state.retiring.len(), lab.active().len()), (2, 3));
    lab.assert_access("put back").await;
    lab.pass(lab.plan.grace);
    let state = lab.turn().await;
    lab.assert_at_rest(&state, "in the end").await;
}

#[tokio::test]
async fn two_patgates_with_one_vault_make_one_token() {
    let lab = Lab::start();
    let (one, two) = (lab.machine("one", &Arc::default()), lab.machine("two", &Arc::default()));
    one.turn(false).await.unwrap();
    let adopted = two.turn(false).await.unwrap();
    assert_eq!(adopted.current.unwrap().mark, None);
    assert_eq!(lab.active().len(), 1);
    for round in 0..4 {
        // In real time everything happens at once, and the server's clock with it.
        lab.pass(lab.plan.every + lab.plan.patience.lease);
        let before = lab.active();
        let (first, second) = tokio::join!(one.turn(false), two.turn(false));
        let states = [first.unwrap(), second.unwrap()];
        lab.assert_access(&format!("round {round}")).await;
        assert!(states.iter().all(|state| state.step == Step::Idle), "{states:?}");
        let made = lab.active().into_iter().filter(|id| !before.contains(id)).count();
        assert!((1..=2).contains(&made), "round {round}: {made}");
        lab.pass(lab.plan.grace);
        one.turn(false).await.unwrap();
        two.turn(false).await.unwrap();
        lab.assert_access(&format!("round {round}, after the grace")).await;
    }
}

#[tokio::test]
async fn two_patgates_that_take_turns_follow_each_other() {
    let mut lab = Lab::start();
    let mut plan = Plan::clone(&lab.plan);
    (plan.every, plan.grace, plan.patience.lease) =
        (Duration::from_millis(600), Duration::from_millis(300), Duration::from_millis(100));
    lab.plan = Arc::new(plan);
    let machines = ["one", "two"].map(|instance| lab.machine(instance, &Arc::default()));
    let made = |lab: &Lab| lab.steps().into_iter().filter(|step| *step == "in-use").count();
    let patience = later(clock::timestamp(), Duration::from_mins(1));
    while made(&lab) < 8 {
        assert!(clock::timestamp() < patience, "{:?}", lab.steps());
        for machine in &machines {
            let state = machine.turn(false).await.unwrap();
            assert_eq!(state.trouble, None);
        }
        lab.assert_access("in turns").await;
        assert!(lab.active().len() <= 4, "{:?}", lab.steps());
    }
    assert!(lab.steps().contains(&"adopted"));
}

#[tokio::test]
async fn one_that_is_asked_for_is_made_however_often_it_fails_first() {
    let lab = Lab::start();
    let first = lab.turn().await.current;
    lab.organization.befall(Some((Method::POST, Mishap::Failing)));
    let state = lab.machine("one", &Arc::default()).turn(true).await.unwrap();
    assert_eq!((state.failures, &state.current), (1, &first));
    lab.organization.befall(None);
    lab.pass(lab.plan.patience.after_failure.1);
    let state = lab.turn().await;
    assert_ne!(state.current, first);
    assert_eq!(lab.turn().await.current, state.current, "once is enough");
}

#[tokio::test]
async fn a_token_of_a_stranger_with_a_like_name_is_left_alone() {
    let lab = Lab::start();
    lab.turn().await;
    let strangers = lab.azure(Arc::new(Records {
        killer: Arc::default(),
        ledger: lab.ledger("none"),
        events: Arc::default(),
    }));
    let mut plan = Plan::clone(&lab.plan);
    plan.name = "patgate web, by hand".into();
    let entra = strangers.entra(ENTRA.to_owned().into()).unwrap();
    let (stranger, _) = strangers
        .create(&plan, &entra, "0123456789abcdef", later(lab.now(), lab.plan.valid_for))
        .await
        .unwrap();
    lab.pass(lab.plan.every);
    lab.to_the_end().await;
    assert_eq!(lab.active().len(), 2);
    assert!(lab.active().contains(&stranger.authorization));
}

#[tokio::test]
async fn a_token_that_an_operator_disabled_is_not_tried_made_or_revoked() {
    let lab = Lab::start();
    let mut machine = lab.machine("one", &Arc::default());
    machine.disabled = Box::new(|| true);
    let before = lab.organization.requests();
    let state = machine.turn(true).await.unwrap();
    assert_eq!(lab.organization.requests(), before);
    assert!(state.asked && state.not_before.is_some(), "it is done once the token may be used again");
}
