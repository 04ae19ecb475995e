//! A token that is rotated under load, in any vault: the same course for each.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    load::{Kind, Load},
    support::{Setup, TestProxy, patgate, secrets, setup, text},
};

/// How patgate reads the vault in these tests: often.
pub const REFRESH: Duration = Duration::from_secs(1);

/// For patgate to take over a new value, with much to spare on a busy machine.
const TAKEN_OVER: Duration = Duration::from_mins(1);

/// The token of a number, in the form of Azure DevOps' own.
pub fn token(number: usize) -> String {
    format!("ROTATED{number:04}ROTATEDROTATEDROTATEDROTATEDROTATEDROTATEJQQJ99BKACAAAAAAAAAAAAAASAZDOtest")
}

/// What goes upstream for a token.
pub fn basic(token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!(":{token}")))
}

/// Rotates the token in a vault `times` times while requests go on, and asserts that no client sees an error and
/// that nothing goes up with a token that was replaced. `vault` are the lines below `[vault.NAME]` without the
/// times of reading, `secret` is what the credential calls its secret there, and `put` stores a value. It has
/// stored the first one when patgate starts.
///
/// Every other time the old token is revoked at once, so that patgate learns of the new one by a rejection; else
/// it is good until patgate has taken over the new one by itself.
pub fn survives(vault: &str, secret: &str, times: usize, put: impl FnMut(&str)) {
    survives_with(setup(), vault, secret, times, put);
}

/// As [`survives`], with something about patgate changed.
pub fn survives_with(setup: Setup, vault: &str, secret: &str, times: usize, mut put: impl FnMut(&str)) {
    let tokens: Vec<_> = (0..=times).map(token).collect();
    put(&tokens[0]);
    let mut extra = format!("[vault.rotated]\n{vault}\nrefresh = \"{}ms\"\n", REFRESH.as_millis());
    write!(
        extra,
        "[credential.rotated]\nvault = \"rotated\"\nsecret = \"{secret}\"\norganizations = [\"contoso\"]\n"
    )
    .unwrap();
    let rule = "[[rule]]\nname = \"all\"\nclients = [\"here\"]\npaths = [\"/contoso/**\"]\n\
                allow = [\"GET\"]\ncredential = \"rotated\"\n";
    let mut proxy = setup.rules(rule).with(&extra).start();
    proxy.organization().accept(&[&tokens[0]]);
    proxy.organization().keep(1 << 18);
    let begun = Instant::now();
    let load = Load::of(proxy.address, 8, &Kind::Kept);
    load.wait_for(100);
    for number in 1..=times {
        let (old, new) = (&tokens[number - 1], &tokens[number]);
        let revoked_at_once = number % 2 == 0;
        proxy.organization().accept(&[old, new]);
        put(new);
        if revoked_at_once {
            proxy.organization().accept(&[new]);
        }
        until_seen(&proxy, new);
        // Those that were under way with the old one have ended after so many.
        load.wait_for(100);
        proxy.organization().forget();
        load.wait_for(200);
        let old = basic(old);
        let late = proxy.organization().seen().iter().filter(|seen| seen.authorization == [&*old]).count();
        assert_eq!(late, 0, "requests went up with a token that was replaced");
        proxy.organization().accept(&[new]);
    }
    let done = load.end_whole();
    let rate = u128::from(done) * 1_000 / begun.elapsed().as_millis();
    println!("{times} rotations, {done} requests, {rate} a second");
    proxy.stop();
    let tokens: Vec<_> = tokens.iter().map(String::as_str).collect();
    secrets::assert_absent(&tokens, &[&proxy.path("patgate.log"), &proxy.audit]);
}

fn until_seen(proxy: &TestProxy, token: &str) {
    let (wanted, deadline) = (basic(token), Instant::now() + TAKEN_OVER);
    while !proxy.organization().seen().iter().any(|seen| seen.authorization == [&*wanted]) {
        assert!(Instant::now() < deadline, "the new token is not taken over:\n{}", proxy.log());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Puts a token into a sealed vault, as `rotated`.
pub fn seal(vault: &Path, value: &str) {
    let mut seal = patgate();
    seal.args(["vault", "seal", "--new-key", "--vault"]).arg(vault).arg("rotated");
    let mut seal = seal.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    seal.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    let seal = seal.wait_with_output().unwrap();
    assert!(seal.status.success(), "{}", text(&seal));
}
