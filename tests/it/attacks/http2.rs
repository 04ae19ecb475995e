//! HTTP/2, frame by frame: what a library would not send.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::{GOOD, count, settled};
use crate::support::{TestProxy, setup};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection, after its preface.
struct Client(StreamOwned<ClientConnection, TcpStream>);

/// A frame that came.
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Client {
    fn new(proxy: &TestProxy, settings: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&fs::read(proxy.path("ca.pem")).unwrap()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls =
            ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
        let socket = TcpStream::connect(proxy.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut client = Self(StreamOwned::new(tls, socket));
        client.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        client.send(SETTINGS, 0, 0, settings).unwrap();
        client
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat())?;
        self.0.flush()
    }

    fn receive(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let frame = Frame { kind: head[3], flags: head[4], stream, payload };
        if frame.kind == PING && frame.flags == 0 {
            let _ = self.send(PING, 1, 0, &frame.payload.clone());
        }
        Some(frame)
    }

    /// The body of the answer on a stream, or how it ended otherwise.
    fn answer(&mut self, stream: u32) -> Result<String, String> {
        let mut body = Vec::new();
        while let Some(frame) = self.receive() {
            match frame.kind {
                GOAWAY => return Err(format!("goaway: {frame:?}")),
                RST_STREAM if frame.stream == stream => return Err(format!("reset: {frame:?}")),
                DATA if frame.stream == stream => body.extend_from_slice(&frame.payload),
                _ => {}
            }
            if frame.stream == stream && matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0
            {
                return Ok(String::from_utf8_lossy(&body).into_owned());
            }
        }
        Err("closed".into())
    }
}

/// A field, literally and without a table.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        match u8::try_from(text.len()) {
            Ok(short) if short < 127 => block.push(short),
            _ => {
                block.push(127);
                let mut left = text.len() - 127;
                while left >= 128 {
                    block.push(u8::try_from(left % 128).unwrap() | 128);
                    left /= 128;
                }
                block.push(u8::try_from(left).unwrap());
            }
        }
        block.extend_from_slice(text.as_bytes());
    }
    block
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

fn usual<'a>(method: &'a str, path: &'a str, authority: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]
}

#[test]
fn what_http2_lets_through_is_judged_like_http1() {
    let proxy = setup().tls().start();
    let with =
        |more: &[(&'static str, &'static str)]| [usual("GET", GOOD, "localhost"), more.to_vec()].concat();
    let without = |name: &str| {
        let fields = usual("GET", GOOD, "localhost");
        fields.into_iter().filter(|(own, _)| *own != name).collect::<Vec<_>>()
    };
    for (name, fields, code) in [
        ("another Host", with(&[("host", "evil.example")]), "host-unknown"),
        ("two Hosts", with(&[("host", "localhost"), ("host", "localhost")]), "host-unknown"),
        ("no authority", without(":authority"), "host-unknown"),
        ("a user in the authority", usual("GET", GOOD, "a:b@localhost"), "host-unknown"),
        ("a foreign authority", usual("GET", GOOD, "dev.azure.com"), "host-unknown"),
        ("two slashes", usual("GET", "//evil.example/contoso", "localhost"), "path-ambiguous"),
        ("dots", usual("GET", "/contoso/../fabrikam/_apis/x", "localhost"), "path-ambiguous"),
        ("a star", usual("OPTIONS", "*", "localhost"), "path-ambiguous"),
        ("a lower-case method", usual("get", GOOD, "localhost"), "method-unknown"),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "dev.azure.com:443")], "method-unknown"),
        ("an override", with(&[("x-http-method-override", "DELETE")]), "header-ambiguous"),
        ("an underscore", with(&[("content_length", "3")]), "header-ambiguous"),
        ("an expectation", with(&[("expect", "x")]), "expectation-unknown"),
        ("a foreign organization", usual("GET", "/fabrikam/_apis/projects", "localhost"), "no-rule"),
        ("the balancer's, posted", usual("POST", "/_patgate/ready", "localhost"), "target-unknown"),
    ] {
        let mut client = Client::new(&proxy, &[]);
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)).unwrap();
        let answer = client.answer(1);
        assert!(
            answer.as_ref().is_ok_and(|body| body.contains(&format!("\"{code}\""))),
            "{name}: {answer:?}"
        );
    }
    for (name, fields) in [
        ("an upper-case name", with(&[("Accept", "a")])),
        ("a header of the connection", with(&[("connection", "close")])),
        ("an encoding", with(&[("transfer-encoding", "chunked")])),
        ("a late pseudo-header", with(&[("accept", "a"), (":path", "/fabrikam")])),
        ("two paths", with(&[(":path", "/fabrikam/_apis/x")])),
        ("an unknown pseudo-header", with(&[(":x", "y")])),
        ("a line in a value", with(&[("accept", "a\r\nx: y")])),
        ("no path", without(":path")),
        ("a space in the path", usual("GET", "/contoso/_apis/x HTTP/1.1", "localhost")),
    ] {
        let mut client = Client::new(&proxy, &[]);
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)).unwrap();
        let answer = client.answer(1);
        assert!(
            answer.is_err() || answer.as_ref().is_ok_and(|body| body.is_empty() || body.contains("patgate")),
            "{name}: {answer:?}"
        );
    }
    assert_eq!(count(&proxy, "intent"), 0, "nothing of that went up");
}

#[test]
fn cookies_and_trailers_of_http2_go_nowhere() {
    let proxy = setup().tls().start();
    let fields = [
        usual("POST", "/contoso/_apis/sample/sink", "localhost"),
        vec![("cookie", "a=b"), ("cookie", "c=d"), ("authorization", "Basic eDp5"), ("te", "trailers")],
    ]
    .concat();
    let mut client = Client::new(&proxy, &[]);
    client.send(HEADERS, END_HEADERS, 1, &block(&fields)).unwrap();
    client.send(DATA, 0, 1, b"abc").unwrap();
    let trailers = block(&[("authorization", "Basic eDp5"), ("host", "evil.example"), ("x-a", "b")]);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &trailers).unwrap();
    let answer = client.answer(1).unwrap();
    assert!(answer.contains("\"bytes\":3"), "{answer}");
    let seen = proxy.organization().seen().into_iter().next_back().unwrap();
    assert_eq!(seen.authorization.len(), 1, "{seen:?}");
    assert_ne!(seen.authorization[0], "Basic eDp5");
    for name in ["cookie", "te", "x-a", "trailer"] {
        assert_eq!(seen.header(name).count(), 0, "{name}: {seen:?}");
    }
}

#[test]
fn a_body_that_the_head_did_not_announce_is_refused() {
    let proxy = setup().tls().start();
    let mut client = Client::new(&proxy, &[]);
    client.send(HEADERS, END_HEADERS, 1, &block(&usual("GET", GOOD, "localhost"))).unwrap();
    client.send(DATA, END_STREAM, 1, b"abc").unwrap();
    let answer = client.answer(1);
    assert!(answer.as_ref().is_ok_and(|body| body.contains("\"framing\"")), "{answer:?}");
    // And one whose length is another than the head says.
    let fields =
        [usual("POST", "/contoso/_apis/sample/sink", "localhost"), vec![("content-length", "9")]].concat();
    let mut client = Client::new(&proxy, &[]);
    client.send(HEADERS, END_HEADERS, 1, &block(&fields)).unwrap();
    client.send(DATA, END_STREAM, 1, b"abc").unwrap();
    assert!(client.answer(1).is_err_and(|why| why.contains("reset")));
    assert!(proxy.organization().seen().iter().all(|seen| seen.method != "POST" || !seen.body_is_whole()));
}

#[test]
fn a_client_of_http2_that_gives_no_window_is_let_go() {
    let proxy = setup().tls().limits("write-idle = \"1s\"").start();
    // SETTINGS_INITIAL_WINDOW_SIZE = 0
    let mut client = Client::new(&proxy, &[0, 4, 0, 0, 0, 0]);
    let fields = usual("GET", "/contoso/_apis/sample/huge?bytes=1000000", "localhost");
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)).unwrap();
    client
        .send(HEADERS, END_HEADERS | END_STREAM, 3, &block(&usual("GET", "/fabrikam/x", "localhost")))
        .unwrap();
    let begun = Instant::now();
    while client.receive().is_some() {}
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let record = proxy.record("the client without a window", |record| record["kind"] == "outcome");
    assert_eq!(record["ending"], "client-gone", "{record}");
}

#[test]
fn not_even_the_balancers_answer_is_held_for_ever() {
    let proxy = setup().tls().limits("write-idle = \"1s\"").start();
    let mut client = Client::new(&proxy, &[0, 4, 0, 0, 0, 0]);
    let ready = block(&usual("GET", "/_patgate/ready", "localhost"));
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &ready).unwrap();
    let begun = Instant::now();
    while client.receive().is_some() {}
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn what_breaks_the_protocol_is_on_record() {
    let proxy = setup().tls().start();
    let mut client = Client::new(&proxy, &[]);
    // DATA on the connection itself.
    client.send(DATA, 0, 0, b"abc").unwrap();
    while client.receive().is_some() {}
    proxy.record("the broken protocol", |record| {
        record["kind"] == "connection" && record["refusal"] == "head-malformed"
    });
}

fn resident(proxy: &TestProxy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// By how much patgate grows while twenty clients hold 32 requests each, whose heads name one field so often.
/// The second number: bytes of heads that were sent.
fn growth(size: usize, references: usize) -> (u64, usize) {
    let proxy = setup().tls().start();
    assert_eq!(proxy.get(GOOD, &["--http2"]).0, 200);
    let before = resident(&proxy);
    let (mut clients, mut sent) = (Vec::new(), 0);
    for _ in 0..20 {
        let mut client = Client::new(&proxy, &[]);
        // A field into the table, then references to it, of one byte each.
        let mut table = field("accept", &"a".repeat(size));
        table[0] = 0x40;
        for stream in 0..32_u32 {
            let mut fields = block(&usual("POST", "/contoso/_apis/sample/sink", "localhost"));
            if stream == 0 {
                fields.extend(&table);
            }
            fields.extend(vec![0xbe; references]);
            sent += fields.len();
            if client.send(HEADERS, END_HEADERS, 2 * stream + 1, &fields).is_err() {
                break;
            }
        }
        clients.push(client);
    }
    assert_eq!(proxy.get(GOOD, &["--http2"]).0, 200, "others are served meanwhile");
    (resident(&proxy).saturating_sub(before), sent)
}

#[test]
fn a_bomb_of_headers_does_not_fill_the_memory() {
    let (plain, _) = growth(70, 1);
    // More than is read of a head, and as much as is.
    for (size, references) in [(3 << 10, 450), (1, 200), (70, 55)] {
        let (grown, sent) = growth(size, references);
        assert!(grown < plain + 20, "{grown} MiB for {sent} bytes, where {plain} would do");
    }
}

/// Its name, and what it sends at its `n`th step.
type Flood<'a> = (&'a str, Box<dyn Fn(&mut Client, u32) -> std::io::Result<()> + 'a>);

#[test]
fn floods_of_frames_end_their_connection_alone() {
    let proxy = setup().tls().start();
    let before = resident(&proxy);
    let request = block(&usual("GET", GOOD, "localhost"));
    let floods: Vec<Flood<'_>> = vec![
        (
            "rapid reset",
            Box::new(|client, n| {
                client.send(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &request)?;
                client.send(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])
            }),
        ),
        ("settings", Box::new(|client, _| client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0]))),
        ("pings", Box::new(|client, _| client.send(PING, 0, 0, &[0; 8]))),
        (
            "empty data",
            Box::new(|client, n| {
                if n == 0 {
                    client.send(
                        HEADERS,
                        END_HEADERS,
                        1,
                        &block(&usual("POST", "/contoso/_apis/sample/sink", "localhost")),
                    )?;
                }
                client.send(DATA, 0, 1, &[])
            }),
        ),
        (
            "continuations",
            Box::new(|client, n| {
                if n == 0 {
                    client.send(HEADERS, 0, 1, &request)?;
                }
                client.send(CONTINUATION, 0, 1, &field("x-a", &"a".repeat(1000)))
            }),
        ),
    ];
    for (name, flood) in floods {
        let mut client = Client::new(&proxy, &[]);
        client.0.sock.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let begun = Instant::now();
        let _ = (0..20_000).try_for_each(|n| flood(&mut client, n));
        assert!(begun.elapsed() < Duration::from_secs(30), "{name}: {:?}", begun.elapsed());
        assert_eq!(proxy.get(GOOD, &["--http2"]).0, 200, "{name}: others are served");
    }
    let grown = resident(&proxy).saturating_sub(before);
    assert!(grown < 50, "{grown} MiB");
}

#[test]
fn more_streams_than_there_may_be_are_refused_and_the_others_recorded() {
    let proxy = setup().tls().start();
    let mut client = Client::new(&proxy, &[]);
    let fields = block(&usual("GET", "/fabrikam/_apis/x", "localhost"));
    for n in 0..20_u32 {
        client.send(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &fields).unwrap();
        assert!(client.answer(2 * n + 1).unwrap().contains("no-rule"));
    }
    settled(&proxy, "refusal", 20);
}
