//! SuperLinks, and other programs.

pub use test_support::superlink::{Program, SuperLink, free_port};

/// A call of nobody in particular.
pub fn post(port: u16, path: &str, body: &[u8]) -> Vec<u8> {
    let request = ureq::post(format!("http://127.0.0.1:{port}/v1/{path}"));
    let request = request.header("content-type", "application/protobuf").header("accept", "application/protobuf");
    request.send(body).unwrap().body_mut().read_to_vec().unwrap()
}
