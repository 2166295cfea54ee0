//! Answers that are promised inside of messages.

use std::{rc::Rc, sync::Arc, time::Duration};

use moonpool::foundation::{NetworkConfiguration, SimWorld};
use moonpool::prelude::*;
use moonpool::{
    Client, EmbeddedPromise, MethodStream, NetworkProvider, Refusal, Serving, define_interface,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::store::{Transport, listen};

// promises
#[derive(Serialize, Deserialize)]
pub struct Job {
    pub text: String,
    pub words: EmbeddedPromise<usize>,
}

define_interface! {
    /// Takes jobs, to do them or to hand them on.
    pub Jobs, id 0x5701_4E03, {
        /// Answered once the job is taken. Its result comes by the promise.
        take: Job => (),
    }
}

/// Has words counted by whoever does it in the end. The transport has to listen: the result comes to
/// its address.
pub async fn count<N: NetworkProvider, T: TimeProvider, TP: TaskProvider>(
    transport: &FlowTransport<N, T, TP>,
    jobs: &Client<Jobs>,
    text: String,
) -> Result<usize, ReplyError> {
    let promise = transport.promise(JsonCodec);
    let (words, counted) = promise.timeout(Duration::from_secs(60)).open()?;
    jobs.take(Job { text, words }).await?;
    counted.await
}

/// Hands jobs on to a worker, whose results do not come through here.
async fn hand_on<T: TimeProvider, TP: TaskProvider>(
    serving: Serving<T, TP>,
    jobs: MethodStream<Job, (), JsonCodec>,
    worker: Client<Jobs>,
) {
    let hand_on = async move |job, caller: &_| worker.take(job).within(caller).await;
    serving.serve(jobs, hand_on).await;
}

/// Does them, each in a task of its own, and takes 16 at a time.
async fn work<P: Providers>(
    p: P,
    transport: Rc<Transport<P>>,
    jobs: MethodStream<Job, (), JsonCodec>,
) {
    let places = Arc::new(Semaphore::new(16));
    let serving = Serving::new(&transport);
    let begin = async move |Job { text, words }, _: &_| {
        let place = places.clone().try_acquire_owned();
        let place = place.map_err(|_full| ReplyError::Refused(Refusal::Overloaded))?;
        // A duty from here on: if the task is dropped, its maker gets `BrokenPromise`.
        let promise = words.bind(&transport, JsonCodec);
        let time = p.time().clone();
        p.task().spawn_task("job", async move {
            time.sleep(Duration::from_millis(500)).await; // the work
            promise.send(text.split_whitespace().count());
            drop(place);
        });
        Ok(())
    };
    serving.serve(jobs, begin).await;
}
// end of promises

#[test]
fn a_job_that_is_handed_on_is_answered_by_its_worker() {
    let config = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config_and_seed(config, 7).unwrap();
    let [worker, front, client] = ["worker", "front", "client"].map(|name| {
        let process = world.add_process(name);
        (NetworkAddress::new(process.ip(), 4500), process.providers())
    });
    let main = async move {
        let transport = listen(&worker.1, worker.0).await.unwrap();
        let jobs = Jobs::serve(&transport, JsonCodec).unwrap().take;
        let p = worker.1.clone();
        worker.1.task().spawn_task("work", work(p, transport, jobs));
        let transport = listen(&front.1, front.0).await.unwrap();
        let jobs = Jobs::serve(&transport, JsonCodec).unwrap().take;
        let behind = Jobs::remote(&transport, worker.0, JsonCodec);
        let handing_on = hand_on(Serving::new(&transport), jobs, behind);
        front.1.task().spawn_task("front", handing_on);
        let transport = listen(&client.1, client.0).await.unwrap();
        let jobs = Jobs::remote(&transport, front.0, JsonCodec);
        let counted = count(&transport, &jobs, "as many as five words".into());
        assert_eq!(counted.await, Ok(5));
    };
    world.block_on(main).unwrap();
}
