//! Free ports of the loopback address.

use rand::Rng as _;
use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;

/// Below what Linux gives to outgoing connections (from 32768 on): a port from there could be taken by one between its
/// choice and its use, if only by another replica's dialling.
const PORTS: std::ops::Range<u16> = 17_000..32_000;

/// `count` free ports of 127.0.0.1, none of them in `taken`.
///
/// # Errors
/// When hardly any port is free.
pub(crate) fn free(count: usize, taken: &BTreeSet<u16>) -> io::Result<Vec<u16>> {
    const ATTEMPTS: usize = 1000;
    let mut found = Vec::new();
    for _ in 0..ATTEMPTS {
        if found.len() == count {
            break;
        }
        let port = rand::rng().random_range(PORTS);
        if !taken.contains(&port) && !found.contains(&port) && is_free(&format!("127.0.0.1:{port}")).is_ok() {
            found.push(port);
        }
    }
    match found.len() == count {
        true => Ok(found),
        false => Err(io::Error::other("no free port was found on 127.0.0.1")),
    }
}

/// Whether `address` can be listened on.
///
/// # Errors
/// Why not.
pub(crate) fn is_free(address: &str) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_and_free() {
        let ports = free(20, &BTreeSet::new()).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 20);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(is_free(&listener.local_addr().unwrap().to_string()).is_err());
    }
}
