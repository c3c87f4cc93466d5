//! A small HTTP/1.1 client on one kept-alive connection. It takes little processor time from the servers that are
//! measured.

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::failure::Failure;

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The HTTP method.
    pub method: &'static str,
    /// Path and query string, already encoded.
    pub path: String,
    /// Additional header lines, each ending in CRLF.
    pub headers: String,
    /// The JSON body; if it is empty, none is sent.
    pub body: String,
}

/// A response.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The number of received bytes, including the headers.
    pub bytes: usize,
    /// The body.
    pub body: Vec<u8>,
}

/// A connection to an API server.
pub struct Connection {
    stream: BufReader<TcpStream>,
    port: u16,
}

impl Connection {
    /// Connects to a server on this machine.
    pub async fn open(port: u16) -> Result<Self, Failure> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(64 * 1024, stream), port })
    }

    /// Sends a request and reads the whole response.
    pub async fn send(&mut self, request: &Request) -> Result<Response, Failure> {
        let Request { method, path, headers, body } = request;
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{headers}", self.port);
        if !body.is_empty() {
            text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.stream.get_mut().write_all(text.as_bytes()).await?;

        let (mut bytes, mut line) = (0, String::new());
        // A response with chunks has no Content-Length, so `length` stays 0.
        let (mut status, mut length, mut has_more_chunks) = (0, 0, false);
        loop {
            bytes += self.read_line(&mut line).await?;
            if line.is_empty() {
                break;
            }
            if status == 0 {
                let code = line.split(' ').nth(1).and_then(|code| code.parse().ok());
                status = code.ok_or_else(|| Failure::Message(format!("not a status line: {line}")))?;
            } else if let Some((name, value)) = line.split_once(':') {
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = parse_length(value.trim(), 10)?,
                    "transfer-encoding" => has_more_chunks = value.trim().eq_ignore_ascii_case("chunked"),
                    _ => {}
                }
            }
        }
        let mut body = Vec::new();
        while has_more_chunks {
            bytes += self.read_line(&mut line).await?;
            let chunk_length = parse_length(line.split(';').next().unwrap_or_default().trim(), 16)?;
            bytes += self.read_body(&mut body, chunk_length).await? + self.read_line(&mut line).await?;
            // The last chunk is empty.
            has_more_chunks = chunk_length > 0;
        }
        bytes += self.read_body(&mut body, length).await?;
        Ok(Response { status, bytes, body })
    }

    /// Reads one line into `line`, without its line break. Returns the number of bytes including the line break.
    async fn read_line(&mut self, line: &mut String) -> Result<usize, Failure> {
        line.clear();
        let length = self.stream.read_line(line).await?;
        if length == 0 {
            return Err(Failure::Message("the API server closed the connection".to_owned()));
        }
        line.truncate(line.trim_end().len());
        Ok(length)
    }

    /// Reads `length` bytes, appends them to `body`, and returns `length`.
    async fn read_body(&mut self, body: &mut Vec<u8>, length: usize) -> Result<usize, Failure> {
        let start = body.len();
        body.resize(start + length, 0);
        self.stream.read_exact(&mut body[start..]).await?;
        Ok(length)
    }
}

fn parse_length(text: &str, radix: u32) -> Result<usize, Failure> {
    usize::from_str_radix(text, radix).map_err(|_| Failure::Message(format!("not a length: {text}")))
}
