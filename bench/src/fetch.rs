//! One request on a connection of its own: for the questions around a run, not for load.

use http::{DecodedResponse, Limits, Method, ResponseDecoder};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No server needs longer for what is asked here.
const PATIENCE: Duration = Duration::from_secs(60);

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

const LIMITS: Limits = Limits { head_bytes_max: 16 << 10, body_bytes_max: 64 << 20 };

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// The connection failed, or ended early.
    Io(io::Error),
    /// What came was not HTTP.
    Malformed(http::ResponseError),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::Io(cause) => cause.fmt(f),
            FetchError::Malformed(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for FetchError {}

impl From<io::Error> for FetchError {
    fn from(cause: io::Error) -> FetchError {
        FetchError::Io(cause)
    }
}

/// Status and body of `GET path`.
pub(crate) fn get(addr: SocketAddr, path: &str) -> Result<(u16, Vec<u8>), FetchError> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    exchange(addr, Method::Get, &head)
}

/// Status and body of `POST path` with a JSON body.
pub(crate) fn post(addr: SocketAddr, path: &str, body: &str) -> Result<(u16, Vec<u8>), FetchError> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Type: application/json\r\n\
        Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(addr, Method::Post, &request)
}

fn exchange(addr: SocketAddr, method: Method, request: &str) -> Result<(u16, Vec<u8>), FetchError> {
    let mut stream = TcpStream::connect_timeout(&addr, CONNECT_PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut decoder = ResponseDecoder::default();
    let mut received = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        let bytes = stream.read(&mut piece)?;
        if bytes == 0 {
            return Err(FetchError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        received.extend_from_slice(&piece[..bytes]);
        match decoder.decode(&mut received, method, &LIMITS).map_err(FetchError::Malformed)? {
            DecodedResponse::Response { response, .. } => {
                return Ok((response.status, response.body.to_vec()));
            }
            DecodedResponse::Partial { .. } => {}
        }
    }
}
