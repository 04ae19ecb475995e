//! Threads that make requests until told to stop, and count what was lost.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// What a thread of the load does.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A connection for each request, all of them for the same.
    Single,
    /// A connection for each request; each asks for a project of its own that begins with this.
    Unique(String),
    /// Connections that are kept until an answer says `Connection: close`.
    Kept,
}

/// Threads that make requests until told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<Vec<String>>>,
}

/// One request on one connection; the status, or why there was none.
pub fn once(address: SocketAddr, target: &str) -> Result<u16, String> {
    let mut socket = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).map_err(|error| format!("write: {error}"))?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).map_err(|error| format!("read: {error}"))?;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(format!("answer: {answer:?}"))
}

/// A connection that is kept.
pub struct Kept {
    reader: BufReader<TcpStream>,
    /// The last answer said that it closes.
    pub closing: bool,
}

impl Kept {
    pub fn connect(address: SocketAddr) -> Result<Self, String> {
        let socket = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Ok(Self { reader: BufReader::new(socket), closing: false })
    }

    /// One request; the status.
    pub fn get(&mut self, target: &str) -> Result<u16, String> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.reader
            .get_mut()
            .write_all(request.as_bytes())
            .map_err(|error| format!("kept, write: {error}"))?;
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.reader.read_line(&mut line).map_err(|error| format!("kept, head: {error}"))?;
            if read == 0 {
                return Err("kept, closed without a word".into());
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.to_lowercase());
        }
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        let mut body = vec![0; length.ok_or(format!("no length: {head:?}"))?];
        self.reader.read_exact(&mut body).map_err(|error| format!("kept, body: {error}"))?;
        self.closing = head.iter().any(|line| line == "connection: close\r\n");
        head[0].split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(format!("answer: {head:?}"))
    }
}

const USUAL: &str = "/contoso/_apis/projects";

impl Load {
    pub fn start(address: SocketAddr, threads: usize) -> Self {
        Self::of(address, threads, &Kind::Single)
    }

    pub fn of(address: SocketAddr, threads: usize, kind: &Kind) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..threads)
            .map(|thread| {
                let (stop, done, kind) = (Arc::clone(&stop), Arc::clone(&done), kind.clone());
                thread::spawn(move || {
                    let (mut failures, mut kept, mut number) = (Vec::new(), None, 0_u64);
                    while !stop.load(Relaxed) {
                        number += 1;
                        let answered = match &kind {
                            Kind::Single => once(address, USUAL),
                            Kind::Unique(prefix) => once(
                                address,
                                &format!("/contoso/{prefix}-{thread}-{number}/_apis/sample/status"),
                            ),
                            Kind::Kept => on_kept(&mut kept, address),
                        };
                        match answered {
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

    pub fn wait_for(&self, count: u64) {
        let (from, deadline) = (self.done.load(Relaxed), Instant::now() + Duration::from_mins(10));
        while self.done.load(Relaxed) < from + count {
            assert!(Instant::now() < deadline, "the load does not come through");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many were answered with 200, and what else happened.
    pub fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Relaxed);
        let failures = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (self.done.load(Relaxed), failures)
    }

    /// Ends, and not one may have been lost.
    pub fn end_whole(self) -> u64 {
        let (done, failures) = self.end();
        assert!(
            failures.is_empty(),
            "{} of {done} lost: {:?}",
            failures.len(),
            &failures[..failures.len().min(5)]
        );
        done
    }
}

fn on_kept(kept: &mut Option<Kept>, address: SocketAddr) -> Result<u16, String> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Kept::connect(address)?,
    };
    let answered = connection.get(USUAL)?;
    if !connection.closing {
        *kept = Some(connection);
    }
    Ok(answered)
}
