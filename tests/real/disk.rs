//! A disk that is full.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::support::{TestProxy, patgate, setup, text};

/// A small file system in memory, unmounted at the end.
struct Small(PathBuf);

impl Small {
    fn mount(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m,mode=0700", "patgate-test"])
            .arg(folder)
            .status()
            .unwrap();
        assert!(mounted.success(), "this test mounts a tmpfs, for which it must be root");
        Self(folder.into())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[ignore = "mounts a file system"]
fn a_full_disk_refuses_and_service_resumes_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let small = Small::mount(&folder.path().join("small"));
    let mut proxy = setup().audit(&small.0.join("audit")).start();
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);

    let filler = small.0.join("filler");
    let filled = fs::write(&filler, vec![0; 64 << 20]);
    assert!(filled.is_err(), "the disk is not full");
    let before = proxy.organization().requests();
    let refused = (0..200).find_map(|_| {
        let (status, body) = proxy.get("/contoso/_apis/projects", &[]);
        thread::sleep(Duration::from_millis(20));
        (status == 503).then_some(body)
    });
    assert!(refused.unwrap().contains("audit-unavailable"));
    let while_full = proxy.organization().requests();
    for _ in 0..20 {
        assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 503);
    }
    assert_eq!(proxy.organization().requests(), while_full, "something went up without a record");
    assert!(while_full >= before);
    assert!(!proxy.is_ready(), "ready although nothing can be recorded");

    fs::remove_file(&filler).unwrap();
    let begun = Instant::now();
    while proxy.get("/contoso/_apis/projects", &[]).0 != 200 {
        assert!(begun.elapsed() < Duration::from_secs(5), "{}", proxy.log());
        thread::sleep(Duration::from_millis(50));
    }
    // A gap, if a write failed before the reserve was seen to be gone.
    assert_eq!(proxy.stop(), Some(0), "{}", proxy.log());
    let verified = patgate().args(["audit", "verify"]).arg(&proxy.audit).output().unwrap();
    assert!(matches!(verified.status.code(), Some(0 | 2)), "{}", text(&verified));
    proxy.unverified = true;
    drop(proxy);
    drop(small);
}

/// Asks for one path after another until an answer was refused and a later one was not. Each that
/// was answered went up, and none that was refused did. Gives how long requests were refused.
fn refused_and_served_again(proxy: &TestProxy) -> Duration {
    let mut refused_since: Option<Instant> = None;
    let begun = Instant::now();
    for number in 0.. {
        assert!(begun.elapsed() < Duration::from_mins(1), "{}", proxy.log());
        let path = format!("/contoso/number-{number}/_apis/sample/status");
        let (status, body) = proxy.get(&path, &[]);
        let went_up = proxy.organization().seen().iter().any(|seen| seen.target == path);
        match (status, refused_since) {
            (200, Some(since)) => {
                assert!(went_up);
                return since.elapsed();
            }
            (200, None) => assert!(went_up),
            (503, _) => {
                assert!(body.contains("audit-unavailable"), "{body}");
                assert!(!went_up, "{path} went up without a record");
                refused_since.get_or_insert_with(Instant::now);
            }
            other => panic!("{other:?} {body}"),
        }
    }
    unreachable!()
}

/// The gap is on record, and all that is here is good.
fn assert_gap(proxy: &mut TestProxy) {
    proxy.record("the gap", |record| record["kind"] == "gap");
    assert_eq!(proxy.stop(), Some(0), "{}", proxy.log());
    let verified = patgate().args(["audit", "verify"]).arg(&proxy.audit).output().unwrap();
    assert_eq!(verified.status.code(), Some(2), "{}", text(&verified));
    proxy.unverified = true;
}

#[test]
#[ignore = "needs strace"]
fn a_disk_that_fails_to_sync_refuses_and_service_resumes_by_itself() {
    for error in ["EIO", "EROFS", "ENOSPC"] {
        let mut proxy = setup().start();
        proxy.stop();
        // The counts are a thread's own: the first of the writer's are the start's.
        let inject = format!("inject=fdatasync:error={error}:when=6..9");
        proxy.launch_by(
            "strace",
            &["-D", "-f", "-qqq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject],
        );
        let refused = refused_and_served_again(&proxy);
        println!("{error}: refused for {refused:?}");
        assert!(refused < Duration::from_secs(5));
        assert_gap(&mut proxy);
    }
}

#[test]
#[ignore = "mounts a file system"]
fn a_write_that_does_not_fit_refuses_and_service_resumes_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let small = Small::mount(&folder.path().join("small"));
    let mut proxy = setup().audit(&small.0.join("audit")).start();
    proxy.stop();
    // No reserve: the writes themselves fail.
    let own = fs::read_to_string(proxy.config()).unwrap();
    fs::write(proxy.config(), own.replace("reserve = \"1MiB\"", "reserve = \"0B\"")).unwrap();
    proxy.launch();
    let filler = small.0.join("filler");
    assert!(fs::write(&filler, vec![0; 64 << 20]).is_err(), "the disk is not full");
    let freed = std::thread::scope(|scope| {
        let asking = scope.spawn(|| refused_and_served_again(&proxy));
        while proxy.is_ready() {
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_secs(1));
        fs::remove_file(&filler).unwrap();
        let freed = Instant::now();
        asking.join().unwrap();
        freed.elapsed()
    });
    println!("served again {freed:?} after there was space");
    assert!(freed < Duration::from_secs(5));
    assert_gap(&mut proxy);
    drop(proxy);
    drop(small);
}
