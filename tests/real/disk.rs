//! A disk that is full.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::support::setup;

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
    let proxy = setup().audit(&small.0.join("audit")).start();
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
    drop(proxy);
    drop(small);
}
