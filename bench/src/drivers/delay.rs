//! A proxy that simulates the latency of a network: it delays the bytes that it forwards, without limiting the
//! throughput.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::failure::Failure;

/// A proxy to a server. It runs until the process ends.
pub struct DelayProxy {
    /// The address on which it listens.
    pub address: SocketAddr,
    delay_ns: Arc<AtomicU64>,
}

impl DelayProxy {
    /// Starts a proxy that delays the bytes in each direction by `delay`.
    pub fn start(server_address: SocketAddr, delay: Duration) -> Result<Self, Failure> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let delay_ns = Arc::new(AtomicU64::new(0));
        let proxy = Self { address, delay_ns: delay_ns.clone() };
        proxy.set_delay(delay);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // On failure, the client's connection is closed.
                let _ = start_forwarding(client, server_address, &delay_ns);
            }
        });
        Ok(proxy)
    }

    /// Changes the delay of each direction.
    pub fn set_delay(&self, delay: Duration) {
        self.delay_ns.store(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns the delay of each direction.
    pub fn delay(&self) -> Duration {
        Duration::from_nanos(self.delay_ns.load(Ordering::Relaxed))
    }
}

/// Connects to the server, and starts the threads that forward the bytes of one connection, two for each direction.
fn start_forwarding(
    client: TcpStream,
    server_address: SocketAddr,
    delay_ns: &Arc<AtomicU64>,
) -> Result<(), std::io::Error> {
    let server = TcpStream::connect(server_address)?;
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        to.set_nodelay(true)?;
        let (sender, receiver) = mpsc::channel();
        let delay_ns = delay_ns.clone();
        thread::spawn(move || read_chunks(from, &sender, &delay_ns));
        thread::spawn(move || write_chunks(to, &receiver));
    }
    Ok(())
}

/// The moment at which received bytes are due to be written, and the bytes.
type Chunk = (Instant, Vec<u8>);

/// Reads chunks and passes them on. It does not wait until earlier chunks have been written, so that the throughput is
/// not limited.
fn read_chunks(mut from: TcpStream, chunks: &mpsc::Sender<Chunk>, delay_ns: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let due = Instant::now() + Duration::from_nanos(delay_ns.load(Ordering::Relaxed));
        if chunks.send((due, buffer[..length].to_vec())).is_err() {
            break;
        }
    }
}

/// Writes each chunk when it is due. It runs in a thread, not in a task, because Tokio's timers have a resolution of
/// only a millisecond.
fn write_chunks(mut to: TcpStream, chunks: &mpsc::Receiver<Chunk>) {
    for (due, bytes) in chunks {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_in_order_after_the_delay() {
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let delay = Duration::from_millis(5);
        let proxy = DelayProxy::start(server.local_addr().unwrap(), delay).unwrap();
        let mut client = TcpStream::connect(proxy.address).unwrap();
        let (mut server_side, _) = server.accept().unwrap();
        let sent: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
        let start = Instant::now();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        server_side.read_to_end(&mut received).unwrap();
        assert!(start.elapsed() >= delay);
        assert_eq!(received, sent);
    }
}
