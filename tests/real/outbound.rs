//! Through a company's proxy: a real squid.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use patgate::sample;

use crate::support::{PAT, free_address, patgate, setup, text};

struct Squid(Child);

impl Drop for Squid {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.0.try_wait().unwrap().is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs squid, and port 443 of a loopback address"]
fn git_clones_through_squid_and_tls_stays_end_to_end() {
    // The sample organisation at the port that squid is asked to connect to.
    let folder = tempfile::tempdir().unwrap();
    let organization = sample::Organization::start(sample::Options {
        folder: folder.path().join("sample"),
        organizations: vec!["contoso".into()],
        pat: Some(PAT.into()),
        address: ([127, 0, 0, 143], 443).into(),
    })
    .unwrap();
    let address = free_address();
    let run = folder.path().join("squid");
    fs::create_dir(&run).unwrap();
    // Started by root, squid goes on as a user of its own (Debian's `proxy`), who must get in here.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(run.join("hosts"), "127.0.0.143 dev.azure.com\n").unwrap();
    let log = run.join("access.log");
    let config = format!(
        "http_port {address}\nhosts_file {run}/hosts\npid_filename {run}/squid.pid\n\
         access_log stdio:{log}\ncache_log {run}/cache.log\ncache deny all\n\
         acl ssl port 443\nhttp_access allow CONNECT ssl\nhttp_access deny all\n\
         cache_effective_user proxy\nshutdown_lifetime 1 seconds\nnetdb_filename none\n",
        run = run.display(),
        log = log.display(),
    );
    fs::write(run.join("squid.conf"), config).unwrap();
    let squid = Command::new("/usr/sbin/squid")
        // Its shared memory goes by this name.
        .args(["-n", &format!("patgate{}", std::process::id()), "-N", "-f"])
        .arg(run.join("squid.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _squid = Squid(squid);
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(address).is_err() {
        assert!(
            Instant::now() < deadline,
            "{}",
            fs::read_to_string(run.join("cache.log")).unwrap_or_default()
        );
        thread::sleep(Duration::from_millis(50));
    }

    let mut proxy = setup().with(&format!("[outbound]\nproxy = \"http://{address}\"\n")).start();
    proxy.stop();
    // Without `[upstream]`: the name goes to squid, and the roots are the platform's.
    let own = fs::read_to_string(proxy.config()).unwrap();
    let without: String = own
        .lines()
        .filter(|line| {
            !line.starts_with("[upstream]")
                && !line.starts_with("addresses = { \"dev")
                && !line.starts_with("ca = ")
        })
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(proxy.config(), without).unwrap();
    let log_file = fs::OpenOptions::new().append(true).open(proxy.path("patgate.log")).unwrap();
    let mut child = patgate()
        .args(["serve", "--config"])
        .arg(proxy.config())
        .env("SSL_CERT_FILE", organization.ca())
        .env_remove("SSL_CERT_DIR")
        .stdin(Stdio::null())
        .stdout(log_file.try_clone().unwrap())
        .stderr(log_file)
        .spawn()
        .unwrap();
    while !proxy.is_ready() {
        assert!(child.try_wait().unwrap().is_none(), "{}", proxy.log());
        thread::sleep(Duration::from_millis(50));
    }
    let work = proxy.path("work");
    fs::create_dir(&work).unwrap();
    let output = proxy.git(&work, &["clone", "-q", &proxy.url("/contoso/web/_git/web"), "web"]);
    assert!(output.status.success(), "{}\n{}", text(&output), proxy.log());
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    child.wait().unwrap();
    let seen = fs::read_to_string(&log).unwrap();
    assert!(seen.contains("CONNECT dev.azure.com:443"), "{seen}");
    assert!(organization.requests() > 0);
}
