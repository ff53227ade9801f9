//! Connections: so many at once, none of them without end, and an orderly end of all.

use std::future::pending;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::write_timeout::WriteTimeout;
use super::{Shared, routes};
use crate::error::{Error, Result};

/// How long a connection may say nothing, or send the head of a request.
const HEAD_S: u64 = 60;

/// How long it waits after a connection could not be accepted, as where the system has no more files.
const AGAIN: Duration = Duration::from_millis(100);

/// Serves connections until `stop` is ready, then finishes what is under way, for a bounded time.
pub(super) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: impl Future<Output = ()> + Send,
) -> Result<()> {
    let failed = |e| Error::device("serve", "cannot listen any longer").caused_by(e);
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let permits = Arc::new(Semaphore::new(shared.config.connections));
    let connections = GracefulShutdown::new();
    let app = routes::app(shared.clone());
    let mut stop = std::pin::pin!(stop);
    loop {
        let next = async {
            let Ok(permit) = permits.clone().acquire_owned().await else { return pending().await };
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            next = next => next,
            () = &mut stop => break,
            () = broken(&shared) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                // Tokens are small and each counts.
                let _ = stream.set_nodelay(true);
                let stream = WriteTimeout::new(stream, shared.config.write_timeout);
                let service = TowerToHyperService::new(app.clone());
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(HEAD_S))
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(hold(connections.watch(connection), permit));
            }
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
    shared.is_open.store(false, Ordering::Relaxed);
    drop(listener);
    tokio::select! {
        () = connections.shutdown() => {}
        () = tokio::time::sleep(shared.config.drain) => {}
    }
    Ok(())
}

/// A connection that ends badly is the client's affair; the permit is free afterwards.
async fn hold<E>(
    connection: impl Future<Output = std::result::Result<(), E>>,
    permit: OwnedSemaphorePermit,
) {
    let _ = connection.await;
    drop(permit);
}

/// Ready once the model has failed.
async fn broken(shared: &Shared) {
    while shared.is_open.load(Ordering::Relaxed) {
        tokio::time::sleep(AGAIN).await;
    }
}
