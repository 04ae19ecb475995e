//! What is left of a token in memory once it was replaced: nothing.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    load::{Kind, Load},
    rotation::{basic, seal, token},
    support::{TestProxy, secrets, setup, write_private},
};

/// After a token was replaced.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// Where the memory of patgate holds a token, in any form; the forms and how often. Stops the process for a moment.
fn found(proxy: &TestProxy, token: &str) -> Vec<(String, usize)> {
    let pid = proxy.pid().to_string();
    let prefix = proxy.path("core");
    // With all mappings: what is left out of dumps is looked at too.
    let output = Command::new("gcore").arg("-a").arg("-o").arg(&prefix).arg(&pid).output().unwrap();
    let path = proxy.path(&format!("core.{pid}"));
    let core = fs::read(&path).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    fs::remove_file(path).unwrap();
    assert!(core.len() > 1 << 20, "a core of {} bytes", core.len());
    let mut found = Vec::new();
    for form in secrets::forms(token) {
        let count = memchr::memmem::find_iter(&core, form.as_bytes()).count();
        if count > 0 {
            found.push((form, count));
        }
    }
    found
}

#[test]
#[ignore = "needs root and gdb"]
fn a_token_that_was_replaced_in_a_file_is_forgotten_within_ten_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("pat");
    forgets("type = \"file\"", &secret.display().to_string(), |value| write_private(&secret, value));
}

#[test]
#[ignore = "needs root and gdb"]
fn a_token_that_was_replaced_in_a_sealed_vault_is_forgotten_within_ten_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let (vault, key) = (folder.path().join("vault.sealed"), folder.path().join("vault.key"));
    let section = format!("type = \"sealed\"\npath = \"{}\"\nkey = \"{}\"", vault.display(), key.display());
    forgets(&section, "rotated", |value| seal(&vault, value));
}

/// Replaces a token twice, once under load and once before a silence. The arguments are those of
/// [`crate::rotation::survives`].
fn forgets(vault: &str, secret: &str, mut put: impl FnMut(&str)) {
    let tokens: Vec<_> = (0..3).map(token).collect();
    let rules = "[[rule]]\nname = \"all\"\nclients = [\"here\"]\npaths = [\"/contoso/**\"]\n\
                 allow = [\"GET\", \"git:fetch\"]\ncredential = \"quick\"\n";
    put(&tokens[0]);
    let proxy = setup()
        .rules(rules)
        .with(&format!("[vault.quick]\n{vault}\nrefresh = \"500ms\"\n"))
        .with(&format!(
            "[credential.quick]\nvault = \"quick\"\nsecret = \"{secret}\"\norganizations = [\"contoso\"]\n",
        ))
        .start();
    for (number, pair) in tokens.windows(2).enumerate() {
        let [old, new] = pair else { unreachable!() };
        proxy.organization().accept(&[old, new]);
        let load = Load::of(proxy.address, 4, &Kind::Kept);
        let single = Load::start(proxy.address, 2);
        load.wait_for(2_000);
        let clone = proxy.path(&format!("clone-{number}"));
        proxy.git_ok(
            proxy.folder.path(),
            &["clone", "-q", &proxy.url("/contoso/web/_git/web"), clone.to_str().unwrap()],
        );
        assert!(!found(&proxy, old).is_empty(), "a token in use is not found: the search is worth nothing");
        put(new);
        let wanted = basic(new);
        let deadline = Instant::now() + Duration::from_secs(30);
        while proxy.organization().seen().last().is_none_or(|seen| seen.authorization != [&*wanted]) {
            assert!(Instant::now() < deadline, "{}", proxy.log());
            thread::sleep(Duration::from_millis(20));
        }
        let replaced = Instant::now();
        // Once with requests going on, once in the silence after them.
        if number == 0 {
            until_forgotten(&proxy, old, replaced);
        }
        // Requests may be lost while the process stands still for its memory to be read.
        let (done, _) = (load.end(), single.end());
        assert!(done.0 > 2_000);
        if number == 1 {
            until_forgotten(&proxy, old, replaced);
        }
    }
}

fn until_forgotten(proxy: &TestProxy, old: &str, replaced: Instant) {
    loop {
        let begun = replaced.elapsed();
        let left = found(proxy, old);
        if left.is_empty() {
            println!("forgotten {begun:?} after it was replaced");
            return;
        }
        assert!(begun < FORGOTTEN, "{begun:?} after it was replaced, memory holds {left:?}");
    }
}
