//! What real tools show of a refusal: `git` and `curl` against a server that refuses.

use std::{convert::Infallible, net::SocketAddr, path::Path, process::Output, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
};

use super::{Said, drain, finish, push, push::Push, render};
use crate::{gate::Wire, refusal::Refusal};

const ZERO: &str = "0000000000000000000000000000000000000000";
const ONE: &str = "1111111111111111111111111111111111111111";

/// Refuses everything but advertisements, and those too under `/refused/`. Under `/forgotten/` a push is
/// refused after its body was read by somebody else.
async fn respond(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let service = request.uri().query().and_then(|query| query.strip_prefix("service="));
    let wire = match service {
        Some(service) if !path.starts_with("/refused/") => return Ok(advertisement(service)),
        Some(_) => Wire::GitAdvertisement,
        None if path.ends_with("/git-upload-pack") => Wire::GitFetch,
        None if path.ends_with("/git-receive-pack") => Wire::GitPush,
        None => Wire::Api,
    };
    let head = request.method() == http::Method::HEAD;
    let said = Said { why: Refusal::NoRule, wire, help: Some("ask #infra"), id: "0a1b", head };
    let idle = Duration::from_secs(30);
    let (push, drained) = if wire == Wire::GitPush {
        push::read(request.into_body(), idle).await
    } else {
        (Push::Unread, drain::drain(request.into_body(), drain::SMALL, idle).await)
    };
    let push = if path.starts_with("/forgotten/") { Push::Unread } else { push };
    Ok(finish(render(&said, &push), said.why, drained))
}

/// Of a repository with one branch that nobody has (fetch), or with none (push).
fn advertisement(service: &str) -> Response<Full<Bytes>> {
    let line = |text: String| format!("{:04x}{text}", text.len() + 4);
    let refs = if service == "git-receive-pack" {
        line(format!("{ZERO} capabilities^{{}}\0report-status side-band-64k delete-refs ofs-delta"))
    } else {
        line(format!("{ONE} HEAD\0multi_ack_detailed side-band-64k ofs-delta shallow"))
            + &line(format!("{ONE} refs/heads/main"))
    };
    let body = format!("{}0000{refs}0000", line(format!("# service={service}\n")));
    let mut response = Response::new(Full::from(body));
    let kind = http::HeaderValue::try_from(format!("application/x-{service}-advertisement")).unwrap();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Serves for as long as the test's runtime lives.
async fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(respond)));
        }
    });
    address
}

async fn run(program: &str, folder: &Path, arguments: &[&str]) -> (Output, String) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("LC_ALL", "C")
        .env_remove("http_proxy")
        .env_remove("all_proxy")
        .output()
        .await
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, shown)
}

/// A repository with a commit that holds `size` bytes that don't compress.
async fn repository(size: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(size)
    .collect();
    std::fs::write(folder.path().join("file"), noise).unwrap();
    for arguments in [
        &["init", "-q", "-b", "main"][..],
        &["add", "file"],
        &["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-m", "one"],
        &["branch", "second"],
    ] {
        let (output, shown) = run("git", folder.path(), arguments).await;
        assert!(output.status.success(), "{shown}");
    }
    folder
}

fn assert_shows(shown: &str, lines: &[&str]) {
    for line in lines {
        assert!(shown.contains(line), "{line:?} is missing in:\n{shown}");
    }
    assert!(!shown.contains("Everything up-to-date"), "{shown}");
    assert!(!shown.contains("Username"), "{shown}");
}

#[tokio::test]
async fn git_shows_why_a_clone_is_refused() {
    let (address, folder) = (refusing().await, tempfile::tempdir().unwrap());
    let url = format!("http://{address}/refused/contoso/web/_git/web");
    let (output, shown) = run("git", folder.path(), &["clone", &url]).await;
    assert_eq!(output.status.code(), Some(128));
    assert_shows(
        &shown,
        &[
            "remote: patgate: no rule allows this request (ask #infra)\n",
            "remote: patgate: no-rule, request 0a1b\n",
            "The requested URL returned error: 403",
        ],
    );
}

#[tokio::test]
async fn git_shows_why_the_second_half_of_a_fetch_is_refused() {
    let (address, folder) = (refusing().await, tempfile::tempdir().unwrap());
    let url = format!("http://{address}/contoso/web/_git/web");
    let (output, shown) = run("git", folder.path(), &["clone", &url]).await;
    assert_eq!(output.status.code(), Some(128));
    assert_shows(&shown, &["fatal: remote error: patgate: no rule allows this request (ask #infra)"]);
}

#[tokio::test]
async fn git_shows_why_a_push_is_refused_for_each_reference() {
    let address = refusing().await;
    let url = format!("http://{address}/contoso/web/_git/web");
    // The second is over http.postBuffer: a probe, then a chunked body.
    for size in [10, 3 * 1024 * 1024] {
        let folder = repository(size).await;
        let (output, shown) = run("git", folder.path(), &["push", &url, "main", "second"]).await;
        assert_eq!(output.status.code(), Some(1), "{shown}");
        assert_shows(
            &shown,
            &[
                "remote: patgate: no rule allows this request (ask #infra)",
                "remote: patgate: no-rule, request 0a1b",
                " ! [remote rejected] main -> main (patgate: no rule allows this request (ask #infra))",
                " ! [remote rejected] second -> second (patgate: no rule allows this request (ask #infra))",
                "error: failed to push some refs",
            ],
        );
    }
}

#[tokio::test]
async fn git_shows_why_a_push_is_refused_whose_references_are_not_known() {
    let (address, folder) = (refusing().await, repository(10).await);
    let url = format!("http://{address}/forgotten/contoso/web/_git/web");
    let (output, shown) = run("git", folder.path(), &["push", &url, "main"]).await;
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert_shows(&shown, &["remote: patgate: no rule allows this request (ask #infra)"]);
}

#[tokio::test]
async fn curl_shows_the_json_that_azure_devops_sdks_read() {
    let (address, folder) = (refusing().await, tempfile::tempdir().unwrap());
    let url = format!("http://{address}/contoso/_apis/projects");
    let (output, shown) = run("curl", folder.path(), &["-sS", "--noproxy", "*", "-i", &url]).await;
    assert!(output.status.success(), "{shown}");
    let answer = String::from_utf8(output.stdout).unwrap();
    for part in [
        "HTTP/1.1 403 Forbidden\r\n",
        "x-patgate-request-id: 0a1b\r\n",
        "cache-control: no-store\r\n",
        "\"message\":\"patgate: no rule allows this request (ask #infra)\"",
        "\"code\":\"no-rule\"",
    ] {
        assert!(answer.contains(part), "{part:?} is missing in:\n{answer}");
    }
}

#[tokio::test]
async fn a_body_too_large_to_drain_ends_the_connection_after_the_answer() {
    let mut stream = TcpStream::connect(refusing().await).await.unwrap();
    let head = "POST /contoso/_apis/projects HTTP/1.1\r\nHost: patgate\r\nContent-Length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn a_small_body_is_drained_and_the_connection_goes_on() {
    let mut stream = TcpStream::connect(refusing().await).await.unwrap();
    let one = "POST /contoso/_apis/projects HTTP/1.1\r\nHost: patgate\r\nContent-Length: 3\r\n\r\nabc";
    let last = "GET /contoso/_apis HTTP/1.1\r\nHost: patgate\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{one}{last}").as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 403 Forbidden\r\n").count(), 2, "{answers}");
}
