//! [`TestProxy`]: a real patgate before a real sample organisation, and an end that asserts.
//!
//! Its `Drop` stops patgate and asserts what must hold after every test, whatever the test was
//! about: the chain verifies, each intent has one ending, nothing went upstream without an intent,
//! and no secret stands in any output, in any encoding.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use patgate::sample;
use serde_json::Value;
use tempfile::TempDir;

#[path = "secrets.rs"]
pub mod secrets;

/// A token as Azure DevOps makes them (84 characters), and found nowhere else.
pub const PAT: &str = "CANARYCANARYCANARYCANARYCANARYCANARYCANARYCANARYCANAJQQJ99BKACAAAAAAAAAAAASAZDOtest";

/// What a test changes before patgate starts.
#[derive(Debug)]
pub struct Setup {
    rules: String,
    extra: String,
    tls: bool,
    durability: &'static str,
    limits: String,
    drain_delay: &'static str,
    audit: Option<PathBuf>,
    admin: String,
    prepare: Option<fn(&Path, &sample::Organization)>,
    environment: Vec<(&'static str, String)>,
}

/// patgate and the sample organisation, running.
#[derive(Debug)]
pub struct TestProxy {
    pub folder: TempDir,
    pub organization: Option<sample::Organization>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub audit: PathBuf,
    tls: bool,
    process: Option<Child>,
    log: PathBuf,
    environment: Vec<(&'static str, String)>,
    upstream_before: u64,
    /// Set by tests that kill patgate: what was under way has no ending but the one recovery writes.
    pub killed: bool,
    /// Set by tests that break the audit on purpose.
    pub unverified: bool,
}

/// The rules that most tests want.
pub const USUAL_RULES: &str = r#"
[[rule]]
name       = "git"
clients    = ["here"]
paths      = ["/contoso/**"]
allow      = ["git:fetch", "git:push", "GET", "POST", "PUT", "PATCH", "OPTIONS"]
credential = "contoso"
"#;

pub fn setup() -> Setup {
    Setup {
        rules: USUAL_RULES.into(),
        extra: String::new(),
        tls: false,
        durability: "disk",
        limits: String::new(),
        drain_delay: "0s",
        audit: None,
        admin: String::new(),
        prepare: None,
        environment: Vec::new(),
    }
}

impl Setup {
    pub fn rules(mut self, rules: &str) -> Self {
        self.rules = rules.into();
        self
    }

    /// Anything else that goes into the configuration.
    pub fn with(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self
    }

    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    pub fn limits(mut self, limits: &str) -> Self {
        self.limits.push_str(limits);
        self.limits.push('\n');
        self
    }

    pub fn drain_delay(mut self, delay: &'static str) -> Self {
        self.drain_delay = delay;
        self
    }

    pub fn audit(mut self, folder: &Path) -> Self {
        self.audit = Some(folder.into());
        self
    }

    /// More keys of `[admin]`.
    pub fn admin(mut self, toml: &str) -> Self {
        self.admin.push_str(toml);
        self
    }

    /// Something that has to be in the folder, or with the sample organization, before patgate starts.
    pub fn prepare(mut self, prepare: fn(&Path, &sample::Organization)) -> Self {
        self.prepare = Some(prepare);
        self
    }

    /// What patgate finds in its environment, every time it is launched.
    pub fn environment(mut self, variables: &[(&'static str, &str)]) -> Self {
        self.environment.extend(variables.iter().map(|&(name, value)| (name, value.to_owned())));
        self
    }

    pub fn start(self) -> TestProxy {
        let folder = tempfile::Builder::new().prefix("patgate-it-").tempdir().unwrap();
        let organization = sample::Organization::start(sample::Options {
            folder: folder.path().join("sample"),
            organizations: vec!["contoso".into(), "fabrikam".into()],
            pat: Some(PAT.into()),
            address: ([127, 0, 0, 1], 0).into(),
        })
        .unwrap();
        let (address, admin) = (free_address(), free_address());
        let audit = self.audit.clone().unwrap_or_else(|| folder.path().join("audit"));
        let config = self.config(folder.path(), &organization, address, admin, &audit);
        fs::write(folder.path().join("patgate.toml"), config).unwrap();
        let secret = folder.path().join("contoso.pat");
        write_private(&secret, PAT);
        if self.tls {
            certificate(folder.path());
        }
        if let Some(prepare) = self.prepare {
            prepare(folder.path(), &organization);
        }
        let log = folder.path().join("patgate.log");
        let mut proxy = TestProxy {
            folder,
            organization: Some(organization),
            address,
            admin,
            audit,
            tls: self.tls,
            process: None,
            log,
            environment: self.environment,
            upstream_before: 0,
            killed: false,
            unverified: false,
        };
        proxy.launch();
        proxy
    }

    fn config(
        &self,
        folder: &Path,
        organization: &sample::Organization,
        address: SocketAddr,
        admin: SocketAddr,
        audit: &Path,
    ) -> String {
        let Self { rules, extra, durability, limits, drain_delay, admin: operators, .. } = self;
        let (scheme, certificate) = if self.tls {
            ("https", "certificate = \"server.pem\"\nkey = \"server.key\"\nhttp2 = true\n")
        } else {
            ("http", "")
        };
        format!(
            r#"
public-url = "{scheme}://localhost:{port}"
workers = 2

[[listen]]
address = "{address}"
{certificate}
[admin]
address = "{admin}"
{operators}

[audit]
folder = "{audit}"
durability = "{durability}"
reserve = "1MiB"

[limits]
drain-delay = "{drain_delay}"
{limits}
[upstream]
addresses = {{ "dev.azure.com" = "{upstream}", "vssps.dev.azure.com" = "{upstream}" }}
ca = "{ca}"

[vault.files]
type = "file"

[credential.contoso]
vault = "files"
secret = "{folder}/contoso.pat"
organizations = ["contoso"]

[client.here]
addresses = ["127.0.0.1/32"]
{rules}
{extra}
"#,
            port = address.port(),
            audit = audit.display(),
            upstream = organization.address(),
            ca = organization.ca().display(),
            folder = folder.display(),
        )
    }
}

impl TestProxy {
    /// Starts patgate (again).
    pub fn launch(&mut self) {
        self.launch_with(|_| ());
    }

    /// As [`Self::launch`], by another program that starts patgate and leaves it the process.
    pub fn launch_by(&mut self, program: &str, arguments: &[&str]) {
        let log = fs::OpenOptions::new().append(true).open(&self.log).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).arg(env!("CARGO_BIN_EXE_patgate")).args(["serve", "--config"]);
        command.arg(self.config()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        self.until_ready();
    }

    /// As [`Self::launch`], with something about the process changed.
    pub fn launch_with(&mut self, change: impl FnOnce(&mut Command)) {
        let mut command = self.command(&["serve", "--config"]);
        command.arg(self.config());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        change(&mut command);
        self.process = Some(command.spawn().unwrap());
        self.until_ready();
    }

    /// The patgate binary with its output in the log.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = patgate();
        command.args(arguments).stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        command
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("patgate.toml")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn organization(&self) -> &sample::Organization {
        self.organization.as_ref().unwrap()
    }

    pub fn process(&mut self) -> &mut Child {
        self.process.as_mut().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.process().try_wait().unwrap() {
                panic!("patgate ended with {status}:\n{}", self.log());
            }
            if self.is_ready() {
                return;
            }
            assert!(Instant::now() < deadline, "patgate did not become ready:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn is_ready(&self) -> bool {
        let output = self.curl("/_patgate/ready", &["-o", "/dev/null", "-w", "%{http_code}"]);
        output.stdout == b"200"
    }

    /// The URL of a path, as a client would write it.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://localhost:{}{path}", self.address.port())
    }

    pub fn curl(&self, path: &str, arguments: &[&str]) -> Output {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "60", "--noproxy", "*"]);
        if self.tls {
            curl.arg("--cacert").arg(self.path("ca.pem"));
        }
        curl.args(arguments).arg(self.url(path)).output().unwrap()
    }

    /// Status and body of a request.
    pub fn get(&self, path: &str, arguments: &[&str]) -> (u16, String) {
        let mut all = vec!["-w", "\n%{http_code}"];
        all.extend(arguments);
        let output = self.curl(path, &all);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap_or(0), body.to_owned())
    }

    /// Real git, that knows nothing of this machine's users.
    pub fn git(&self, folder: &Path, arguments: &[&str]) -> Output {
        let mut git = Command::new("git");
        git.current_dir(folder).args(["-c", "user.name=Test", "-c", "user.email=test@example.com"]);
        git.args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", self.folder.path())
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("no_proxy", "*")
            .env("GIT_SSL_CAINFO", self.path("ca.pem"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// As [`Self::git`], and it must succeed.
    pub fn git_ok(&self, folder: &Path, arguments: &[&str]) -> String {
        let output = self.git(folder, arguments);
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "git {arguments:?}: {text}\n{}", self.log());
        text
    }

    /// Bytes straight into a socket; everything that comes back until the other end closes.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// All records, oldest first.
    pub fn records(&self) -> Vec<Value> {
        let output = patgate().args(["audit", "tail", "--all", "--json"]).arg(&self.audit).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }

    /// Waits until a record is there that `matches`, and returns it.
    pub fn record(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let records = self.records();
            if let Some(record) = records.iter().rev().find(|record| matches(record)) {
                return record.clone();
            }
            let said: String = records.iter().map(|record| format!("{record}\n")).collect();
            assert!(Instant::now() < deadline, "no record: {what}; there are\n{said}{}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Kills patgate as a machine that loses power would.
    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        self.killed = true;
    }

    /// Stops patgate and gives its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take()?;
        let _ = Command::new("kill").arg(process.id().to_string()).stderr(Stdio::null()).status();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status.code();
            }
            if Instant::now() > deadline {
                let _ = process.kill();
                let _ = process.wait();
                panic!("patgate did not stop:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What must hold after every test.
    fn assert_invariants(&mut self) {
        if self.process.is_some() {
            assert_eq!(self.stop(), Some(0), "patgate ended badly:\n{}", self.log());
        }
        let upstream = self.organization().requests() - self.upstream_before;
        let verified = patgate().args(["audit", "verify"]).arg(&self.audit).output().unwrap();
        if !self.unverified {
            let text = String::from_utf8_lossy(&verified.stdout).into_owned();
            let complaint = String::from_utf8_lossy(&verified.stderr).into_owned();
            assert_eq!(verified.status.code(), Some(0), "the chain does not verify: {text}{complaint}");
            let records = self.records();
            let intents: Vec<_> = records.iter().filter(|record| record["kind"] == "intent").collect();
            assert!(
                upstream <= intents.len() as u64,
                "{upstream} requests went up with {} intents",
                intents.len()
            );
            if !self.killed {
                let mut ends = HashMap::<&str, u32>::new();
                for outcome in records.iter().filter(|record| record["kind"] == "outcome") {
                    *ends.entry(outcome["id"].as_str().unwrap()).or_default() += 1;
                }
                for intent in &intents {
                    let ends = ends.get(intent["id"].as_str().unwrap());
                    assert_eq!(ends, Some(&1), "{intent} has {ends:?} endings");
                }
            }
        }
        for seen in self.organization().seen() {
            assert!(seen.authorization.len() <= 1, "{seen:?}");
        }
        secrets::assert_absent(&[PAT], &[&self.log, &self.audit]);
    }
}

impl Drop for TestProxy {
    fn drop(&mut self) {
        if thread::panicking() {
            if let Some(mut process) = self.process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
            return;
        }
        self.assert_invariants();
    }
}

/// The binary under test.
pub fn patgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patgate"));
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(name);
    }
    command
}

/// A loopback address that nobody uses at this moment.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// An authority and a certificate for localhost, in `folder`.
pub fn certificate(folder: &Path) {
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    // Of another name than the leaf, or that would look like its own issuer.
    authority.distinguished_name.push(rcgen::DnType::CommonName, "the tests' authority");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let leaf = rcgen::CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    fs::write(folder.join("ca.pem"), authority_certificate.pem()).unwrap();
    fs::write(folder.join("server.pem"), certificate.pem()).unwrap();
    write_private(&folder.join("server.key"), &key.serialize_pem());
}

/// Standard output and error of a command, as text.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Lines of a reader, for outputs that are followed.
pub fn lines(reader: impl Read) -> impl Iterator<Item = String> {
    BufReader::new(reader).lines().map_while(Result::ok)
}
