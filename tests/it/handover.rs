//! Stopping is a hand-over: nobody who was let in, or who waits to be, is lost.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    load::{Kept, Kind, Load, once},
    support::{TestProxy, setup},
};

/// patgate as a supervisor starts it, with a listening socket of the supervisor's.
pub fn activated(proxy: &TestProxy, listener: &TcpListener) -> Child {
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
    let started = proxy.log().matches(" listening").count();
    let mut child = shell.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while proxy.log().matches(" listening").count() == started {
        thread::sleep(Duration::from_millis(10));
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "{}", proxy.log());
    }
    child
}

pub fn terminate(child: &Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
}

/// Forwards one connection after another from the same port of 127.0.0.2 to `address`, what comes
/// back at so many bytes a second.
fn slow_way(address: SocketAddr, bytes_a_second: usize) {
    let listener = TcpListener::bind(("127.0.0.2", address.port())).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut up, Ok(mut client)) = (TcpStream::connect(address).unwrap(), client) else { return };
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), up.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut from_client, &mut to_server);
                let _ = to_server.shutdown(std::net::Shutdown::Write);
            });
            thread::spawn(move || {
                let mut piece = vec![0; bytes_a_second / 20];
                while let Ok(read) = up.read(&mut piece) {
                    if read == 0 || client.write_all(&piece[..read]).is_err() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(50));
                }
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
}

#[test]
fn a_new_process_takes_over_and_no_connection_is_lost() {
    let count: u64 =
        std::env::var("PATGATE_TEST_CONNECTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000);
    let mut proxy = setup().drain_delay("1s").start();
    let work = proxy.path("work");
    fs::create_dir(&work).unwrap();
    proxy.git_ok(&work, &["clone", "-q", &proxy.url("/contoso/web/_git/web"), "web"]);
    let mut noise = vec![0; 16 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    fs::write(work.join("web/noise.bin"), &noise).unwrap();
    proxy.git_ok(&work.join("web"), &["checkout", "-qb", "large"]);
    proxy.git_ok(&work.join("web"), &["add", "."]);
    proxy.git_ok(&work.join("web"), &["commit", "-qm", "large"]);
    proxy.git_ok(&work.join("web"), &["push", "-q", "origin", "large"]);
    proxy.stop();
    let listener = TcpListener::bind(proxy.address).unwrap();
    let mut old = activated(&proxy, &listener);

    let slow = {
        let url = proxy.url("/contoso/_apis/sample/slow?seconds=5");
        thread::spawn(move || {
            Command::new("curl")
                .args(["-sS", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", &url])
                .output()
        })
    };
    // A clone through a thin line: it takes four seconds and more.
    slow_way(proxy.address, 4 << 20);
    let mut clone = Command::new("git")
        .current_dir(&work)
        .arg("-c")
        .arg(format!("http.curloptResolve=localhost:{}:127.0.0.2", proxy.address.port()))
        .args(["clone", "-q", "-b", "large", &proxy.url("/contoso/web/_git/web"), "slowly"])
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", proxy.folder.path())
        .env("no_proxy", "*")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let under_way = |path: &'static str| {
        move |record: &serde_json::Value| {
            record["kind"] == "intent" && record["path"].as_str().is_some_and(|found| found.ends_with(path))
        }
    };
    proxy.record("the slow one", under_way("/sample/slow"));
    proxy.record("the clone", under_way("/git-upload-pack"));
    let single = Load::start(proxy.address, 6);
    let kept = Load::of(proxy.address, 2, &Kind::Kept);
    single.wait_for(count / 4);
    let new = activated(&proxy, &listener);
    terminate(&old);
    single.wait_for(count / 2);
    assert!(old.wait().unwrap().success(), "{}", proxy.log());
    single.wait_for(count / 4);
    let (single, kept) = (single.end_whole(), kept.end_whole());
    println!("{single} connections of one request, {kept} requests on connections that were kept: none lost");
    assert_eq!(slow.join().unwrap().unwrap().stdout, b"200", "the slow one was cut");
    assert!(clone.wait().unwrap().success(), "the clone was cut:\n{}", proxy.log());
    assert_eq!(fs::read(work.join("slowly/noise.bin")).unwrap(), noise);
    drop(listener);
    terminate(&new);
    assert!(new.wait_with_output().unwrap().status.success());
    let chains =
        fs::read_dir(&proxy.audit).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(chains, 2, "each process keeps a chain of its own");
    let upload = proxy.records().into_iter().filter(|record| record["kind"] == "outcome");
    let upload: Vec<_> = upload.filter(|record| record["bytes-out"].as_u64() > Some(16 << 20)).collect();
    assert!(upload.iter().all(|record| record["ending"] == "complete") && !upload.is_empty(), "{upload:#?}");
}

#[test]
fn told_to_stop_it_is_unready_at_once_and_takes_connections_until_the_delay_is_over() {
    let mut proxy = setup().drain_delay("3s").start();
    let mut kept = Kept::connect(proxy.address).unwrap();
    assert_eq!(kept.get("/contoso/_apis/projects"), Ok(200));
    assert!(!kept.closing);
    // One that has said nothing yet: what it says in the last moment is heard.
    proxy.signal("-TERM");
    let begun = Instant::now();
    while proxy.is_ready() {
        assert!(begun.elapsed() < Duration::from_secs(1), "still ready");
    }
    assert_eq!(proxy.get("/contoso/_apis/projects", &[]).0, 200, "a new connection while it leaves");
    assert_eq!(kept.get("/contoso/_apis/projects"), Ok(200), "one that was kept");
    assert!(kept.closing, "the client is told to come on another connection");
    let admin = Command::new("curl")
        .args(["-sS", "--noproxy", "*", "-w", "%{http_code}", &format!("http://{}/readyz", proxy.admin)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&admin.stdout).into_owned();
    assert!(said.ends_with("503") && said.contains("stopping"), "{said}");
    // New, and silent until draining has begun: it is served all the same.
    thread::sleep(Duration::from_millis(2_900).saturating_sub(begun.elapsed()));
    let mut late = Kept::connect(proxy.address).unwrap();
    thread::sleep(Duration::from_millis(3_300).saturating_sub(begun.elapsed()));
    assert_eq!(late.get("/contoso/_apis/projects"), Ok(200), "{}", proxy.log());
    assert!(late.closing);
    assert_eq!(proxy.process().wait().unwrap().code(), Some(0), "{}", proxy.log());
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert!(once(proxy.address, "/contoso/_apis/projects").unwrap_err().starts_with("connect"));
    proxy.record("the stop", |record| record["kind"] == "stop" && record["reason"] == "SIGTERM");
}

#[test]
fn what_lasts_longer_than_the_drain_is_cut() {
    let mut proxy = setup().limits("drain = \"1s\"").start();
    let url = proxy.url("/contoso/_apis/sample/slow?seconds=60");
    let mut slow =
        Command::new("curl").args(["-sS", "--noproxy", "*", &url]).stderr(Stdio::null()).spawn().unwrap();
    proxy.record("the slow one", |record| record["kind"] == "intent");
    let begun = Instant::now();
    proxy.signal("-TERM");
    assert_eq!(proxy.process().wait().unwrap().code(), Some(0), "{}", proxy.log());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!slow.wait().unwrap().success());
    proxy.record("its end", |record| record["kind"] == "outcome" && record["ending"] == "client-gone");
}

#[test]
fn a_supervisor_is_told_ready_reloading_and_stopping() {
    let mut proxy = setup().start();
    proxy.stop();
    let socket = UnixDatagram::bind(proxy.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let told = || {
        let mut message = [0; 4096];
        let read = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..read]).into_owned()
    };
    let notify = proxy.path("notify");
    proxy.launch_with(|command| {
        command.env("NOTIFY_SOCKET", notify);
    });
    assert_eq!(told().trim(), "READY=1");
    proxy.signal("-HUP");
    let reloading = told();
    let mut lines = reloading.lines();
    assert_eq!(lines.next(), Some("RELOADING=1"));
    let microseconds = lines.next().unwrap().strip_prefix("MONOTONIC_USEC=").unwrap();
    assert!(microseconds.parse::<u64>().unwrap() > 0);
    assert_eq!(told().trim(), "READY=1");
    proxy.signal("-TERM");
    assert_eq!(told().trim(), "STOPPING=1");
}

#[test]
fn a_second_signal_ends_what_is_under_way() {
    let mut proxy = setup().start();
    let url = proxy.url("/contoso/_apis/sample/slow?seconds=60");
    let mut slow =
        Command::new("curl").args(["-sS", "--noproxy", "*", &url]).stderr(Stdio::null()).spawn().unwrap();
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
