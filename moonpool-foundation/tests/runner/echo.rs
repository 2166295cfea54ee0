//! An echo service and its client, written once for both worlds: the workload that determinism is
//! judged on.

use std::time::Duration;

use moonpool_foundation::{
    NetworkProvider, Providers, RandomProvider, SimulationError, SimulationMetrics,
    SimulationResult, TaskProvider, TcpListenerTrait, TimeProvider, WorkloadTopology, select,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const ROUNDS: usize = 5;

/// Echoes until told to shut down, each connection in a task of its own.
pub(crate) async fn server<P: Providers>(
    providers: P,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let address = format!("{}:7000", topology.my_ip);
    let listener = providers.network().bind(&address).await?;
    loop {
        select! {
            () = topology.shutdown_signal.cancelled() => return Ok(SimulationMetrics::default()),
            accepted = listener.accept() => {
                let (stream, _peer) = accepted?;
                providers.task().spawn_task("echo", echo(stream));
            }
        }
    }
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut bytes = [0; 256];
    loop {
        match stream.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if stream.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Sends random bytes and expects them back.
pub(crate) async fn client<P: Providers>(
    providers: P,
    _topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let mut stream = loop {
        match providers.network().connect("server:7000").await {
            Ok(stream) => break stream,
            Err(_) => providers.time().sleep(Duration::from_millis(1)).await,
        }
    };
    for _ in 0..ROUNDS {
        let length = providers.random().random_range(1..200_usize);
        let sent: Vec<u8> = (0..length).map(|_| providers.random().random()).collect();
        stream.write_all(&sent).await?;
        let mut received = vec![0; length];
        stream.read_exact(&mut received).await?;
        if received != sent {
            return Err(SimulationError::workload("other bytes came back"));
        }
    }
    Ok(SimulationMetrics::default())
}
