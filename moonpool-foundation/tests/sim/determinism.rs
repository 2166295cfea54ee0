//! The digest sees everything: one byte, one task's turn, one draw.

use std::rc::Rc;
use std::time::Duration;

use moonpool_foundation::{
    NetworkProvider, RandomProvider, SchedulePolicy, SimWorld, TaskProvider, TcpListenerTrait,
    TimeProvider,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

/// The digest of a world in which `bytes` travel over a connection.
fn digest_of_sending(bytes: [u8; 16]) -> u64 {
    let world = SimWorld::new_with_seed(5);
    let server = world.add_process("server").network_provider();
    let client = world.add_process("client");
    let (network, time) = (client.network_provider(), client.time_provider());
    world.task_provider().spawn_task("server", async move {
        let listener = server.bind("server:80").await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    });
    world
        .block_on(async move {
            time.sleep(Duration::from_secs(1)).await;
            let mut stream = network.connect("server:80").await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        })
        .unwrap();
    world.run_until_empty().unwrap();
    world.digest()
}

#[test]
fn one_changed_byte_changes_the_digest() {
    let bytes = [7; 16];
    let digest = digest_of_sending(bytes);
    assert_eq!(digest_of_sending(bytes), digest);
    for index in 0..bytes.len() {
        let mut changed = bytes;
        changed[index] ^= 1;
        assert_ne!(digest_of_sending(changed), digest, "byte {index}");
    }
}

/// The digest of a world in which two tasks that do nothing become ready in this order. They are
/// polled in it too, and nothing else tells one from the other.
fn digest_of_waking(order: [usize; 2]) -> u64 {
    let world = SimWorld::new_with_seed(5);
    world.set_schedule_policy(SchedulePolicy::Fifo);
    let ready: Rc<[Notify; 2]> = Rc::default();
    for index in 0..2 {
        let ready = Rc::clone(&ready);
        let wait = async move { ready[index].notified().await };
        world.task_provider().spawn_task("twin", wait);
    }
    world.run_until_empty().unwrap();
    for index in order {
        ready[index].notify_one();
    }
    world.run_until_empty().unwrap();
    assert_eq!(world.leftovers().tasks, 0);
    world.digest()
}

#[test]
fn two_swapped_tasks_change_the_digest() {
    assert_eq!(digest_of_waking([0, 1]), digest_of_waking([0, 1]));
    assert_ne!(digest_of_waking([0, 1]), digest_of_waking([1, 0]));
}

/// The digest of a world in which numbers are drawn and thrown away.
fn digest_of_drawing(draws: usize) -> u64 {
    let world = SimWorld::new_with_seed(5);
    let random = world.random_provider();
    for _ in 0..draws {
        let _: u64 = random.random();
    }
    world.digest()
}

#[test]
fn one_added_draw_changes_the_digest() {
    assert_eq!(digest_of_drawing(3), digest_of_drawing(3));
    assert_ne!(digest_of_drawing(3), digest_of_drawing(4));
    assert_ne!(digest_of_drawing(0), digest_of_drawing(1));
}
