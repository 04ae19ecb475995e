//! Death: what went upstream is on record, and the next start mends the rest.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    load::{Kind, Load},
    support::{patgate, setup, text},
};

/// The segment that was written last.
fn last_segment(audit: &Path) -> PathBuf {
    let entries = fs::read_dir(audit.join("chain-1")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).max().unwrap()
}

/// A segment, and where its records end and its space begins.
fn records_of(segment: &Path) -> (fs::File, u64) {
    let bytes = fs::read(segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (fs::OpenOptions::new().write(true).open(segment).unwrap(), end as u64)
}

fn verdict(audit: &Path) -> Option<i32> {
    let verified = patgate().args(["audit", "verify"]).arg(audit).output().unwrap();
    assert!(matches!(verified.status.code(), Some(0 | 1)), "{}", text(&verified));
    verified.status.code()
}

#[test]
fn killed_twenty_times_under_load_every_use_is_on_record() {
    let mut proxy = setup().start();
    proxy.organization().keep(1 << 18);
    let mut torn = 0;
    for round in 0..20 {
        let load = Load::of(proxy.address, 4, &Kind::Unique(format!("round-{round}")));
        load.wait_for(40);
        proxy.kill();
        load.end();
        verdict(&proxy.audit);
        if round % 5 == 4 {
            // The machine died in the middle of a write.
            let (segment, end) = records_of(&last_segment(&proxy.audit));
            segment.write_all_at(&[0x2c, 1, 0, 0, 0xaa, 0xbb, 0xcc, 0xdd, b'{', b'"', b'v'], end).unwrap();
            assert_eq!(verdict(&proxy.audit), Some(1));
            torn += 1;
        }
        proxy.launch();
        assert_eq!(verdict(&proxy.audit), Some(0));
    }
    // And once the last record itself is cut: the outcome of a request that nobody waits for.
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    proxy.record("its end", |record| {
        record["kind"] == "outcome" && record["path"] == "/contoso/_apis/projects"
    });
    proxy.kill();
    let (segment, end) = records_of(&last_segment(&proxy.audit));
    segment.set_len(end - 3).unwrap();
    assert_eq!(verdict(&proxy.audit), Some(1));
    proxy.launch();
    torn += 1;
    assert_eq!(proxy.stop(), Some(0));
    assert_eq!(verdict(&proxy.audit), Some(0));

    let records = proxy.records();
    let of = |kind: &'static str| records.iter().filter(move |record| record["kind"] == kind);
    let recovered: Vec<_> = of("recovered").collect();
    // A kill may tear a write by itself, where it crosses the end of a page.
    assert!(recovered.len() >= torn, "{recovered:#?}");
    assert!(recovered.iter().all(|record| record["cut"].as_u64().is_some_and(|cut| cut > 0)));
    let mut intents: HashMap<&str, u64> = HashMap::new();
    for intent in of("intent") {
        *intents.entry(intent["path"].as_str().unwrap()).or_default() += 1;
    }
    let seen = proxy.organization().seen();
    assert_eq!(seen.len() as u64, proxy.organization().requests(), "all that was seen was kept");
    assert!(seen.len() >= 20 * 40);
    for seen in &seen {
        let left =
            intents.get_mut(seen.target.as_str()).unwrap_or_else(|| panic!("no intent: {}", seen.target));
        *left = left.checked_sub(1).unwrap_or_else(|| panic!("more requests than intents: {}", seen.target));
    }
    let mut ends: HashMap<&str, u64> = HashMap::new();
    for outcome in of("outcome") {
        *ends.entry(outcome["id"].as_str().unwrap()).or_default() += 1;
    }
    for intent in of("intent") {
        assert_eq!(ends.get(intent["id"].as_str().unwrap()), Some(&1), "{intent}");
    }
    let unknown = of("outcome").filter(|outcome| outcome["ending"] == "unknown").count();
    assert!(unknown > 0, "nothing was under way in twenty kills");
    println!("{} requests upstream, {unknown} whose end nobody saw, {torn} torn tails", seen.len());
}
