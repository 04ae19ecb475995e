//! Git over smart HTTP, by git's own `git http-backend` (a CGI program).

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderName, HeaderValue, Response, StatusCode, header, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdout, Command},
};

use super::{
    answer::{Stream, answer},
    repository,
    site::Received,
};

/// The head of a CGI answer, at most.
const HEAD: usize = 16 * 1024;
/// One piece of an answer's body, at most.
const PIECE: usize = 64 * 1024;

/// Where `git http-backend` is.
pub(super) fn backend() -> Result<PathBuf, String> {
    let output = repository::isolated("git")
        .arg("--exec-path")
        .output()
        .map_err(|error| format!("the sample organisation needs git, which can't be run: {error}"))?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("git-http-backend");
    if path.is_file() { Ok(path) } else { Err(format!("{} is not there", path.display())) }
}

/// Runs `git http-backend` for one request: the body goes in as it comes, the answer comes out as it is
/// taken. The process ends with the answer: a client that goes away takes it along.
pub(super) async fn serve(
    backend: &Path,
    repositories: &Path,
    path_info: &str,
    head: &Parts,
    body: Received,
) -> Response<Stream> {
    let spawned = cgi(backend, repositories, path_info, head).spawn();
    let answered = match spawned {
        Ok(child) => exchange(child, body).await,
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(|error| {
        tracing::warn!(%error, "git http-backend failed");
        let words = Stream::whole("git http-backend failed\n");
        answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", words)
    })
}

/// RFC 3875, section 4.1, as far as `git http-backend` reads it.
fn cgi(backend: &Path, repositories: &Path, path_info: &str, head: &Parts) -> Command {
    let mut command = Command::from(repository::isolated(backend));
    let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    for (variable, value) in [
        ("CONTENT_TYPE", text(header::CONTENT_TYPE)),
        ("CONTENT_LENGTH", text(header::CONTENT_LENGTH)),
        ("HTTP_CONTENT_ENCODING", text(header::CONTENT_ENCODING)),
        ("HTTP_USER_AGENT", text(header::USER_AGENT)),
        ("GIT_PROTOCOL", text(HeaderName::from_static("git-protocol"))),
    ] {
        if let Some(value) = value {
            command.env(variable, value);
        }
    }
    command
        .env("GATEWAY_INTERFACE", "CGI/1.1")
        .env("SERVER_PROTOCOL", "HTTP/1.1")
        .env("GIT_PROJECT_ROOT", repositories)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_HTTP_MAX_REQUEST_BUFFER", "100M")
        .env("HOME", repositories)
        .env("REMOTE_USER", "sam")
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", path_info)
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn exchange(mut child: Child, body: Received) -> io::Result<Response<Stream>> {
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    // Both ways at once: git answers a large request before it has read all of it.
    tokio::spawn(async move {
        let mut body = body;
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data()
                && stdin.write_all(&data).await.is_err()
            {
                return;
            }
        }
    });
    let (mut answer, rest) = read_head(&mut stdout).await?;
    let ending = Running { child, stdout, rest: Some(rest) };
    *answer.body_mut() = Stream::new(StreamBody::new(stream::try_unfold(ending, Running::next)));
    Ok(answer)
}

/// A process that is still answering.
struct Running {
    child: Child,
    stdout: ChildStdout,
    rest: Option<Bytes>,
}

impl Running {
    async fn next(mut self) -> io::Result<Option<(Frame<Bytes>, Self)>> {
        if let Some(rest) = self.rest.take().filter(|rest| !rest.is_empty()) {
            return Ok(Some((Frame::data(rest), self)));
        }
        let mut piece = BytesMut::with_capacity(PIECE);
        if self.stdout.read_buf(&mut piece).await? > 0 {
            return Ok(Some((Frame::data(piece.freeze()), self)));
        }
        // An answer of a process that failed must not look like one that is whole.
        let status = self.child.wait().await?;
        if status.success() { Ok(None) } else { Err(io::Error::other(format!("git http-backend: {status}"))) }
    }
}

/// Reads the head of a CGI answer, and what came along behind it.
async fn read_head(stdout: &mut ChildStdout) -> io::Result<(Response<Stream>, Bytes)> {
    let garbled = || io::Error::new(io::ErrorKind::InvalidData, "git http-backend gave no head");
    let mut read = BytesMut::with_capacity(HEAD);
    let (end, gap) = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break (at, 4);
        }
        if read.len() >= HEAD || stdout.read_buf(&mut read).await? == 0 {
            return Err(garbled());
        }
    };
    let head = read.split_to(end);
    let rest = read.split_off(gap).freeze();
    let mut answer = Response::new(Stream::whole(Bytes::new()));
    for line in String::from_utf8_lossy(&head).lines() {
        let (name, value) = line.split_once(':').ok_or_else(garbled)?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse::<StatusCode>().ok());
            *answer.status_mut() = code.ok_or_else(garbled)?;
        } else {
            let name: HeaderName = name.parse().map_err(|_| garbled())?;
            answer.headers_mut().append(name, HeaderValue::from_str(value).map_err(|_| garbled())?);
        }
    }
    Ok((answer, rest))
}

/// Where a request to a repository goes: the path of `git http-backend`, or `None` where there is none.
pub(super) fn path_info(
    repositories: &Path,
    project: &str,
    repository: &str,
    tail: &str,
) -> Option<Arc<str>> {
    let plain = |name: &str| {
        !name.starts_with('.')
            && !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._- ".contains(&byte))
    };
    if !plain(project) || !plain(repository) {
        return None;
    }
    let repository = format!("{}/{}.git", project.to_ascii_lowercase(), repository.to_ascii_lowercase());
    repositories.join(&repository).is_dir().then(|| format!("/{repository}/{tail}").into())
}
