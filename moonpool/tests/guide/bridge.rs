//! Calls from threads that are not the transport's.

use std::{io, rc::Rc, thread, time::Duration};

use moonpool::prelude::*;
use tokio::sync::{mpsc, oneshot};

use super::store::Store;

// bridge
type Got = Result<Option<String>, ReplyError>;

/// Calls the store from any thread: from tasks of a multi-threaded runtime, for example.
#[derive(Clone)]
pub struct StoreHandle(mpsc::Sender<(String, oneshot::Sender<Got>)>);

impl StoreHandle {
    /// Starts the thread of the transport. It ends after the last handle is gone.
    pub fn start(store: NetworkAddress) -> io::Result<Self> {
        let (asking, mut asked) = mpsc::channel::<(String, oneshot::Sender<Got>)>(1024);
        let mut run = move || -> io::Result<()> {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build_local(Default::default())?;
            runtime.block_on(async {
                let p = TokioProviders::new();
                let transport = FlowTransportBuilder::from_providers(&p).build();
                let store = Rc::new(Store::remote(&transport, store, JsonCodec));
                while let Some((key, mut answer)) = asked.recv().await {
                    let store = Rc::clone(&store);
                    p.task().spawn_task("get", async move {
                        tokio::select! {
                            got = store.get(key) => drop(answer.send(got)),
                            // Whoever asked has gone, and the call with it.
                            () = answer.closed() => {}
                        }
                    });
                }
                transport.shutdown(Duration::from_secs(5)).await;
            });
            Ok(())
        };
        let run = move || {
            if let Err(error) = run() {
                tracing::error!(%error, "the store's thread has no runtime");
            }
        };
        thread::Builder::new().name("store".into()).spawn(run)?;
        Ok(Self(asking))
    }

    pub async fn get(&self, key: String) -> Got {
        let (answer, answered) = oneshot::channel();
        if self.0.send((key, answer)).await.is_err() {
            return Err(ReplyError::ConnectionFailed);
        }
        answered.await.unwrap_or(Err(ReplyError::MaybeDelivered))
    }
}
// end of bridge

#[test]
fn other_threads_call_through_a_thread_of_the_transport() {
    let shard = super::cores::Shard::start("127.0.0.1:0".parse().unwrap()).unwrap();
    let handle = StoreHandle::start(shard.address).unwrap();
    let asking = (0..4).map(|number: u32| {
        let handle = handle.clone();
        thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.build().unwrap();
            runtime.block_on(handle.get(number.to_string()))
        })
    });
    for got in asking.collect::<Vec<_>>() {
        assert_eq!(got.join().unwrap(), Ok(None));
    }
    drop(handle);
    shard.stop().unwrap();
}
