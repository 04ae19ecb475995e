//! The real git and the real curl, straight at a sample organisation.

use std::process::{Command, Output};

use base64::{Engine, engine::general_purpose::STANDARD};
use tempfile::TempDir;

use super::*;

mod tokens;

const PAT: &str = "sample-token-for-tests";

struct Lab {
    folder: TempDir,
    organization: Organization,
}

impl Lab {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let organization = Organization::start(options(folder.path(), Some(PAT))).unwrap();
        Self { folder, organization }
    }

    fn git(&self, args: &[&str]) -> Output {
        let port = self.organization.address().port();
        repository::isolated("git")
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("GIT_TERMINAL_PROMPT", "0")
            .args(["-c", "user.name=t", "-c", "user.email=t@t"])
            .args(["-c", &format!("http.curloptResolve=dev.azure.com:{port}:127.0.0.1")])
            .args(["-c", &format!("http.sslCAInfo={}", self.organization.ca().display())])
            .args(args)
            .output()
            .unwrap()
    }

    fn curl(&self, args: &[&str], path: &str) -> Output {
        let port = self.organization.address().port();
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--max-time", "20", "--resolve", &format!("dev.azure.com:{port}:127.0.0.1")])
            .args(["-i", "--cacert", self.organization.ca().to_str().unwrap()])
            .args(args)
            .arg(format!("https://dev.azure.com:{port}{path}"));
        command.output().unwrap()
    }

    fn text(&self, args: &[&str], path: &str) -> String {
        let output = self.curl(args, path);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn url(&self, path: &str) -> String {
        format!("https://dev.azure.com:{}{path}", self.organization.address().port())
    }
}

fn options(folder: &std::path::Path, pat: Option<&str>) -> Options {
    Options {
        folder: folder.join("sample"),
        organizations: vec!["contoso".into()],
        pat: pat.map(String::from),
        address: ([127, 0, 0, 1], 0).into(),
    }
}

fn credential() -> String {
    format!("Authorization: Basic {}", STANDARD.encode(format!(":{PAT}")))
}

#[track_caller]
fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn git_clones_and_pushes_with_the_token() {
    let lab = Lab::start();
    let header = format!("http.extraHeader={}", credential());
    let url = lab.url("/contoso/web/_git/web");
    succeeded(&lab.git(&["-c", &header, "clone", "--quiet", &url, "clone"]));
    let readme = std::fs::read_to_string(lab.folder.path().join("clone/README.md")).unwrap();
    assert!(readme.starts_with("# web"));

    // Two megabytes that don't compress: a probe, and then a chunked body.
    let noise = noise_of(2 << 20);
    std::fs::write(lab.folder.path().join("clone/noise.bin"), noise).unwrap();
    succeeded(&lab.git(&["-C", "clone", "add", "noise.bin"]));
    succeeded(&lab.git(&["-C", "clone", "commit", "--quiet", "-m", "Noise"]));
    succeeded(&lab.git(&[
        "-C",
        "clone",
        "-c",
        &header,
        "push",
        "--quiet",
        "origin",
        "HEAD:refs/heads/noise",
    ]));
    let pushed = lab.organization.seen().into_iter().rev().find(|seen| seen.body_bytes() > 2 << 20).unwrap();
    assert_eq!(pushed.target, "/contoso/web/_git/web/git-receive-pack");
    assert!(pushed.body_is_whole());
    assert_eq!(pushed.authorization, [credential().trim_start_matches("Authorization: ").to_owned()]);

    for spelling in ["/Contoso/_git/WEB", "/contoso/web/_git/_full/web", "/contoso/web/_git/_optimized/web"] {
        succeeded(&lab.git(&["-c", &header, "ls-remote", &lab.url(spelling), "refs/heads/noise"]));
    }
    let missing = lab.git(&["-c", &header, "ls-remote", &lab.url("/contoso/web/_git/none")]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("TF401019"));
}

fn noise_of(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut noise).unwrap();
    noise
}

#[test]
fn a_request_without_one_good_token_gets_what_azure_devops_gives() {
    let lab = Lab::start();
    let git = lab.git(&["ls-remote", &lab.url("/contoso/web/_git/web")]);
    assert!(String::from_utf8_lossy(&git.stderr).contains("terminal prompts disabled"));

    let good = credential();
    let suppress = ["-H", "X-TFS-FedAuthRedirect: Suppress"];
    let path = "/contoso/_apis/projects";
    assert!(lab.text(&[], path).contains("203 Non Authoritative"));
    assert!(lab.text(&[], path).contains("Azure DevOps Services | Sign In"));
    assert!(lab.text(&["-X", "PATCH"], path).contains("401 Unauthorized"));
    let refused = lab.text(&suppress, path);
    assert!(refused.contains("401 Unauthorized"), "{refused}");
    assert!(refused.contains("TFS-Federated") && refused.contains("x-tfs-serviceerror: TF400813%3A"));
    assert!(!refused.contains("x-vss-userdata"));
    assert!(lab.text(&["-H", &good, "-H", &good], path).contains("203 Non"));
    let accepted = lab.text(&["-H", &good], path);
    assert!(
        accepted.contains("200 OK")
            && accepted.contains("x-vss-userdata")
            && accepted.contains("VstsSession")
    );

    lab.organization.accept(&["another"]);
    assert!(lab.text(&["-H", &good], path).contains("203 Non"));
}

#[test]
fn it_behaves_as_it_is_told() {
    let lab = Lab::start();
    let good = credential();
    let cases = [
        (Behaviour::Sound, "/contoso/_apis/connectionData", "200 OK"),
        (Behaviour::Expired, "/contoso/_apis/connectionData", "Token%20used%20has%20expired"),
        (Behaviour::Revoked, "/contoso/_apis/projects", "Token%20used%20has%20been%20revoked"),
        (Behaviour::UnderScoped, "/contoso/_apis/projects", "TF400813: The user '5a2c9f4e-"),
        (Behaviour::UnderScoped, "/contoso/_apis/connectionData", "200 OK"),
        (Behaviour::SignInPage, "/contoso/_apis/projects", "203 Non"),
        (Behaviour::SignInRedirect, "/contoso/web/_git/web/info/refs", "vssps.visualstudio.com/_signin"),
        (Behaviour::Stopped, "/contoso/_apis/projects", "TF24668"),
    ];
    for (behaviour, path, expected) in cases {
        lab.organization.behave(behaviour);
        let answer = lab.text(&["-H", &good], path);
        assert!(answer.contains(expected), "{behaviour:?} {path}: {answer}");
    }
    for (behaviour, patience, code) in [
        (Behaviour::Garbage, "20", 1),
        (Behaviour::Cut { after: 10 }, "20", 18),
        (Behaviour::Silent, "0.5", 28),
        (Behaviour::Hang { after: 10 }, "0.5", 28),
    ] {
        lab.organization.behave(behaviour);
        let ended = lab.curl(&["-H", &good, "--max-time", patience], "/contoso/_apis/projects");
        let (code, got) = (Some(code), ended.status.code());
        // TLS says of a connection cut without a farewell that it was cut: 56.
        assert!(got == code || got == Some(56), "{behaviour:?}: {got:?}");
    }
}

#[test]
fn one_answer_can_be_asked_for() {
    let lab = Lab::start();
    let good = credential();
    let cases = [
        ("status?code=418", "418 I'm a teapot"),
        ("location?to=https%3A%2F%2Fdev.azure.com%2Fcontoso%2F", "location: https://dev.azure.com/contoso/"),
        ("slow?seconds=0", "200 OK"),
        ("trickle?bytes=3&pause-ms=1", "..."),
        ("sink", "e3b0c44298fc1c149afbf4c8996fb924"),
        ("echo", "\"method\":\"GET\""),
        ("echo?credential=body", "Basic "),
        ("echo?credential=token", PAT),
        ("echo?credential=header", "x-sample-authorization: Basic "),
        ("under-scoped", "TF400813"),
        ("early", "413 Payload Too Large"),
        ("sign-in?redirect=1", "302 Found"),
    ];
    for (what, expected) in cases {
        let answer = lab.text(&["-H", &good], &format!("/contoso/_apis/sample/{what}"));
        assert!(answer.contains(expected), "{what}: {answer}");
    }
    let huge = lab.curl(&["-H", &good], "/contoso/web/_apis/sample/huge?bytes=3000000");
    let body = huge.stdout.windows(4).position(|at| at == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(huge.stdout.len() - body, 3_000_000);
    let posted = lab.text(&["-H", &good, "-d", "hello"], "/contoso/_apis/sample/body");
    assert!(posted.ends_with("\r\n\r\nhello"), "{posted}");
    let cut = lab.curl(&["-H", &good], "/contoso/_apis/sample/cut?after=100");
    assert!(!cut.status.success());
}

#[test]
fn it_starts_again_with_a_digest_alone_and_never_keeps_the_token() {
    let lab = Lab::start();
    let port = lab.organization.address();
    let files = walk(&lab.folder.path().join("sample"));
    assert!(files.iter().any(|file| file.ends_with("pat.sha256")));
    for file in files {
        let content = std::fs::read(&file).unwrap();
        assert!(!content.windows(PAT.len()).any(|window| window == PAT.as_bytes()), "{}", file.display());
    }
    let Lab { folder, organization } = lab;
    organization.stop();
    assert_eq!(Folder::last_address(&folder.path().join("sample")), Some(port));
    let again = Organization::start(options(folder.path(), None)).unwrap();
    let lab = Lab { folder, organization: again };
    assert!(lab.text(&["-H", &credential()], "/contoso/_apis/projects").contains("200 OK"));
    assert_eq!(lab.organization.requests(), 1);
}

fn walk(folder: &std::path::Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .collect()
}

#[test]
fn it_refuses_what_it_can_not_or_should_not_do() {
    let folder = tempfile::tempdir().unwrap();
    let outside = Options { address: ([0, 0, 0, 0], 0).into(), ..options(folder.path(), Some(PAT)) };
    assert!(matches!(Organization::start(outside), Err(StartError::NotLoopback(_))));
    assert!(matches!(Organization::start(options(folder.path(), None)), Err(StartError::NoToken(_))));
    let first = Organization::start(options(folder.path(), Some(PAT))).unwrap();
    let taken = Options { address: first.address(), ..options(folder.path(), Some(PAT)) };
    assert!(matches!(Organization::start(taken), Err(StartError::Address(..))));
}
