//! A TCP relay that can be cut: a partition between two processes.

use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes connections on to a target. Cut, it ends those it has and refuses others.
pub struct Relay {
    address: SocketAddr,
    cut: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(target: String) -> std::io::Result<Relay> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (cut, is_cut) = watch::channel(false);
        let task = tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                if !*is_cut.borrow() {
                    tokio::spawn(pass(from, target.clone(), is_cut.clone()));
                }
            }
        });
        Ok(Relay { address, cut, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts, or mends.
    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut from: TcpStream, target: String, mut is_cut: watch::Receiver<bool>) {
    let Ok(mut to) = TcpStream::connect(target).await else { return };
    // A link is as fast as it can be; what either side does not send at once is its own affair.
    let _ = from.set_nodelay(true).and_then(|()| to.set_nodelay(true));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
        _ = is_cut.wait_for(|cut| *cut) => {}
    }
}
