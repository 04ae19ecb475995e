//! A real OpenBao, which speaks Vault's API: `bao` of target/tools, over TLS and, for the tests themselves, without.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::faults::Authority;

const PATIENCE: Duration = Duration::from_secs(30);

/// The server, running and open.
pub struct OpenBao {
    pub folder: TempDir,
    pub authority: Authority,
    tls: SocketAddr,
    plain: SocketAddr,
    process: Option<Child>,
    root: String,
    unseal: String,
}

/// Status and body of an answer.
#[derive(Debug)]
pub struct Said(pub u16, pub Value);

impl OpenBao {
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("patgate-bao-").tempdir().unwrap();
        let authority = Authority::new("the vault's authority");
        let (certificate, key) = authority.leaf(&["localhost", "127.0.0.1", "vault.test"], 2098);
        let path = |name: &str| folder.path().join(name);
        fs::write(path("ca.pem"), &authority.pem).unwrap();
        fs::write(path("server.pem"), certificate).unwrap();
        fs::write(path("server.key"), key).unwrap();
        fs::create_dir(path("data")).unwrap();
        let (tls, plain, cluster) = (free(), free(), free());
        let config = format!(
            r#"
storage "raft" {{
  path                   = "{data}"
  node_id                = "one"
  performance_multiplier = 1
}}
listener "tcp" {{
  address       = "{tls}"
  tls_cert_file = "{certificate}"
  tls_key_file  = "{key}"
}}
listener "tcp" {{
  address     = "{plain}"
  tls_disable = true
}}
api_addr     = "http://{plain}"
cluster_addr = "https://{cluster}"
"#,
            data = path("data").display(),
            certificate = path("server.pem").display(),
            key = path("server.key").display(),
        );
        fs::write(path("config.hcl"), config).unwrap();
        let mut bao =
            Self { folder, authority, tls, plain, process: None, root: String::new(), unseal: String::new() };
        bao.launch();
        let begun =
            bao.call("PUT", "sys/init", "", "", &json!({ "secret_shares": 1, "secret_threshold": 1 }));
        bao.root = begun.1["root_token"].as_str().unwrap().into();
        bao.unseal = begun.1["keys"][0].as_str().unwrap().into();
        bao.unseal();
        bao
    }

    /// Starts the server (again): sealed, with what it had.
    pub fn launch(&mut self) {
        let log = fs::File::create(self.path("bao.log")).unwrap();
        let process = Command::new(program())
            .args(["server", "-config"])
            .arg(self.path("config.hcl"))
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        self.until("it listens", |bao| TcpStream::connect(bao.plain).is_ok());
    }

    pub fn unseal(&self) {
        let key = &self.unseal;
        self.call("PUT", "sys/unseal", "", "", &json!({ "key": key }));
        self.until("it is open and active", |bao| {
            bao.call("GET", "sys/health", "", "", &Value::Null).0 == 200
        });
    }

    pub fn seal(&self) {
        self.ok("PUT", "sys/seal", &json!({}));
    }

    /// As a machine that loses power.
    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Of the listener that speaks TLS, with a certificate for `localhost`, `127.0.0.1` and `vault.test`.
    pub fn tls(&self) -> SocketAddr {
        self.tls
    }

    pub fn plain(&self) -> SocketAddr {
        self.plain
    }

    pub fn root(&self) -> &str {
        &self.root
    }

    /// A request of the root's that must succeed.
    pub fn ok(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ok_in("", method, path, body)
    }

    /// As [`Self::ok`], in a namespace.
    pub fn ok_in(&self, namespace: &str, method: &str, path: &str, body: &Value) -> Value {
        let said = self.call(method, path, &self.root, namespace, body);
        assert!(said.0 < 300, "{method} {path}: {said:?}");
        said.1
    }

    /// Puts a policy in.
    pub fn policy(&self, name: &str, rules: &str) {
        self.ok("PUT", &format!("sys/policies/acl/{name}"), &json!({ "policy": rules }));
    }

    /// KV version 2 at `secret/`, version 1 at `old/`, both readable by the policy `patgate`, and `AppRole` with the
    /// role `patgate`, whose id it gives.
    pub fn usual(&self, token: &Value) -> String {
        self.ok("POST", "sys/mounts/secret", &json!({ "type": "kv", "options": { "version": "2" } }));
        self.ok("POST", "sys/mounts/old", &json!({ "type": "kv", "options": { "version": "1" } }));
        self.policy(
            "patgate",
            "path \"secret/data/ado/*\" { capabilities = [\"read\"] }\npath \"old/ado/*\" { capabilities = [\"read\"] }",
        );
        self.ok("POST", "sys/auth/approle", &json!({ "type": "approle" }));
        let mut role = json!({ "token_policies": ["patgate"], "token_ttl": "1h" });
        for (key, value) in token.as_object().into_iter().flatten() {
            role[key] = value.clone();
        }
        self.ok("POST", "auth/approle/role/patgate", &role);
        let id = self.ok("GET", "auth/approle/role/patgate/role-id", &Value::Null);
        id["data"]["role_id"].as_str().unwrap().into()
    }

    /// A new secret id of the role `patgate`, in a file of its own, and the id itself.
    pub fn secret_id(&self) -> (PathBuf, String) {
        let made = self.ok("POST", "auth/approle/role/patgate/secret-id", &json!({}));
        let id = made["data"]["secret_id"].as_str().unwrap();
        (self.private("secret-id", id), id.into())
    }

    /// A file that nobody else may read.
    pub fn private(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path
    }

    pub fn put(&self, path: &str, fields: &Value) {
        self.ok("POST", &format!("secret/data/{path}"), &json!({ "data": fields }));
    }

    /// The root's request, whose answer comes wrapped.
    pub fn wrapped(&self, namespace: &str, path: &str) -> Value {
        let headers = format!("X-Vault-Namespace: {namespace}\r\nX-Vault-Wrap-TTL: 10m\r\n");
        let said = self.send("POST", path, &self.root, &headers, &json!({}));
        assert!(said.0 < 300, "{path}: {said:?}");
        said.1
    }

    pub fn call(&self, method: &str, path: &str, token: &str, namespace: &str, body: &Value) -> Said {
        self.send(method, path, token, &format!("X-Vault-Namespace: {namespace}\r\n"), body)
    }

    /// HTTP/1.0, so that no answer comes in chunks.
    fn send(&self, method: &str, path: &str, token: &str, headers: &str, body: &Value) -> Said {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut socket = TcpStream::connect(self.plain).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!(
            "{method} /v1/{} HTTP/1.0\r\nHost: localhost\r\nX-Vault-Token: {token}\r\n{headers}\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            path.replace(' ', "%20"),
            body.len()
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Said(status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is(self) {
            let log = || fs::read_to_string(self.path("bao.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}\n{}", log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn program() -> PathBuf {
    let tools = std::env::var_os("PATGATE_TOOLS").map(PathBuf::from);
    let tools = tools.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools").into());
    let program = tools.join("bin/bao");
    assert!(program.exists(), "{} is not there; tests/install installs it", program.display());
    program
}
