//! Memory does not grow with what passes.

use std::{fs, io::Write, process::Command};

use crate::support::{TestProxy, setup};

/// Resident memory in KiB: the most there was since the mark was reset.
fn peak(proxy: &TestProxy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "moves gigabytes"]
fn a_huge_clone_and_a_huge_push_are_streamed() {
    let mib: u64 = std::env::var("PATGATE_TEST_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(512);
    let proxy = setup().tls().start();
    let folder = proxy.path("work");
    fs::create_dir(&folder).unwrap();
    proxy.git_ok(&folder, &["clone", "-q", &proxy.url("/contoso/web/_git/web"), "web"]);
    let web = folder.join("web");
    let mut noise = fs::File::create(web.join("noise.bin")).unwrap();
    let mut source = fs::File::open("/dev/urandom").unwrap();
    for _ in 0..mib {
        let mut block = vec![0; 1 << 20];
        std::io::Read::read_exact(&mut source, &mut block).unwrap();
        noise.write_all(&block).unwrap();
    }
    let plain = ["-c", "core.compression=0", "-c", "pack.compression=0", "-c", "core.bigFileThreshold=1m"];
    let git = |arguments: &[&str]| proxy.git_ok(&web, &[&plain[..], arguments].concat());
    git(&["checkout", "-qb", "huge"]);
    git(&["add", "."]);
    git(&["commit", "-qm", "huge"]);
    let before = peak(&proxy);
    git(&["push", "-q", "origin", "huge"]);
    let pushed = peak(&proxy);
    let clone = ["clone", "-q", "--no-checkout", "-b", "huge"];
    proxy.git_ok(&folder, &[&clone[..], &[&proxy.url("/contoso/web/_git/web"), "again"]].concat());
    let cloned = peak(&proxy);
    println!("{mib} MiB: {before} KiB before, {pushed} KiB after the push, {cloned} KiB after the clone");
    assert!(pushed - before < 16 * 1024, "the push took {} KiB", pushed - before);
    assert!(cloned - pushed < 16 * 1024, "the clone took {} KiB", cloned - pushed);
    let _ = Command::new("rm").arg("-rf").arg(&folder).status();
}
