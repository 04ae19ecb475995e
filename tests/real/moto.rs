//! A real `moto_server`: AWS Secrets Manager, STS and the metadata service of EC2, on a port of this machine.

use std::{
    env,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

/// The region that the tests' secrets are in.
pub const REGION: &str = "eu-west-1";

pub struct Moto {
    process: Child,
    address: SocketAddr,
    scheme: &'static str,
}

impl Moto {
    pub fn start() -> Self {
        Self::launch(free(), None, &[])
    }

    /// With a certificate of `localhost`.
    pub fn tls(folder: &Path) -> Self {
        Self::launch(free(), Some(folder), &[])
    }

    /// From the `actions`th request on, requests must be signed, and be allowed by IAM.
    pub fn strict_after(actions: usize) -> Self {
        Self::launch(free(), None, &[("INITIAL_NO_AUTH_ACTION_COUNT", &actions.to_string())])
    }

    fn launch(address: SocketAddr, tls: Option<&Path>, variables: &[(&str, &str)]) -> Self {
        let tools = env::var("PATGATE_TOOLS")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools").into());
        let mut command = Command::new(format!("{tools}/bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]);
        if let Some(folder) = tls {
            command.arg("-c").arg(folder.join("server.pem")).arg("-k").arg(folder.join("server.key"));
        }
        command
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command.spawn().expect("moto_server: tests/install installs it");
        let mut moto = Self { process, address, scheme: if tls.is_some() { "https" } else { "http" } };
        for _ in 0..600 {
            if TcpStream::connect(address).is_ok() {
                return moto;
            }
            assert!(moto.process.try_wait().unwrap().is_none(), "moto_server ended");
            thread::sleep(Duration::from_millis(50));
        }
        panic!("moto_server did not begin to listen")
    }

    /// `http://127.0.0.1:5000`, or `https://localhost:5000`.
    pub fn url(&self) -> String {
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}", self.scheme, self.address.port())
    }

    fn post(&self, service: &str, arguments: &[&str]) -> String {
        let signed = format!(
            "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/{service}/aws4_request, \
             SignedHeaders=host, Signature=x"
        );
        let output = Command::new("curl")
            .args(["-sSk", "--max-time", "20", "--noproxy", "*", "-H", &signed])
            .args(arguments)
            .arg(self.url())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// An action of Secrets Manager.
    pub fn call(&self, action: &str, body: &Value) -> Value {
        let target = format!("X-Amz-Target: secretsmanager.{action}");
        let json = "Content-Type: application/x-amz-json-1.1";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("body");
        std::fs::write(&file, body.to_string()).unwrap();
        let said = self.post(
            "secretsmanager",
            &["-H", &target, "-H", json, "--data-binary", &format!("@{}", file.display())],
        );
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{action}: {said}"))
    }

    /// Makes a secret, or a new version of one; gives the version's id.
    pub fn put(&self, name: &str, text: &str) -> String {
        let body = serde_json::json!({ "SecretId": name, "Name": name, "SecretString": text });
        let mut said = self.call("PutSecretValue", &body);
        if said["VersionId"].is_null() {
            said = self.call("CreateSecret", &body);
        }
        said["VersionId"].as_str().unwrap_or_else(|| panic!("{name}: {said}")).to_owned()
    }

    /// An action of IAM, as `Action=CreateUser&UserName=…`.
    pub fn iam(&self, query: &str) -> String {
        self.post("iam", &["-d", &format!("Version=2010-05-08&{query}")])
    }

    /// Ends it, and gives where it was.
    pub fn kill(mut self) -> SocketAddr {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.address
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
