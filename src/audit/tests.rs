//! The audit as a whole: lanes, writer, disk and verifier together.

use std::{
    future::Future,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::runtime::{Builder, LocalOptions};

use super::{
    disk::flaky::{Flaky, Plan},
    frame::Header,
    verify::{Verdict, verify},
    *,
};
use crate::config::Durability;

mod space;

const CLOSE: Duration = Duration::from_secs(20);

fn metrics() -> Arc<crate::metrics::Metrics> {
    Arc::new(crate::metrics::Metrics::new("0"))
}

fn config(folder: &Path) -> crate::config::Audit {
    crate::config::Audit {
        folder: folder.to_owned(),
        durability: Durability::Disk,
        segment_size: 256 * 1024 * 1024,
        segment_age: Duration::from_hours(1),
        reserve: 0,
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_mins(1), work).await.unwrap() })
}

fn flaky(config: &crate::config::Audit) -> (Audit, Arc<Mutex<Plan>>) {
    let disk = Flaky::default();
    let plan = Arc::clone(&disk.0);
    (open::open(config, false, &mut || Box::new(disk.clone())).unwrap(), plan)
}

/// Every record of every chain, the chains in order.
fn records(folder: &Path) -> Vec<Value> {
    let mut found = Vec::new();
    for chain in open::chains(folder).unwrap() {
        chain::walk(&chain::segments(&chain).unwrap(), &mut |seq, payload| {
            let mut record: Value = serde_json::from_slice(payload).unwrap();
            record["seq"] = seq.into();
            found.push(record);
        })
        .unwrap();
    }
    found
}

fn of(records: &[Value], kind: &str) -> Vec<Value> {
    records.iter().filter(|record| record["kind"] == kind).cloned().collect()
}

fn verdict(folder: &Path) -> Verdict {
    let report = verify(folder).unwrap();
    report.chains.into_iter().map(|chain| chain.verdict).max().unwrap()
}

async fn used(lane: &Rc<Lane>) -> Entry {
    let mut entry = lane.entry(Some("10.0.0.1:5000".parse().unwrap()));
    entry.facts_mut().client = Some("agents".into());
    entry.facts_mut().path = Some("/contoso/web".into());
    entry.intend(None, None).await.unwrap();
    entry
}

#[test]
fn an_intent_is_on_the_disk_when_it_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(&config(folder.path()), false).unwrap();
    run(async {
        let lane = audit.lane(&metrics());
        let entry = used(&lane).await;
        let found = of(&records(folder.path()), "intent");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["id"], entry.id());
        assert_eq!(found[0]["client"], "agents");
        assert_eq!(found[0]["address"], "10.0.0.1");
        entry.end(Ending::Complete);
    });
    audit.close(CLOSE);
    let found = records(folder.path());
    assert_eq!(found.len(), 2);
    assert_eq!(found[1]["ending"], "complete");
    assert_eq!(found[1]["id"], found[0]["id"]);
    assert_eq!(verdict(folder.path()), Verdict::Intact);
}

#[test]
fn what_nobody_waits_for_reaches_the_disk_soon() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(&config(folder.path()), false).unwrap();
    run(async {
        let lane = audit.lane(&metrics());
        for n in 1..5 {
            used(&lane).await.end(Ending::Complete);
            while of(&records(folder.path()), "outcome").len() < n {
                tokio::task::yield_now().await;
            }
        }
        // A flood's count follows when its second is over.
        for _ in 0..100 {
            lane.connection("10.0.0.1:1".parse().unwrap(), Refusal::HeadMalformed, "");
        }
        let counted = |found: &[Value]| -> u64 {
            of(found, "connection").iter().map(|record| record["count"].as_u64().unwrap_or(1)).sum()
        };
        while counted(&records(folder.path())) < 100 {
            tokio::task::yield_now().await;
        }
    });
    audit.close(CLOSE);
}

#[test]
fn every_ending_is_one_record() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(&config(folder.path()), false).unwrap();
    run(async {
        let lane = audit.lane(&metrics());
        for ending in [Ending::Complete, Ending::UpstreamGone, Ending::Refused(Refusal::VaultUnavailable)] {
            used(&lane).await.end(ending);
        }
        drop(used(&lane).await);
        let broken = used(&lane).await;
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _broken = broken;
            panic!("a step broke");
        }));
        assert!(panicked.is_err());
        lane.entry(None).end(Ending::Refused(Refusal::NoRule));
        drop(lane.entry(None));
    });
    audit.close(CLOSE);
    let found = records(folder.path());
    let endings: Vec<_> = of(&found, "outcome").iter().map(|record| record["ending"].clone()).collect();
    assert_eq!(endings, ["complete", "upstream-gone", "refused", "client-gone", "panic"]);
    let refusals = of(&found, "refusal");
    assert_eq!(refusals.len(), 2);
    assert_eq!((&refusals[0]["refusal"], &refusals[1]["ending"]), (&"no-rule".into(), &"client-gone".into()));
}

#[test]
fn a_further_attempt_has_its_own_intent() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(&config(folder.path()), false).unwrap();
    run(async {
        let lane = audit.lane(&metrics());
        let mut entry = used(&lane).await;
        entry.intend(Some("probe"), Some("/contoso/_apis/connectionData")).await.unwrap();
        entry.end(Ending::Complete);
    });
    audit.close(CLOSE);
    let found = records(folder.path());
    let intents = of(&found, "intent");
    assert_eq!((intents.len(), of(&found, "outcome").len()), (2, 1));
    assert_eq!(intents[1]["attempt"], 2);
    assert_eq!(intents[1]["purpose"], "probe");
    assert_eq!(intents[1]["purpose-path"], "/contoso/_apis/connectionData");
    assert_eq!(intents[0]["id"], intents[1]["id"]);
}

#[test]
fn a_hundred_intents_of_one_round_share_one_sync() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, plan) = flaky(&config(folder.path()));
    run(async {
        let lane = audit.lane(&metrics());
        // Lets the lane's task start.
        used(&lane).await.end(Ending::Complete);
        let before = plan.lock().unwrap().syncs;
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let lane = Rc::clone(&lane);
                tokio::task::spawn_local(async move { used(&lane).await.end(Ending::Complete) })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let syncs = plan.lock().unwrap().syncs - before;
        // One for the intents; one more if the timer let an earlier outcome go first.
        assert!((1..=2).contains(&syncs), "{syncs}");
    });
    audit.close(CLOSE);
    assert_eq!(of(&records(folder.path()), "outcome").len(), 101);
}

#[test]
fn lanes_of_several_threads_make_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.segment_size = 4096;
    let audit = Audit::open(&config, false).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                run(async {
                    let lane = audit.lane(&metrics());
                    for _ in 0..100 {
                        used(&lane).await.end(Ending::Complete);
                    }
                });
            });
        }
    });
    run(audit.event(Event::Stop { reason: "test" })).unwrap();
    let folder = folder.path();
    assert_eq!(audit.statistics().failures, 0);
    audit.close(CLOSE);
    let found = records(folder);
    assert_eq!((of(&found, "intent").len(), of(&found, "outcome").len()), (300, 300));
    assert_eq!(of(&found, "stop").len(), 1);
    let report = verify(folder).unwrap();
    assert_eq!((report.chains[0].records, &report.chains[0].verdict), (601, &Verdict::Intact));
    assert!(report.chains[0].segments > 10);
}

#[test]
fn a_failing_disk_refuses_intents_and_loses_no_outcome() {
    // (writes that fail, syncs that fail, creations that fail, cuts that fail)
    for (writes, syncs, creates, cuts) in
        [(1, 0, 0, 0), (0, 1, 0, 0), (2, 0, 2, 0), (0, 3, 1, 0), (0, 1, 0, 1), (1, 0, 0, 1)]
    {
        let folder = tempfile::tempdir().unwrap();
        let (audit, plan) = flaky(&config(folder.path()));
        run(async {
            let lane = audit.lane(&metrics());
            let under_way = used(&lane).await;
            {
                let mut plan = plan.lock().unwrap();
                plan.failing_writes = writes;
                plan.failing_syncs = syncs;
                plan.failing_creates = creates;
                plan.failing_cuts = cuts;
            }
            let mut refused = lane.entry(None);
            assert!(refused.intend(None, None).await.is_err());
            assert!(!audit.is_available());
            refused.end(Ending::Refused(Refusal::AuditUnavailable));
            under_way.end(Ending::Complete);
            while lane.entry(None).intend(None, None).await.is_err() {
                tokio::task::yield_now().await;
            }
            assert!(audit.is_available());
        });
        audit.close(CLOSE);
        let found = records(folder.path());
        assert_eq!(of(&found, "gap").len(), 1);
        let complete = of(&found, "outcome").into_iter().filter(|record| record["ending"] == "complete");
        assert_eq!(complete.count(), 1, "{writes} {syncs} {creates} {cuts}");
        assert!(matches!(verdict(folder.path()), Verdict::Gap(_)), "{:?}", verdict(folder.path()));
        // What failed does not keep patgate from starting.
        Audit::open(&config(folder.path()), false).unwrap().close(CLOSE);
    }
}

#[test]
#[expect(clippy::await_holding_lock, reason = "the lock is what the disk hangs on")]
fn a_disk_that_hangs_refuses_intents_until_it_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, plan) = flaky(&config(folder.path()));
    let gate = Arc::clone(&plan.lock().unwrap().gate);
    let mut builder = Builder::new_current_thread();
    builder.enable_all().start_paused(true).build_local(LocalOptions::default()).unwrap().block_on(async {
        let lane = audit.lane(&metrics());
        let held = gate.lock().unwrap();
        let began = tokio::time::Instant::now();
        let passed = plan.lock().unwrap().at_gate;
        let mut refused = lane.entry(None);
        let waiting = tokio::task::spawn_local(async move {
            let why = refused.intend(None, None).await.unwrap_err();
            (refused, why)
        });
        while plan.lock().unwrap().at_gate == passed {
            tokio::task::yield_now().await;
        }
        let (refused, why) = waiting.await.unwrap();
        assert_eq!(why.0.as_ref(), "the disk does not answer");
        let waited = began.elapsed();
        assert!((5..6).contains(&waited.as_secs()), "{waited:?}");
        refused.end(Ending::Refused(Refusal::AuditUnavailable));
        // Others are refused at once, and counted rather than queued.
        for _ in 0..1000 {
            let mut refused = lane.entry(None);
            assert!(refused.intend(None, None).await.is_err());
            refused.end(Ending::Refused(Refusal::AuditUnavailable));
        }
        assert!(began.elapsed() < Duration::from_secs(6));
        drop(held);
        while !audit.is_available() {
            tokio::task::yield_now().await;
        }
    });
    run(async { used(&audit.lane(&metrics())).await.end(Ending::Complete) });
    audit.close(CLOSE);
    let found = records(folder.path());
    assert_eq!((of(&found, "intent").len(), of(&found, "outcome").len()), (2, 2));
    assert_eq!(of(&found, "refusal").len(), 1);
    assert_eq!(of(&found, "refusal")[0]["count"], 1000);
}

#[test]
fn below_the_reserve_intents_are_refused_and_outcomes_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.reserve = 1000;
    let (audit, plan) = flaky(&config);
    run(async {
        let lane = audit.lane(&metrics());
        let under_way = used(&lane).await;
        plan.lock().unwrap().free = Some(999);
        while audit.is_available() {
            tokio::task::yield_now().await;
        }
        let mut refused = lane.entry(None);
        let why = refused.intend(None, None).await.unwrap_err();
        assert!(why.to_string().contains("999 bytes are free"), "{why}");
        refused.end(Ending::Refused(Refusal::AuditUnavailable));
        under_way.end(Ending::Complete);
        audit.event(Event::Stop { reason: "test" }).await.unwrap();
        plan.lock().unwrap().free = Some(1000);
        while !audit.is_available() {
            tokio::task::yield_now().await;
        }
        used(&lane).await.end(Ending::Complete);
    });
    audit.close(CLOSE);
    let found = records(folder.path());
    assert_eq!(of(&found, "outcome").len(), 2);
    assert_eq!(of(&found, "refusal").len(), 1);
    assert_eq!(of(&found, "refusal")[0]["count"], 1);
}

#[test]
fn refusals_under_flood_are_counted_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(&config(folder.path()), false).unwrap();
    run(async {
        let lane = audit.lane(&metrics());
        for n in 0..1000_u32 {
            let [a, b, ..] = n.to_le_bytes();
            let peer = SocketAddr::from(([10, 0, b, a % 8], 1000));
            lane.entry(Some(peer)).end(Ending::Refused(Refusal::NoRule));
            lane.connection(peer, Refusal::HeadMalformed, "no method");
        }
    });
    audit.close(CLOSE);
    let found = records(folder.path());
    for kind in ["refusal", "connection"] {
        let counts: u64 = of(&found, kind).iter().map(|record| record["count"].as_u64().unwrap_or(1)).sum();
        assert_eq!(counts, 1000, "{kind}");
    }
    // 32 addresses, two seconds at most.
    assert!(found.len() <= 2 * 2 * 32 * 5, "{}", found.len());
}

#[test]
fn a_second_patgate_is_refused_unless_it_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let one = Audit::open(&config(folder.path()), false).unwrap();
    let error = Audit::open(&config(folder.path()), false).unwrap_err();
    let text = format!("another patgate (process {}) is writing to ", std::process::id());
    assert!(error.to_string().starts_with(&text), "{error}");
    assert!(error.to_string().ends_with("chain-1"), "{error}");
    let two = Audit::open(&config(folder.path()), true).unwrap();
    assert!(two.folder().ends_with("chain-2"));
    one.close(CLOSE);
    // The first chain is free again: a third goes on there.
    let three = Audit::open(&config(folder.path()), true).unwrap();
    assert!(three.folder().ends_with("chain-1"));
    assert!(matches!(Audit::open(&config(folder.path()), false), Err(OpenError::InUse(..))));
    two.close(CLOSE);
    three.close(CLOSE);
    assert_eq!(verify(folder.path()).unwrap().chains.len(), 2);
    assert_eq!(verdict(folder.path()), Verdict::Intact);
}

#[test]
fn after_a_crash_every_use_has_an_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let audit = Audit::open(&config(folder.path()), false).unwrap();
    let id = run(async {
        let lane = audit.lane(&metrics());
        used(&lane).await.end(Ending::Complete);
        audit.event(Event::Stop { reason: "x" }).await.unwrap();
        let entry = used(&lane).await;
        // What a crash would leave, with half a record at its end.
        let chain = crashed.path().join("chain-1");
        std::fs::create_dir(&chain).unwrap();
        let mut bytes = std::fs::read(chain::segment(audit.folder(), 1)).unwrap();
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
        bytes.extend_from_slice(&[200, 0, 0, 0, 1, 2, 3]);
        std::fs::write(chain::segment(&chain, 1), bytes).unwrap();
        entry.id().to_owned()
    });
    audit.close(CLOSE);
    let torn = verdict(crashed.path());
    assert!(matches!(torn, Verdict::Torn { bytes: 7, .. }), "{torn:?}");
    for _ in 0..2 {
        Audit::open(&config(crashed.path()), false).unwrap().close(CLOSE);
    }
    assert_eq!(verdict(crashed.path()), Verdict::Intact);
    let found = records(crashed.path());
    assert_eq!(of(&found, "recovered").len(), 1);
    assert_eq!(of(&found, "recovered")[0]["cut"], 7);
    let unknown: Vec<_> =
        of(&found, "outcome").into_iter().filter(|record| record["ending"] == "unknown").collect();
    assert_eq!(unknown.len(), 1);
    assert_eq!((&unknown[0]["id"], &unknown[0]["path"]), (&id.into(), &"/contoso/web".into()));
}

#[test]
fn the_chain_of_a_patgate_that_died_is_mended_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let one = Audit::open(&config(folder.path()), false).unwrap();
    let two = Audit::open(&config(folder.path()), true).unwrap();
    one.close(CLOSE);
    two.close(CLOSE);
    let path = chain::segment(&chain::path(folder.path(), 2), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.push(1);
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(verdict(folder.path()), Verdict::Torn { .. }));
    Audit::open(&config(folder.path()), false).unwrap().close(CLOSE);
    assert_eq!(verdict(folder.path()), Verdict::Intact);
}

/// Two segments, the last with a few records.
fn small() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let audit = Audit::open(&config(folder.path()), false).unwrap();
        for _ in 0..2 {
            run(audit.event(Event::Configured { policy: "0123456789abcdef".into(), generation: 1 })).unwrap();
        }
        audit.close(CLOSE);
    }
    folder
}

/// A frame's size by its first bytes.
fn whole_frame(length: [u8; 4]) -> usize {
    frame::FRAME + (u32::from_le_bytes(length) & !frame::SYNCED) as usize
}

#[test]
fn a_last_segment_cut_anywhere_is_torn_or_ends_at_a_record() {
    let folder = small();
    let path = chain::segment(&chain::path(folder.path(), 1), 2);
    let whole = std::fs::read(&path).unwrap();
    let mut ends = vec![frame::HEADER];
    while let Some(length) = whole.get(*ends.last().unwrap()..).and_then(<[u8]>::first_chunk) {
        ends.push(ends.last().unwrap() + whole_frame(*length));
    }
    assert_eq!((ends.len(), *ends.last().unwrap()), (3, whole.len()));
    for length in 0..=whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let intact = ends.contains(&length);
        let found = verdict(folder.path());
        assert_eq!(found == Verdict::Intact, intact, "{length}: {found:?}");
        assert!(intact || matches!(found, Verdict::Torn { .. }), "{length}: {found:?}");
    }
}

#[test]
fn after_any_torn_tail_the_next_start_mends_the_chain() {
    let folder = small();
    let chain = chain::path(folder.path(), 1);
    let path = chain::segment(&chain, 2);
    let whole = std::fs::read(&path).unwrap();
    for length in (0..=whole.len()).step_by(17) {
        let _ = std::fs::remove_file(chain::segment(&chain, 3));
        std::fs::write(&path, &whole[..length]).unwrap();
        Audit::open(&config(folder.path()), false).unwrap().close(CLOSE);
        assert_eq!(verdict(folder.path()), Verdict::Intact, "{length}");
    }
}

#[test]
fn a_flip_of_any_byte_is_an_alteration() {
    let folder = small();
    for number in [1, 2] {
        let path = chain::segment(&chain::path(folder.path(), 1), number);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= mask;
                std::fs::write(&path, bytes).unwrap();
                let found = verdict(folder.path());
                assert!(matches!(found, Verdict::Altered { .. }), "{number}: {at} ^ {mask}: {found:?}");
            }
            if at % 50 == 0 {
                assert!(
                    matches!(Audit::open(&config(folder.path()), false), Err(OpenError::Altered(_))),
                    "{at}"
                );
            }
        }
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(verdict(folder.path()), Verdict::Intact);
}

#[test]
#[expect(clippy::type_complexity, reason = "a table")]
fn what_is_missing_or_moved_is_noticed() {
    let frames = |whole: &[u8]| {
        let (head, mut rest) = whole.split_at(frame::HEADER);
        let mut frames = Vec::new();
        while let Some(length) = rest.first_chunk() {
            let (frame, tail) = rest.split_at(whole_frame(*length));
            frames.push(frame.to_vec());
            rest = tail;
        }
        (head.to_vec(), frames)
    };
    let first = |folder: &Path| chain::segment(&chain::path(folder, 1), 1);
    let second = |folder: &Path| chain::segment(&chain::path(folder, 1), 2);
    let cases: [(&str, &dyn Fn(&Path)); 9] = [
        ("altered", &|folder| {
            let (mut head, frames) = frames(&std::fs::read(second(folder)).unwrap());
            head.extend_from_slice(&frames[1]);
            std::fs::write(second(folder), head).unwrap();
        }),
        ("altered", &|folder| {
            let (mut head, frames) = frames(&std::fs::read(second(folder)).unwrap());
            head.extend([frames[1].clone(), frames[0].clone()].concat());
            std::fs::write(second(folder), head).unwrap();
        }),
        ("altered", &|folder| {
            let (mut head, frames) = frames(&std::fs::read(first(folder)).unwrap());
            head.extend_from_slice(&frames[0]);
            std::fs::write(first(folder), head).unwrap();
        }),
        ("altered", &|folder| {
            std::fs::rename(second(folder), chain::segment(&chain::path(folder, 1), 3)).unwrap();
        }),
        ("altered", &|folder| {
            let bytes = std::fs::read(first(folder)).unwrap();
            std::fs::write(second(folder), bytes).unwrap();
        }),
        ("gap", &|folder| std::fs::remove_file(first(folder)).unwrap()),
        ("gap", &|folder| {
            std::fs::remove_file(first(folder)).unwrap();
            std::fs::remove_file(second(folder)).unwrap();
        }),
        ("gap", &|folder| std::fs::rename(chain::path(folder, 1), chain::path(folder, 3)).unwrap()),
        // Renumbered, with a header that is right by itself.
        ("altered", &|folder| {
            let bytes = std::fs::read(second(folder)).unwrap();
            let mut header = Header::decode(&bytes).unwrap();
            header.number = 1;
            std::fs::write(first(folder), [header.encode(), bytes[frame::HEADER..].to_vec()].concat())
                .unwrap();
            std::fs::remove_file(second(folder)).unwrap();
        }),
    ];
    for (n, (expected, change)) in cases.iter().enumerate() {
        let folder = small();
        change(folder.path());
        assert_eq!(verdict(folder.path()).as_str(), *expected, "{n}");
    }
}

#[test]
fn nobody_else_can_read_the_audit() {
    use std::os::unix::fs::PermissionsExt;
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("a").join("audit");
    Audit::open(&config(&folder), false).unwrap().close(CLOSE);
    let chain = chain::path(&folder, 1);
    for (path, mode) in [
        (folder.clone(), 0o700),
        (chain.clone(), 0o700),
        (chain.join("lock"), 0o600),
        (chain::segment(&chain, 1), 0o600),
    ] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
}

#[test]
fn memory_and_os_durability_wait_for_no_sync() {
    for durability in [Durability::Memory, Durability::Os] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.durability = durability;
        let (audit, plan) = flaky(&config);
        let before = plan.lock().unwrap().syncs;
        run(async {
            let lane = audit.lane(&metrics());
            for _ in 0..10 {
                used(&lane).await.end(Ending::Complete);
            }
        });
        assert_eq!(plan.lock().unwrap().syncs, before);
        audit.close(CLOSE);
        assert_eq!(records(folder.path()).len(), 20);
    }
}
