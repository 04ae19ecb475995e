//! Another configuration: all of it, or nothing.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    load::{Kind, Load},
    support::{TestProxy, certificate, setup},
};

fn metrics(proxy: &TestProxy) -> String {
    let url = format!("http://{}/metrics", proxy.admin);
    let output = Command::new("curl").args(["-sS", "--noproxy", "*", &url]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The value of the one line of the metrics that begins so.
fn metric(proxy: &TestProxy, name: &str) -> u64 {
    let all = metrics(proxy);
    let line =
        all.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {all}"));
    line.trim().parse::<f64>().unwrap() as u64
}

fn until(what: &str, proxy: &TestProxy, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}:\n{}", proxy.log());
        thread::sleep(Duration::from_millis(20));
    }
}

const GENERATION: &str = "patgate_configuration_generation ";

#[test]
fn fifty_reloads_under_load_cost_no_request_and_none_sees_two() {
    let proxy = setup().start();
    let good = fs::read_to_string(proxy.config()).unwrap();
    let single = Load::start(proxy.address, 2);
    let kept = Load::of(proxy.address, 2, &Kind::Kept);
    for round in 2..52 {
        fs::write(proxy.config(), good.replace("name       = \"git\"", &format!("name = \"git {round}\"")))
            .unwrap();
        proxy.signal("-HUP");
        until("the reload", &proxy, || metric(&proxy, GENERATION) >= round);
        if round % 10 == 0 {
            fs::write(proxy.config(), "nonsense").unwrap();
            let before = metric(&proxy, "patgate_reloads_total{result=\"refused\"} ");
            proxy.signal("-HUP");
            until("the refusal", &proxy, || {
                metric(&proxy, "patgate_reloads_total{result=\"refused\"} ") > before
            });
        }
    }
    let (single, kept) = (single.end_whole(), kept.end_whole());
    println!("{single} and {kept} requests over fifty reloads");
    let records = proxy.records();
    let mut policies = HashMap::new();
    for record in records.iter().filter(|record| record["kind"] == "intent" || record["kind"] == "outcome") {
        let seen = (record["policy"].clone(), record["rule"].clone());
        let first = policies.entry(record["id"].clone()).or_insert_with(|| seen.clone());
        assert_eq!(*first, seen, "a request saw two configurations");
    }
    let rules: std::collections::BTreeSet<_> = policies.values().map(|(_, rule)| rule.to_string()).collect();
    assert!(rules.len() > 5, "{rules:?}");
}

#[test]
fn a_changed_configuration_is_noticed_and_a_bad_one_changes_nothing() {
    let proxy = setup().start();
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    let good = fs::read_to_string(proxy.config()).unwrap();

    fs::write(proxy.config(), good.replace("[[rule]]", "[[rulle]]")).unwrap();
    let refused = proxy.record("the refusal", |record| record["kind"] == "configuration-refused");
    assert!(refused.to_string().contains("rulle"), "{refused}");
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);

    fs::write(proxy.config(), good.replace("/contoso/**", "/contoso/web/**")).unwrap();
    proxy.record("the change", |record| record["kind"] == "configured");
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 403);

    fs::write(proxy.config(), &good).unwrap();
    proxy.signal("-HUP");
    until("the way back", &proxy, || proxy.get("/contoso/_apis/projects", &[]).0 == 200);
}

/// Swaps `..data` for another folder, as Kubernetes does when a mounted secret changes.
fn swap(mount: &Path, to: &str) {
    symlink(to, mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
}

#[test]
fn a_configuration_mounted_behind_data_links_is_noticed() {
    let mut proxy = setup().start();
    let good = fs::read_to_string(proxy.config()).unwrap();
    proxy.stop();
    let mount = proxy.folder.path().to_owned();
    fs::create_dir(mount.join("..v1")).unwrap();
    fs::create_dir(mount.join("..v2")).unwrap();
    fs::write(mount.join("..v1/patgate.toml"), &good).unwrap();
    fs::write(mount.join("..v2/patgate.toml"), good.replace("/contoso/**", "/contoso/web/**")).unwrap();
    fs::remove_file(proxy.config()).unwrap();
    swap(&mount, "..v1");
    symlink("..data/patgate.toml", proxy.config()).unwrap();
    proxy.launch();
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    swap(&mount, "..v2");
    let begun = Instant::now();
    proxy.record("the change", |record| record["kind"] == "configured");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 403);
}

#[test]
fn a_certificate_mounted_behind_data_links_is_noticed() {
    let mut proxy = setup().tls().start();
    proxy.stop();
    let mount = proxy.folder.path().to_owned();
    for version in ["..v1", "..v2"] {
        fs::create_dir(mount.join(version)).unwrap();
        certificate(&mount.join(version));
    }
    swap(&mount, "..v1");
    for file in ["ca.pem", "server.pem", "server.key"] {
        fs::remove_file(mount.join(file)).unwrap();
        symlink(format!("..data/{file}"), mount.join(file)).unwrap();
    }
    proxy.launch();
    swap(&mount, "..v2");
    let begun = Instant::now();
    // From now on `ca.pem` is the new authority: the old certificate does not pass.
    until("the new certificate", &proxy, || {
        proxy.curl("/contoso/_apis/projects", &["-w", "%{http_code}", "-o", "/dev/null"]).stdout == b"200"
    });
    println!("the new certificate was in use after {:?}", begun.elapsed());
    proxy.record("the change", |record| record["kind"] == "configured");
}

#[test]
fn a_certificate_without_its_key_changes_nothing() {
    let proxy = setup().tls().start();
    let other = proxy.path("other");
    fs::create_dir(&other).unwrap();
    certificate(&other);
    fs::copy(other.join("server.key"), proxy.path("server.key")).unwrap();
    let refused = proxy.record("the refusal", |record| record["kind"] == "configuration-refused");
    assert!(refused.to_string().contains("is not the key of"), "{refused}");
    assert_eq!(metric(&proxy, "patgate_reloads_total{result=\"refused\"} "), 1);
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200, "with the old pair");

    fs::copy(other.join("server.pem"), proxy.path("server.pem")).unwrap();
    fs::copy(other.join("ca.pem"), proxy.path("ca.pem")).unwrap();
    proxy.record("the change", |record| record["kind"] == "configured");
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200, "with the new pair");
}
