//! Under mixed load for a while, nothing is left behind: neither memory nor descriptors.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::{
    load::{Kind, Load, once},
    support::{TestProxy, setup},
};

/// Resident memory in KiB, and open descriptors.
fn held(proxy: &TestProxy) -> (u64, usize) {
    let of = format!("/proc/{}", proxy.pid());
    let status = fs::read_to_string(format!("{of}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let memory = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (memory, fs::read_dir(format!("{of}/fd")).unwrap().count())
}

#[test]
#[ignore = "takes a minute"]
fn mixed_load_leaves_nothing_behind() {
    let seconds: u64 = std::env::var("PATGATE_TEST_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let proxy = setup().start();
    let folder = proxy.path("work");
    fs::create_dir(&folder).unwrap();
    let single = Load::start(proxy.address, 2);
    let kept = Load::of(proxy.address, 2, &Kind::Kept);
    let (mut marks, mut clones, mut refusals, mut broken) = (Vec::new(), 0, 0, 0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        let name = format!("clone-{clones}");
        proxy.git_ok(&folder, &["clone", "-q", &proxy.url("/contoso/web/_git/web"), &name]);
        fs::remove_dir_all(folder.join(&name)).unwrap();
        clones += 1;
        for (target, status) in [("/fabrikam/_apis/projects", 403), ("/a//b", 400), ("/_private/x", 404)] {
            let answered = once(proxy.address, target).unwrap();
            assert!(answered == status || (400..500).contains(&answered), "{target}: {answered}");
            refusals += 1;
        }
        // One that leaves in the middle, and one that Azure DevOps cuts.
        for target in
            ["/contoso/_apis/sample/huge?bytes=1000000000", "/contoso/_apis/sample/cut?after=100000"]
        {
            let output = proxy.curl(target, &["--max-time", "0.2", "-o", "/dev/null"]);
            assert!(!output.status.success());
            broken += 1;
        }
        marks.push((begun.elapsed(), held(&proxy)));
    }
    let (single, kept) = (single.end_whole(), kept.end_whole());
    // The clients are gone: what is left are listeners, files, and connections to Azure DevOps.
    let (memory, descriptors) = {
        thread::sleep(Duration::from_secs(1));
        held(&proxy)
    };
    let warm = marks.iter().find(|(at, _)| *at > Duration::from_secs(seconds / 3)).unwrap().1;
    println!(
        "{seconds} s: {single} connections of one request, {kept} requests on kept ones, {clones} clones, \
         {refusals} refusals, {broken} broken off; {} KiB and {} descriptors after a third, \
         {memory} KiB and {descriptors} at the end",
        warm.0, warm.1
    );
    assert!(memory < warm.0 + 8 * 1024, "{marks:?}");
    assert!(descriptors <= warm.1 + 8, "{marks:?}");
}
