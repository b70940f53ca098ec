//! Clocks that differ, and connections that break.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::connection::Connection;
use crate::endpoint::{Caller, Endpoint, Scope};
use crate::error::Error;
use crate::http::{Counter, Http};
use crate::identity::Identity;
use crate::wire::{Nothing, Success};

/// Answers each call, given its head, with a status line, headers and body; nothing: the connection breaks.
fn serve(answer: impl Fn(usize, &str) -> String + Send + 'static) -> Connection {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (String::new(), [0]);
            while !head.ends_with("\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                head.push(byte[0].into());
            }
            // Bodies in these tests are empty.
            stream.write_all(answer(count, &head).as_bytes()).unwrap();
        }
    });
    Connection { patience: Some(Duration::from_secs(5)), timeout: Duration::from_secs(5), ..Connection::new(url) }
}

fn site(connection: &Connection) -> Endpoint {
    let http = Http::new(connection, Arc::new(|_| ())).unwrap();
    Endpoint { http, caller: Caller::Site { identity: Identity::generate().unwrap() } }
}

fn call(endpoint: &Endpoint) -> Result<bool, Error> {
    let scope = Scope { abort: &|| false, counter: &Counter::default() };
    endpoint.call::<Success>("send-node-heartbeat", &Nothing {}, scope).map(|answer| answer.success)
}

/// How far the timestamp of a call is from now, in seconds.
fn ahead(head: &str) -> i64 {
    let line = head.lines().find_map(|line| line.strip_prefix("flwr-timestamp: ")).unwrap();
    let time = OffsetDateTime::parse(line, &time::format_description::well_known::Rfc3339).unwrap();
    (time - OffsetDateTime::from(SystemTime::now())).whole_seconds()
}

const YES: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n\x08\x01";
const NO: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n";

#[test]
fn a_clock_that_is_refused_is_corrected_once() {
    for wrong in [-4000, 7, 90, 100_000] {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let connection = serve(move |_, head| {
            count.fetch_add(1, Ordering::Relaxed);
            if (ahead(head) - wrong).abs() <= 2 {
                return YES.into();
            }
            let date = (OffsetDateTime::from(SystemTime::now()) + time::Duration::seconds(wrong))
                .format(&Rfc2822)
                .unwrap()
                .replace("+0000", "GMT");
            format!("{NO}date: {date}\r\n\r\n")
        });
        let site = site(&connection);
        assert!(call(&site).unwrap(), "{wrong}");
        assert!(call(&site).unwrap(), "{wrong}");
        assert_eq!(calls.load(Ordering::Relaxed), 3, "{wrong}");
    }
}

#[test]
fn a_key_that_is_refused_is_not_tried_for_ever() {
    let connection = serve(|_, _| {
        let date = OffsetDateTime::from(SystemTime::now()).format(&Rfc2822).unwrap().replace("+0000", "GMT");
        format!("{NO}date: {date}\r\n\r\n")
    });
    assert!(call(&site(&connection)).unwrap_err().is_unauthorised());
    let connection = serve(|_, _| format!("{NO}date: yesterday\r\n\r\n"));
    assert!(call(&site(&connection)).unwrap_err().is_unauthorised());
}

#[test]
fn lost_connections_and_gateways_without_a_server_are_tried_again() {
    let connection = serve(|count, _| match count {
        0 => String::new(),
        1 => "HTTP/1.1 503 no\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into(),
        2 => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\n\x08".into(),
        _ => YES.into(),
    });
    assert!(call(&site(&connection)).unwrap());
}

#[test]
fn other_answers_are_errors() {
    for (answer, expected) in [
        (
            "HTTP/1.1 412 no\r\ncontent-length: 31\r\nconnection: close\r\n\r\n{\"code\": 2004, \"detail\": \"why\"}",
            "fleet/send-node-heartbeat: the SuperLink refused: HTTP 412, code 2004: why",
        ),
        (
            "HTTP/1.1 500 no\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbad",
            "fleet/send-node-heartbeat: the SuperLink refused: HTTP 500: bad",
        ),
        (
            "HTTP/1.1 301 moved\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "fleet/send-node-heartbeat: the SuperLink refused: HTTP 301: ",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n\x0a\x7f",
            "fleet/send-node-heartbeat: the answer is no protobuf message, or has too many fields",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 34\r\nconnection: close\r\n\r\n\
             \x12\x00\x12\x00\x12\x00\x12\x00\x12\x00\x12\x00\x12\x00\x12\x00\x12\x00\
             \x12\x00\x12\x00\x12\x00\x12\x00\x12\x00\x12\x00\x12\x00\x12\x00",
            "fleet/send-node-heartbeat: the answer is no protobuf message, or has too many fields",
        ),
    ] {
        let mut connection = serve(|_, _| answer.to_owned());
        connection.limits.objects = 0;
        assert_eq!(call(&site(&connection)).unwrap_err().to_string(), expected);
    }
}
