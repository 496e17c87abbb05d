//! A client that sends exactly the bytes it is told, one connection each, and reads answers by the codec.

use http::{DecodedResponse, Limits, Method, ResponseDecoder};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take before the test fails; the machine may be busy with other tests.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(180);
/// Bytes of one answer at most.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// One connection.
pub struct Client {
    stream: TcpStream,
    /// What came and is not read yet.
    bytes: Vec<u8>,
}

/// One answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and header lines, as they came, with the blank line.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Status and body, for one comparison.
    pub fn told(&self) -> (u16, &str) {
        (self.status, &self.body)
    }
}

impl Client {
    /// A new connection.
    pub fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address).expect("the server takes connections")
    }

    /// A new connection, if there is a server.
    pub fn try_connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Client { stream, bytes: Vec::new() })
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Whether something came that is not read yet, the end of the stream included.
    pub fn is_answered(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket");
        !self.bytes.is_empty() || !matches!(seen, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends the end of the stream; the answers can still be read.
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("an open connection can be half closed");
    }

    /// The next answer; an end of the stream instead is an error of its own kind.
    pub fn answer_to(&mut self, asked: Method) -> io::Result<Answer> {
        let limits = Limits { body_bytes_max: ANSWER_BYTES_MAX, ..Limits::default() };
        let mut decoder = ResponseDecoder::default();
        let mut piece = vec![0; 64 * 1024];
        loop {
            let head_end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n");
            let head = head_end.map(|end| String::from_utf8_lossy(&self.bytes[..end + 4]).into_owned());
            match decoder.decode(&mut self.bytes, asked, &limits).map_err(io::Error::other)? {
                DecodedResponse::Response { response, consumed } => {
                    let answer = Answer {
                        status: response.status,
                        head: head.unwrap_or_default(),
                        body: String::from_utf8(response.body.to_vec()).map_err(io::Error::other)?,
                    };
                    self.bytes.drain(..consumed);
                    return Ok(answer);
                }
                DecodedResponse::Partial { bytes_wanted } => {
                    // A long body is read on before the decoder looks again.
                    let mut wanted = bytes_wanted;
                    while wanted > 0 {
                        let read = match self.stream.read(&mut piece) {
                            // A read with a time limit does not go on by itself when the machine was stopped meanwhile.
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                            read => read?,
                        };
                        if read == 0 {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        self.bytes.extend_from_slice(&piece[..read]);
                        wanted = wanted.saturating_sub(read);
                    }
                }
            }
        }
    }

    /// The next answer to a `GET` or `POST`.
    pub fn answer(&mut self) -> Answer {
        self.answer_to(Method::Get).expect("an answer")
    }

    /// What is left until the server ends the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.bytes);
        // A reset after the last answer ends the stream as well.
        match self.stream.read_to_end(&mut rest) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("still open: {error}"),
            _ => rest,
        }
    }

    /// Asks and waits for the answer.
    pub fn get(&mut self, target: &str) -> Answer {
        self.try_request("GET", target, "", "").expect("an answer")
    }

    /// Posts and waits for the answer.
    pub fn post(&mut self, target: &str, body: &str) -> Answer {
        self.try_request("POST", target, "", body).expect("an answer")
    }

    /// One request with further header lines, each ending in CRLF.
    pub fn try_request(
        &mut self,
        method: &str,
        target: &str,
        headers: &str,
        body: &str,
    ) -> io::Result<Answer> {
        let length = body.len();
        self.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        ))?;
        self.answer_to(if method == "HEAD" { Method::Head } else { Method::Get })
    }
}

/// One request on a connection of its own.
pub fn get(address: SocketAddr, target: &str) -> Answer {
    Client::connect(address).get(target)
}

/// One metrics body on a connection of its own.
pub fn post(address: SocketAddr, body: &str) -> Answer {
    Client::connect(address).post("/metrics", body)
}
