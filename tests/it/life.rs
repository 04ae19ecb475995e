//! Start, stop, reload, hand-over, and death.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{patgate, setup, text};

/// One request on one connection; the status, or why there was none.
fn once(address: SocketAddr) -> Result<u16, String> {
    let mut socket = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
        .write_all(b"GET /contoso/_apis/projects HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .map_err(|error| format!("write: {error}"))?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).map_err(|error| format!("read: {error}"))?;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(format!("answer: {answer:?}"))
}

/// Threads that make requests until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: SocketAddr, threads: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..threads)
            .map(|_| {
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                thread::spawn(move || {
                    let mut failures = Vec::new();
                    while !stop.load(Relaxed) {
                        match once(address) {
                            Ok(200) => {
                                done.fetch_add(1, Relaxed);
                            }
                            Ok(status) => failures.push(format!("status {status}")),
                            Err(error) => failures.push(error),
                        }
                    }
                    failures
                })
            })
            .collect();
        Self { stop, done, threads }
    }

    fn wait_for(&self, count: u64) {
        let (from, deadline) = (self.done.load(Relaxed), Instant::now() + Duration::from_secs(120));
        while self.done.load(Relaxed) < from + count {
            assert!(Instant::now() < deadline, "the load does not come through");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Relaxed);
        let failures = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (self.done.load(Relaxed), failures)
    }
}

#[test]
fn killed_twenty_times_under_load_every_use_is_on_record() {
    let mut proxy = setup().start();
    for _ in 0..20 {
        let load = Load::start(proxy.address, 4);
        load.wait_for(60);
        proxy.kill();
        load.end();
        let verified = patgate().args(["audit", "verify"]).arg(&proxy.audit).output().unwrap();
        assert!(matches!(verified.status.code(), Some(0 | 1)), "{}", text(&verified));
        proxy.launch();
        let verified = patgate().args(["audit", "verify"]).arg(&proxy.audit).output().unwrap();
        assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
    }
    // `Drop` compares what went upstream with the intents.
    let records = proxy.records();
    let intents = records.iter().filter(|record| record["kind"] == "intent").count() as u64;
    assert!(intents >= 20 * 60, "{intents}");
    assert!(proxy.organization().requests() <= intents);
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
    let back = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(100));
        proxy.get("/contoso/_apis/projects", &[]).0 == 200
    });
    assert!(back, "{}", proxy.log());
}

#[test]
fn a_configuration_mounted_behind_data_links_is_noticed() {
    use std::os::unix::fs::symlink;
    let mut proxy = setup().start();
    let good = fs::read_to_string(proxy.config()).unwrap();
    proxy.stop();
    let mount = proxy.folder.path();
    fs::create_dir(mount.join("..v1")).unwrap();
    fs::create_dir(mount.join("..v2")).unwrap();
    fs::write(mount.join("..v1/patgate.toml"), &good).unwrap();
    fs::write(mount.join("..v2/patgate.toml"), good.replace("/contoso/**", "/contoso/web/**")).unwrap();
    fs::remove_file(proxy.config()).unwrap();
    symlink("..v1", mount.join("..data")).unwrap();
    symlink("..data/patgate.toml", proxy.config()).unwrap();
    proxy.launch();
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    symlink("..v2", proxy.path("..data_tmp")).unwrap();
    fs::rename(proxy.path("..data_tmp"), proxy.path("..data")).unwrap();
    let begun = Instant::now();
    proxy.record("the change", |record| record["kind"] == "configured");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 403);
}

#[test]
fn another_certificate_is_taken_up() {
    let proxy = setup().tls().start();
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200);
    crate::support::certificate(proxy.folder.path());
    proxy.record("the change", |record| record["kind"] == "configured");
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200, "with the new authority");
}

#[test]
fn a_second_patgate_says_what_is_in_the_way() {
    let proxy = setup().start();
    let again = patgate().args(["serve", "--config"]).arg(proxy.config()).output().unwrap();
    assert_eq!(again.status.code(), Some(69), "{}", text(&again));
    assert!(text(&again).contains("is taken by another process"), "{}", text(&again));

    let elsewhere = fs::read_to_string(proxy.config())
        .unwrap()
        .replace(&proxy.address.to_string(), &crate::support::free_address().to_string())
        .replace(&proxy.admin.to_string(), &crate::support::free_address().to_string());
    let other = proxy.path("other.toml");
    fs::write(&other, elsewhere).unwrap();
    let again = patgate().args(["serve", "--config"]).arg(&other).output().unwrap();
    assert_eq!(again.status.code(), Some(75), "{}", text(&again));
    assert!(text(&again).contains("another patgate"), "{}", text(&again));
}

#[test]
fn an_unwritable_audit_folder_is_named() {
    let proxy = setup().start();
    let blocked = proxy.path("blocked");
    fs::write(&blocked, "a file where a folder should be").unwrap();
    let elsewhere = fs::read_to_string(proxy.config())
        .unwrap()
        .replace(&proxy.address.to_string(), &crate::support::free_address().to_string())
        .replace(&proxy.admin.to_string(), &crate::support::free_address().to_string())
        .replace(&proxy.audit.display().to_string(), &blocked.display().to_string());
    let other = proxy.path("other.toml");
    fs::write(&other, elsewhere).unwrap();
    let output = patgate().args(["serve", "--config"]).arg(&other).output().unwrap();
    assert_eq!(output.status.code(), Some(73), "{}", text(&output));
    assert!(text(&output).contains("blocked"), "{}", text(&output));
}

#[test]
fn a_new_process_takes_over_and_no_connection_is_lost() {
    let count: u64 = std::env::var("PATGATE_TEST_CONNECTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(4_000);
    let mut proxy = setup().drain_delay("1s").start();
    proxy.stop();
    let listener = TcpListener::bind(proxy.address).unwrap();
    let activated = |proxy: &crate::support::TestProxy| {
        let log = fs::OpenOptions::new().append(true).open(proxy.path("patgate.log")).unwrap();
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg("exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve --config \"$1\"")
            .arg(env!("CARGO_BIN_EXE_patgate"))
            .arg(proxy.config())
            .stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())))
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        shell.spawn().unwrap()
    };
    let listening = |proxy: &crate::support::TestProxy| proxy.log().matches(" listening").count();

    let before = listening(&proxy);
    let mut old = activated(&proxy);
    while listening(&proxy) == before {
        thread::sleep(Duration::from_millis(10));
        assert!(old.try_wait().unwrap().is_none(), "{}", proxy.log());
    }
    let slow = {
        let url = proxy.url("/contoso/_apis/sample/slow?seconds=4");
        thread::spawn(move || {
            Command::new("curl").args(["-sS", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", &url]).output()
        })
    };
    proxy.record("the slow one", |record| {
        record["kind"] == "intent" && record["path"] == "/contoso/_apis/sample/slow"
    });
    let load = Load::start(proxy.address, 8);
    load.wait_for(count / 4);
    let new = activated(&proxy);
    while listening(&proxy) == before + 1 {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(Command::new("kill").arg(old.id().to_string()).status().unwrap().success());
    load.wait_for(count / 2);
    assert!(old.wait().unwrap().success(), "{}", proxy.log());
    load.wait_for(count / 4);
    let (done, failures) = load.end();
    assert!(failures.is_empty(), "{} of {done} lost: {:?}", failures.len(), &failures[..failures.len().min(5)]);
    assert_eq!(slow.join().unwrap().unwrap().stdout, b"200", "the slow one was cut");
    drop(listener);
    assert!(Command::new("kill").arg(new.id().to_string()).status().unwrap().success());
    let output = new.wait_with_output().unwrap();
    assert!(output.status.success());
    let chains = fs::read_dir(&proxy.audit).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(chains, 2, "each process keeps a chain of its own");
}

#[test]
fn a_second_signal_ends_what_is_under_way() {
    let mut proxy = setup().start();
    let url = proxy.url("/contoso/_apis/sample/slow?seconds=60");
    let mut slow = Command::new("curl").args(["-sS", "--noproxy", "*", &url]).stderr(Stdio::null()).spawn().unwrap();
    proxy.record("the slow one", |record| record["kind"] == "intent");
    proxy.signal("-TERM");
    let begun = Instant::now();
    while !proxy.log().contains("stopping") {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(proxy.stop(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert!(!slow.wait().unwrap().success());
    proxy.record("its end", |record| record["kind"] == "outcome" && record["ending"] == "client-gone");
}
