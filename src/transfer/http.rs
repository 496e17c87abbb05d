//! One conversation with a server: small answers whole, an export piece by piece.

use super::Outcome;
use http::{DecodedResponse, Limits, Method, ResponseDecoder};
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// How long a server may be silent: a query's time and some.
const SILENCE_MAX: Duration = Duration::from_secs(180);
/// Of an answer to a body that was sent.
const REPLY_BYTES_MAX: usize = 64 * 1024;
/// Of a line of an answer's head, and of a chunk's.
const LINE_BYTES_MAX: u64 = 16 * 1024;
const HEAD_LINES_MAX: usize = 100;

/// A server, and a connection to it while there is one.
pub struct Server {
    authority: String,
    stream: Option<BufReader<TcpStream>>,
}

/// What became of a body.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// How long to wait before it is sent again.
    pub retry_after: Option<Duration>,
    /// What was said.
    pub body: String,
}

impl Reply {
    /// The samples that were taken.
    pub fn count(&self) -> u64 {
        let digits = self.body.split("\"count\":").nth(1).unwrap_or_default();
        digits.split(|c: char| !c.is_ascii_digit()).next().and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

/// A path with its parameters, escaped.
pub fn target(path: &str, parameters: &[(&str, String)]) -> String {
    let escaped = |text: &str| -> String {
        let escaped = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        };
        text.bytes().map(escaped).collect()
    };
    let pairs: Vec<String> =
        parameters.iter().map(|(key, value)| format!("{}={}", escaped(key), escaped(value))).collect();
    format!("{path}?{}", pairs.join("&"))
}

impl Server {
    /// Connects to `http://HOST:PORT`.
    pub fn connect(url: &str) -> Outcome<Server> {
        let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        if authority.is_empty() || authority.contains(['/', ' ']) {
            return Err(format!("{url} is no server: expected http://HOST:PORT").into());
        }
        let authority =
            if authority.contains(':') { authority.to_owned() } else { format!("{authority}:8080") };
        let mut server = Server { authority, stream: None };
        server.stream()?;
        Ok(server)
    }

    /// The connection, or a new one.
    fn stream(&mut self) -> Outcome<BufReader<TcpStream>> {
        if let Some(stream) = self.stream.take() {
            return Ok(stream);
        }
        let stream =
            TcpStream::connect(&self.authority).map_err(|error| format!("{}: {error}", self.authority))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(BufReader::new(stream))
    }

    /// Sends a body and waits for what is said.
    pub fn post(&mut self, target: &str, body: &[u8]) -> Outcome<Reply> {
        let (host, length) = (self.authority.clone(), body.len());
        let mut stream = self.stream()?;
        let head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
        stream.get_mut().write_all(head.as_bytes())?;
        // A refusal may come before all is sent, and then the rest finds no reader.
        let sent = stream.get_mut().write_all(body);
        let limits = Limits { body_bytes_max: REPLY_BYTES_MAX, ..Limits::default() };
        let (mut decoder, mut bytes) = (ResponseDecoder::default(), Vec::new());
        loop {
            let came = stream.fill_buf()?;
            if came.is_empty() {
                sent?;
                return Err("the server closed the connection".into());
            }
            let len = came.len();
            bytes.extend_from_slice(came);
            stream.consume(len);
            if let DecodedResponse::Response { response, .. } =
                decoder.decode(&mut bytes, Method::Post, &limits)?
            {
                let retry_after =
                    response.header("retry-after").and_then(|value| std::str::from_utf8(value).ok());
                let reply = Reply {
                    status: response.status,
                    retry_after: retry_after.and_then(|text| text.parse().ok()).map(Duration::from_secs),
                    body: String::from_utf8_lossy(response.body).into_owned(),
                };
                if response.connection.is_kept() && sent.is_ok() {
                    self.stream = Some(stream);
                }
                return Ok(reply);
            }
        }
    }

    /// Asks for something that may be long; an answer other than 200 is an error.
    pub fn get(&mut self, target: &str) -> Outcome<Answer<'_>> {
        let mut stream = self.stream()?;
        let request = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", self.authority);
        stream.get_mut().write_all(request.as_bytes())?;
        let status = line(&mut stream)?;
        let (mut rest, mut warned) = (None, false);
        for _ in 0..HEAD_LINES_MAX {
            let line = line(&mut stream)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or("the answer's head is malformed")?;
            warned |= tell_warning(name, value);
            if name.eq_ignore_ascii_case("content-length") {
                rest = Some(Rest::Bytes(value.trim().parse()?));
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                rest = Some(Rest::Chunks { left: 0, has_begun: false });
            }
        }
        let rest = rest.ok_or("the answer does not say how long it is")?;
        let mut answer = Answer { stream, rest, warned, _server: self };
        if status.split(' ').nth(1) == Some("200") {
            return Ok(answer);
        }
        let mut told = String::new();
        let _ = (&mut answer).take(REPLY_BYTES_MAX as u64).read_to_string(&mut told);
        Err(format!("{status}: {told}").into())
    }
}

/// The body of an answer. It ends where the server said that it does, or with an error.
pub struct Answer<'a> {
    stream: BufReader<TcpStream>,
    rest: Rest,
    warned: bool,
    _server: &'a mut Server,
}

enum Rest {
    Bytes(u64),
    Chunks { left: u64, has_begun: bool },
    Nothing,
}

/// Tells what a server warned of; whether it is a warning.
fn tell_warning(name: &str, value: &str) -> bool {
    let is_warning = name.eq_ignore_ascii_case("warning");
    if is_warning {
        // Nobody need read it.
        let _ = writeln!(io::stderr(), "{}", value.trim());
    }
    is_warning
}

impl Answer<'_> {
    /// Whether the server said, by now, that something is missing.
    pub fn warned(&self) -> bool {
        self.warned
    }

    /// Bytes that lie ahead without a break; none at the end.
    fn ahead(&mut self) -> io::Result<u64> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a chunk of the answer is malformed");
        match &mut self.rest {
            Rest::Nothing => Ok(0),
            Rest::Bytes(left) => Ok(*left),
            Rest::Chunks { left: 0, has_begun } => {
                if std::mem::replace(has_begun, true) && !line(&mut self.stream)?.is_empty() {
                    return Err(malformed());
                }
                let size = line(&mut self.stream)?;
                let size = size.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(|_| malformed())?;
                if size == 0 {
                    loop {
                        let field = line(&mut self.stream)?;
                        let Some((name, value)) = field.split_once(':') else { break };
                        self.warned |= tell_warning(name, value);
                    }
                    self.rest = Rest::Nothing;
                } else if let Rest::Chunks { left, .. } = &mut self.rest {
                    *left = size;
                }
                Ok(size)
            }
            Rest::Chunks { left, .. } => Ok(*left),
        }
    }
}

impl Read for Answer<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let ahead = self.ahead()?;
        if ahead == 0 || out.is_empty() {
            return Ok(0);
        }
        let wanted = out.len().min(usize::try_from(ahead).unwrap_or(usize::MAX));
        let read = self.stream.read(&mut out[..wanted])?;
        if read == 0 {
            let why = "the server ended the connection before the answer was whole";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        if let Rest::Bytes(left) | Rest::Chunks { left, .. } = &mut self.rest {
            *left -= read as u64;
        }
        Ok(read)
    }
}

/// A line of the protocol, without its end.
fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.take(LINE_BYTES_MAX).read_line(&mut line)?;
    if line.pop() != Some('\n') {
        let why = "the server ended the connection before the answer was whole";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
    }
    if line.ends_with('\r') {
        line.pop();
    }
    Ok(line)
}
